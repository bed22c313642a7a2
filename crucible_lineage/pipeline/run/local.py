"""The local engine: steps in threads of this process, tried again as often as they declare."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from crucible_lineage.errors import InputError, LineageError
from crucible_lineage.pipeline.job.materialize import materialize_step
from crucible_lineage.pipeline.job.order import StepOrder, step_job
from crucible_lineage.pipeline.run.materialized import Materialized
from crucible_lineage.pipeline.run.scheduler import Running
from crucible_lineage.session import Session

__all__ = ["LocalEngine"]


class LocalEngine:
    """Threads of this process, `jobs` of them."""

    def __init__(self, session: Session, jobs: int) -> None:
        self.session = session
        self.pool = ThreadPoolExecutor(jobs, thread_name_prefix="step")

    def start(self, order: StepOrder) -> Running:
        """The step has been put into the pool."""
        return self.pool.submit(self._make, order)

    def result(self, running: Any) -> Materialized:
        """The outcome of the step."""
        made: Materialized = running.result()
        return made

    def _make(self, order: StepOrder) -> Materialized:
        job = step_job(order, {"engine": "local"})
        retries = order.instance.step.spec.retries
        for attempt in range(retries + 1):
            try:
                return materialize_step(job, self.session)
            except InputError:
                raise
            except LineageError:
                if attempt == retries:
                    raise
        raise AssertionError("unreachable")
