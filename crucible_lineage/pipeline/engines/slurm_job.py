"""A task of a Slurm job: executes steps of the batch in the given folder, and writes their outcomes there."""

from __future__ import annotations

import sys
from pathlib import Path

from crucible_lineage.core.journal import Journal, RemoteJournal
from crucible_lineage.errors import LineageError, StepError
from crucible_lineage.pipeline.engines.slurm_batch import Batch
from crucible_lineage.pipeline.job.job_json import error_to_json, job_from_json, made_to_json
from crucible_lineage.pipeline.job.materialize import materialize_step
from crucible_lineage.pipeline.logs import record_fault
from crucible_lineage.session import Session
from crucible_lineage.settings import resolve_settings


def main(folder: Path, task: int) -> None:
    """Execute the steps that this task claims, and write each outcome."""
    batch = Batch.read(folder)
    data = Path(str(batch.context["data"]))
    for number in batch.claims(task):
        batch.write_outcome(number, _outcome(batch, number, data))


def _outcome(batch: Batch, number: int, data: Path) -> dict[str, object]:
    """Execute a member in a session of its own, so that a session that does not open fails only that step."""
    try:
        entry = batch.job(number)
        with _NodeSession(resolve_settings(data=data, api_url=batch.context["api_url"])) as session:
            return made_to_json(materialize_step(job_from_json(entry["job"], entry["run"], session), session))
    except LineageError as error:
        return {"error": error_to_json(error)}
    except Exception as error:
        fault = record_fault(error, data)
        return {"error": error_to_json(StepError(fault.message, log=str(fault.log) if fault.log else None))}


class _NodeSession(Session):
    """A session on a cluster node, which does not write the journal: the run does."""

    @property
    def journal(self) -> Journal:
        """A journal that is never opened."""
        return RemoteJournal(self.store.instance, lambda: self.account)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
