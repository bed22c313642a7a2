"""A task of a Slurm job: makes steps of the batch in the given folder, and leaves what came of them there."""

from __future__ import annotations

import sys
from pathlib import Path

from crucible_lineage.core.journal import Journal, RemoteJournal
from crucible_lineage.errors import LineageError
from crucible_lineage.pipeline.engines.slurm_batch import Batch
from crucible_lineage.pipeline.job.job_json import job_from_json, made_to_json
from crucible_lineage.pipeline.job.materialize import materialize_step
from crucible_lineage.pipeline.logs import record_fault
from crucible_lineage.session import Session
from crucible_lineage.settings import resolve_settings


def main(folder: Path, task: int) -> None:
    """Make what this task takes, and write each outcome."""
    batch = Batch.read(folder)
    data = Path(str(batch.context["data"]))
    for number in batch.to_make(task):
        batch.leave(number, _outcome(batch, number, data))


def _outcome(batch: Batch, number: int, data: Path) -> dict[str, object]:
    """Make a member, in a session of its own, so that what keeps one from opening is an error of its step."""
    try:
        asked = batch.job(number)
        with _NodeSession(resolve_settings(data=data, api_url=batch.context["api_url"])) as session:
            return made_to_json(materialize_step(job_from_json(asked["job"], asked["run"], session), session))
    except LineageError as error:
        return _told(type(error).__name__, str(error), getattr(error, "log", None), getattr(error, "trace", ""))
    except Exception as error:
        fault = record_fault(error, data)
        return _told("RunError", fault.message, str(fault.log or "") or None, "")


class _NodeSession(Session):
    """A session on a node of the cluster, which leaves the journal to the run."""

    @property
    def journal(self) -> Journal:
        """A journal that is never opened."""
        return RemoteJournal(self.store.instance, lambda: self.account)


def _told(kind: str, message: str, log: str | None, trace: str) -> dict[str, object]:
    return {"error": {"kind": kind, "message": message, "log": log, "trace": trace}}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
