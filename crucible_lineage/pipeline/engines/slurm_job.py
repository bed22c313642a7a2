"""In a job of Slurm: makes the step whose folder is the argument, and leaves what came of it there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from crucible_lineage.core.journal import Journal, RemoteJournal
from crucible_lineage.errors import LineageError
from crucible_lineage.pipeline.job.job_json import job_from_json, made_to_json
from crucible_lineage.pipeline.job.materialize import materialize_step
from crucible_lineage.pipeline.logs import told_fault
from crucible_lineage.session import Session
from crucible_lineage.settings import resolve_settings

__all__ = ["main"]


def main(folder: Path) -> None:
    """The file `outcome.json` is there, whole."""
    asked = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    data, api_url = Path(asked["settings"]["data"]), asked["settings"]["api_url"]
    try:
        with _NodeSession(resolve_settings(data=data, api_url=api_url)) as session:
            outcome = made_to_json(materialize_step(job_from_json(asked["job"], asked["run"], session), session))
    except LineageError as error:
        outcome = _told(type(error).__name__, str(error), getattr(error, "log", None), getattr(error, "trace", ""))
    except Exception as error:
        fault = told_fault(error, data)
        outcome = _told("RunError", fault.message, str(fault.log or "") or None, "")
    part = folder / "outcome.part"
    part.write_text(json.dumps(outcome), encoding="utf-8")
    part.replace(folder / "outcome.json")


class _NodeSession(Session):
    """A session on a node of the cluster, which leaves the journal to the run."""

    @property
    def journal(self) -> Journal:
        """A journal that is never opened."""
        return RemoteJournal(self.store.instance, lambda: self.account)


def _told(kind: str, message: str, log: str | None, trace: str) -> dict[str, object]:
    return {"error": {"kind": kind, "message": message, "log": log, "trace": trace}}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
