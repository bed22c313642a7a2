"""What steps printed: with a result, or of the last attempt of a step, which may have failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError, nearest
from crucible_lineage.pipeline.declare.load import read_declaration
from crucible_lineage.pipeline.logs.step_log import STEP_LOG
from crucible_lineage.session import Session

__all__ = ["StepAttempt", "last_attempts", "log_of_dataset"]


@dataclass(frozen=True)
class StepAttempt:
    """How an instance of a step last ended, when the run began, and what it printed (None: nothing is kept of it)."""

    step: str
    outcome: str
    started: str
    datasets: Mapping[str, str]
    error: str | None
    log: str | None


def log_of_dataset(session: Session, mfid: str) -> str | None:
    """Return what the step printed that made the dataset; None if it printed nothing, or if no step made it.

    InputError if there is no such dataset.
    """
    try:
        files = session.client.datasets.list_files(mfid)
    except (ForbiddenError, NotFoundError) as error:
        where = session.settings.describe()
        raise InputError(f"dataset {mfid}: no such dataset here is visible to this key ({where})") from error
    for file in files:
        if file.filename == STEP_LOG:
            return session.client.files.download_bytes(file).decode(errors="replace")
    return None


def last_attempts(session: Session, pipeline: Path, step: str) -> Iterator[StepAttempt]:
    """The last attempt of each instance of a step, as far as it was made from this data folder.

    InputError if the pipeline has no such step, or it was never run here. That the declaration has faults by now, or
    has lost the step, hides nothing of what there is.
    """
    declaration = read_declaration(pipeline)
    spec = declaration.spec
    found = session.journal.last_attempts(spec.pipeline, step) if spec else []
    if not found:
        if spec is None or declaration.faults:
            raise InputError("", declaration.faults)
        declared = step.partition("[")[0]
        if declared not in spec.steps:
            raise InputError(f"pipeline {spec.pipeline!r} has no step {declared!r}; {nearest(declared, spec.steps)}")
        raise InputError(f"step {step!r} of pipeline {spec.pipeline!r} was never run from {session.settings.data}")
    for attempt in found:
        log = _stored_log(attempt["log"])
        if log is None and attempt["datasets"]:
            log = log_of_dataset(session, next(iter(attempt["datasets"].values())))
        names = ("step", "outcome", "started", "datasets", "error")
        yield StepAttempt(**{name: attempt[name] for name in names}, log=log)


def _stored_log(path: str | None) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace") if path else None
    except OSError:  # the folder of the attempt was taken away
        return None
