"""An engine around another one, which leaves alone what failed too often.

Failures are counted in the journal, under the id that a result would have: when its code, parameters or inputs change,
it has another id, and is made as if it had never failed. What is parked is stated at Crucible, for all workers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from crucible_lineage.core.journal import Failure
from crucible_lineage.errors import ParkedError
from crucible_lineage.parked import failures
from crucible_lineage.pipeline.engines.engine import Engine, Running
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.job.materialize import Materialized
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.registration.deliver import Deliverer
from crucible_lineage.session import Session

__all__ = ["Parking"]


class Parking:
    """Starts steps with `engine`, but none that has failed `most_failures` times, or that another worker has parked.

    `parked` are those, `failed` all others, by the names of their instances.
    """

    def __init__(self, engine: Engine, session: Session, most_failures: int) -> None:
        self.engine = engine
        self.most_failures = most_failures
        self.parked: dict[str, Failure] = {}
        self.failed: dict[str, str] = {}
        self._known = failures(session)
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
        """Start the step, unless it is parked: then it has ended at once."""
        known = self._known.get(min(planned.mfid for planned in job.outputs))
        if known is not None and (known.parked or known.failures >= self.most_failures):
            self.parked[job.name] = known
            return _Parked(known)
        running = self.engine.start(job)
        with self._lock:
            self._jobs[id(running)] = (running, job)  # with `running`, so that its id stays its own
        return running

    def result(self, running: object) -> Materialized:
        """Return the outcome of the step. Raises what it raised, ParkedError if it is parked."""
        if isinstance(running, _Parked):
            raise ParkedError(f"parked after {running.failure.failures} failures: {running.failure.error}")
        with self._lock:
            _, job = self._jobs.pop(id(running))
        try:
            return self.engine.result(running)
        except Exception as error:
            self.failed[job.name] = str(error) or type(error).__name__
            raise

    def stop(self, run_id: str) -> bool:
        """Stop as its engine does."""
        return self.engine.stop(run_id)

    def note_refused(self, result: RunResult) -> dict[str, str]:
        """Note refused results as failed, and return the reasons.

        Each run sends them again without making them again, so that none is parked.
        """
        steps = {one.step for one in result.waiting if one.refused}
        refused = {step: error for step, error in result.errors.items() if step in steps and step not in self.failed}
        self.failed |= refused
        return refused


class _Parked:
    """A step that was not started."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure

    def add_done_callback(self, callback: Callable[[object], None], /) -> None:
        callback(self)
