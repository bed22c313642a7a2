"""An engine around another one, which counts failures and leaves alone what failed too often.

A result is counted under the id that it would have: when its code, parameters or inputs change, it has another id, and
is made as if it had never failed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from crucible_lineage.errors import (
    ChecksumError,
    FileChangedError,
    ForbiddenError,
    StepError,
    UnauthorizedError,
)
from crucible_lineage.pipeline.job.order import StepOrder
from crucible_lineage.pipeline.run.materialized import Materialized
from crucible_lineage.pipeline.run.scheduler import Engine, Running
from crucible_lineage.provenance.recipe import derived_mfid, step_recipe
from crucible_lineage.tasks.retries import TRANSIENT
from crucible_lineage.watch.state import Failure, Logbook

__all__ = ["Parking"]

# What is not the dataset's fault is not counted against it.
NOT_COUNTED = (*TRANSIENT, UnauthorizedError, ForbiddenError, ChecksumError, FileChangedError)


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
        self._orders: dict[int, tuple[Running, StepOrder, str]] = {}
        self._lock = threading.Lock()

    def start(self, order: StepOrder) -> Running:
        """The step has been started, unless it is parked: then it has ended at once."""
        mfid = _planned_id(order)
        known = self._known.get(mfid)
        if known is not None and known.failures >= self.most:
            self.parked[order.name] = known
            return _Parked(known)
        running = self.engine.start(order)
        with self._lock:
            self._orders[id(running)] = (running, order, mfid)  # with `running`, so that its id stays its own
        return running

    def result(self, running: Any) -> Materialized:
        """The outcome of the step; raises what it raised, and counts it."""
        if isinstance(running, _Parked):
            raise StepError(f"parked after {running.failure.failures} failures: {running.failure.error}")
        with self._lock:
            _, order, mfid = self._orders.pop(id(running))
        try:
            made = self.engine.result(running)
        except Exception as error:
            self.failed[order.name] = str(error) or type(error).__name__
            if not isinstance(error, NOT_COUNTED):
                self._note(order, mfid, self.failed[order.name])
            raise
        step = (order.pipeline.spec.project, order.pipeline.name, order.name)
        if step in self._ever:
            self.logbook.succeeded(*step)
        return made

    def _note(self, order: StepOrder, mfid: str, error: str) -> None:
        spec = order.pipeline.spec
        failure = Failure(mfid, spec.project, spec.pipeline, order.name, order.instance.subject, error)
        self.logbook.note_failure(failure, self.most)


class _Parked:
    """A step that was not started."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure

    def add_done_callback(self, callback: Callable[[Any], None], /) -> None:
        callback(self)


def _planned_id(order: StepOrder) -> str:
    """The id of the first output of the step."""
    instance = order.instance
    code, params = instance.inspection.code, instance.inspection.params
    output = instance.inspection.outputs[0]
    return derived_mfid(step_recipe(order.pipeline.spec.project, code, output, params, order.used, order.attempt))
