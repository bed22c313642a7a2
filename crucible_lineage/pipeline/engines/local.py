"""The local engine: steps in threads of this process, tried again as often as they declare."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from crucible_lineage.errors import InputError, LineageError, StoppedError
from crucible_lineage.pipeline.engines.engine import Running
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.job.materialize import Materialized, materialize_step
from crucible_lineage.pipeline.processes.supervised import stop_run
from crucible_lineage.pipeline.processes.worker import start_ahead
from crucible_lineage.registration.deliver import Deliverer
from crucible_lineage.session import Session

__all__ = ["LocalEngine", "trying_again"]


class LocalEngine:
    """Threads of this process, `jobs` of them."""

    def __init__(self, session: Session, jobs: int) -> None:
        self.session = session
        self.deliverer: Deliverer | None = None
        self.jobs = jobs
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
