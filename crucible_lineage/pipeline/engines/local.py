"""What a run asks of whatever runs its steps; and the local engine, with steps in threads of this process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from crucible_lineage.errors import InputError, LineageError, StoppedError
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.job.materialize import Materialized, materialize_step
from crucible_lineage.pipeline.processes.supervised import stop_run
from crucible_lineage.pipeline.processes.worker import start_ahead
from crucible_lineage.registration.deliver import Deliverer
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.pipeline.job.job import Job
    from crucible_lineage.pipeline.job.materialize import Materialized

AHEAD = 8  # chosen: no thread waits for its next step, and thousands that could begin take no memory yet


class Running(Protocol):
    """A step under way."""

    def add_done_callback(self, callback: Callable[[object], None], /) -> None:
        """`callback` is called, in any thread, when the step has ended."""


class Engine(Protocol):
    """What runs steps: threads of this process, or Prefect.

    One that hands on what is made before it is delivered has an attribute `deliverer`, which is set before the first
    step is started. One that begins steps in the order in which they are started may have an attribute `most_at_once`:
    how many steps are started before one of them has ended. One that can get ready has a method `start_ahead`, which is
    told how many functions can be called to begin with.
    """

    def start(self, job: Job) -> Running:
        """The step has been handed over."""

    def result(self, running: object) -> Materialized:
        """The outcome of a step that has ended; raises what it raised."""

    def stop(self, run_id: str) -> bool:
        """Stop what can be stopped, and begin nothing more. False if its steps are not to be waited for."""


class LocalEngine:
    """Threads of this process, `jobs` of them."""

    def __init__(self, session: Session, jobs: int) -> None:
        self.session = session
        self.deliverer: Deliverer | None = None
        self.jobs = jobs
        self.most_at_once = AHEAD * jobs
        self.pool = ThreadPoolExecutor(jobs, thread_name_prefix="step")

    def start_ahead(self, steps: int) -> None:
        """The first processes for functions of steps are being started, where there are so many steps to begin with."""
        start_ahead(min(steps, self.jobs))

    def start(self, job: Job) -> Running:
        """The step has been put into the pool."""
        return self.pool.submit(self._make, replace(job, run={**job.run, "engine": "local"}))

    def result(self, running: Any) -> Materialized:
        """The outcome of the step."""
        try:
            made: Materialized = running.result()
        except CancelledError:
            raise StoppedError("it was not begun, since the run was stopped") from None
        return made

    def stop(self, run_id: str) -> bool:
        """Steps that wait are taken back, processes are being ended; what is being registered goes on."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        stop_run(run_id)
        return True

    def _make(self, job: Job) -> Materialized:
        return trying_again(job, lambda: materialize_step(job, self.session, deliveries=self.deliverer))


def trying_again(job: Job, make: Callable[[], Materialized]) -> Materialized:
    """Make a step, again as often as it declares; raises what the last attempt raised."""
    for _ in range(job.spec.retries):
        try:
            return make()
        except (InputError, StoppedError):
            raise
        except LineageError:
            continue
    return make()
