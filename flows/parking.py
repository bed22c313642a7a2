"""An engine around another one, which counts failures and leaves alone what failed too often.

A result is counted under the id that it would have: when its code, parameters or inputs change, it has another id, and
is made as if it had never failed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from crucible_lineage.errors import (
    TRANSIENT,
    ChecksumError,
    FileChangedError,
    ForbiddenError,
    StepError,
    StoppedError,
    UnauthorizedError,
)
from crucible_lineage.pipeline.engines.engine import Engine, Running
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.job.materialize import Materialized
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.registration.deliver import Deliverer
from crucible_lineage.watch.state import Failure, Logbook

__all__ = ["Parking"]

# What is not the dataset's fault is not counted against it.
NOT_COUNTED = (*TRANSIENT, UnauthorizedError, ForbiddenError, ChecksumError, FileChangedError, StoppedError)


class Parking:
    """Starts steps with `engine`, but none that has failed `most` times. `parked` are those, `failed` all others.

    Both hold the instances' names.
    """

    def __init__(self, engine: Engine, logbook: Logbook, most: int) -> None:
        self.engine = engine
        self.logbook = logbook
        self.most = most
        self.parked: dict[str, Failure] = {}
        self.failed: dict[str, str] = {}
        self._known = logbook.failures()
        self._ever = {(failure.project, failure.pipeline, failure.step) for failure in self._known.values()}
        self._jobs: dict[int, tuple[Running, Job]] = {}
        self._lock = threading.Lock()

    @property
    def deliverer(self) -> Deliverer | None:
        """Whoever delivers what the engine hands on before it is delivered."""
        return getattr(self.engine, "deliverer", None)

    @deliverer.setter
    def deliverer(self, deliverer: Deliverer) -> None:
        if hasattr(self.engine, "deliverer"):
            self.engine.deliverer = deliverer

    def start(self, job: Job) -> Running:
        """The step has been started, unless it is parked: then it has ended at once."""
        known = self._known.get(job.outputs[0].mfid)
        if known is not None and known.failures >= self.most:
            self.parked[job.name] = known
            return _Parked(known)
        running = self.engine.start(job)
        with self._lock:
            self._jobs[id(running)] = (running, job)  # with `running`, so that its id stays its own
        return running

    def result(self, running: object) -> Materialized:
        """The outcome of the step; raises what it raised, and counts it."""
        if isinstance(running, _Parked):
            raise StepError(f"parked after {running.failure.failures} failures: {running.failure.error}")
        with self._lock:
            _, job = self._jobs.pop(id(running))
        try:
            made = self.engine.result(running)
        except Exception as error:
            self.failed[job.name] = str(error) or type(error).__name__
            if not isinstance(error, NOT_COUNTED):
                self._note(job, self.failed[job.name])
            raise
        step = (job.project, _pipeline(job), job.name)
        if step in self._ever:
            self.logbook.succeeded(*step)
        return made

    def stop(self, run_id: str) -> bool:
        """As its engine stops."""
        return self.engine.stop(run_id)

    def note_refused(self, result: RunResult) -> dict[str, str]:
        """Note refused results as failed, and return the reasons.

        Each run sends them again without making them again, so that none is parked.
        """
        steps = {one.step for one in result.waiting if one.refused}
        refused = {step: error for step, error in result.errors.items() if step in steps and step not in self.failed}
        self.failed |= refused
        return refused

    def _note(self, job: Job, error: str) -> None:
        failure = Failure(job.outputs[0].mfid, job.project, _pipeline(job), job.name, job.subject, error)
        self.logbook.note_failure(failure, self.most)


class _Parked:
    """A step that was not started."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure

    def add_done_callback(self, callback: Callable[[object], None], /) -> None:
        callback(self)


def _pipeline(job: Job) -> str:
    return (job.pipeline or {}).get("name", "")
