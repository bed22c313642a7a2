"""The interface of engines, which execute the steps of a run; and the local engine, with threads of this process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from crucible_lineage.errors import InputError, StoppedError
from crucible_lineage.pipeline.job.job import StepState
from crucible_lineage.pipeline.job.materialize import materialize_step
from crucible_lineage.pipeline.plan.plan import StepPlan
from crucible_lineage.pipeline.processes.supervised import stop_run
from crucible_lineage.registration.deliver import Deliverer
from crucible_lineage.session import Session

AHEAD = 8  # chosen: queued steps per thread, so that none is idle, and thousands of ready steps take no memory


class Running(Protocol):
    """A step under way."""

    def add_done_callback(self, callback: Callable[[object], None], /) -> None:
        """Call `callback`, in any thread, when the step has ended."""


class Engine(Protocol):
    """An executor of steps: threads of this process, or Prefect.

    `deliverer` is set before the first step, so that results are handed on before they are delivered. An optional
    attribute is `most_at_once`, the number of steps to start before one has ended, if it begins steps in order.
    """

    deliverer: Deliverer | None

    def start(self, job: StepPlan) -> Running:
        """Start a step."""

    def result(self, running: object) -> StepState:
        """Return the outcome of a step that has ended; raises the step's error."""

    def stop(self, run_id: str) -> None:
        """Start no more steps, and stop those that can be stopped; the run waits for the others."""


class LocalEngine:
    """Threads of this process, `jobs` of them."""

    def __init__(self, session: Session, jobs: int) -> None:
        self.session = session
        self.deliverer: Deliverer | None = None
        self.most_at_once = AHEAD * jobs
        self.pool = ThreadPoolExecutor(jobs, thread_name_prefix="step")

    def start(self, job: StepPlan) -> Running:
        """Put the step into the pool."""
        job = replace(job, run={**job.run, "engine": "local"})
        assert self.deliverer is not None
        make = partial(materialize_step, job, self.session, self.deliverer.add)
        return self.pool.submit(with_retries, job, make)

    def result(self, running: Any) -> StepState:
        """Return the outcome of the step."""
        try:
            made: StepState = running.result()
        except CancelledError:
            raise StoppedError("it was not begun, since the run was stopped") from None
        return made

    def stop(self, run_id: str) -> None:
        """Cancel waiting steps and end processes; registrations go on."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        stop_run(run_id)


def with_retries(job: StepPlan, make: Callable[[], StepState]) -> StepState:
    """Execute a step with its declared number of retries; raises the error of the last attempt."""
    for _ in range(job.spec.retries):
        try:
            return make()
        except Exception as error:
            if not is_worth_another(error):
                raise
    return make()


def is_worth_another(error: Exception) -> bool:
    """Return whether a step that failed may succeed when repeated."""
    return not isinstance(error, (InputError, StoppedError))
