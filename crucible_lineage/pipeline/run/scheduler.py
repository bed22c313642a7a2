"""A run: what is not fresh is made, as wide as the engine allows; a failed step stops only its descendants."""

from __future__ import annotations

import queue
import random
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from crucible_lineage.errors import InputError, LineageError
from crucible_lineage.pipeline.bind.model import BoundPipeline
from crucible_lineage.pipeline.bind.names import descendants, require_names
from crucible_lineage.pipeline.files.publish import publish
from crucible_lineage.pipeline.job.order import StepOrder
from crucible_lineage.pipeline.plan.inputs import InputItem, register_inputs
from crucible_lineage.pipeline.plan.plan import BLOCKED, FRESH, PipelinePlan, plan_instance
from crucible_lineage.pipeline.plan.planner import Planned, plan_pipeline
from crucible_lineage.pipeline.plan.used import used_datasets
from crucible_lineage.pipeline.run.materialized import Materialized
from crucible_lineage.pipeline.run.result import (
    EXECUTED,
    FAILED,
    LEFT_OUT,
    REUSED,
    SKIPPED,
    STARTED,
    Listener,
    RunResult,
    StepEvent,
)
from crucible_lineage.refs import DatasetRef
from crucible_lineage.session import Session

__all__ = ["Choice", "Engine", "Running", "run_pipeline", "run_planned"]


@dataclass(frozen=True)
class Choice:
    """Which steps a run makes: all that are not fresh, unless said otherwise.

    `forced` ones are made again; with `only`, just these; with `from_`, these and all that depend on them. Without
    `keep_going` nothing more is started once a step has failed.
    """

    forced: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    from_: tuple[str, ...] = ()
    keep_going: bool = True

    def steps(self, pipeline: BoundPipeline) -> Collection[str]:
        """The declared steps that may be made. InputError if a name is none."""
        require_names(pipeline, (*self.only, *self.from_))
        if not self.only and not self.from_:
            return pipeline.steps
        return set(self.only) | descendants(pipeline, self.from_)


class Running(Protocol):
    """A step under way."""

    def add_done_callback(self, callback: Callable[[Any], None], /) -> None:
        """`callback` is called, in any thread, when the step has ended."""


class Engine(Protocol):
    """What runs steps: threads of this process, or Prefect."""

    def start(self, order: StepOrder) -> Running:
        """The step has been handed over."""

    def result(self, running: Any) -> Materialized:
        """The outcome of a step that has ended; raises what it raised."""


def run_pipeline(
    pipeline: BoundPipeline,
    session: Session,
    engine: Callable[[], Engine],
    listener: Listener,
    choice: Choice = Choice(),
) -> RunResult:
    """The result of a run. `engine` is called only if something has to be made; `listener` hears of every step."""
    choice.steps(pipeline)  # a name that is none is refused before anything is looked up
    return run_planned(pipeline, plan_pipeline(pipeline, session, choice.forced), session, engine, listener, choice)


def run_planned(
    pipeline: BoundPipeline,
    planned: Planned,
    session: Session,
    engine: Callable[[], Engine],
    listener: Listener,
    choice: Choice = Choice(),
) -> RunResult:
    """The same for a plan that was made already."""
    run_id = uuid.uuid4().hex
    session.store.begin_run(run_id, pipeline.name, pipeline.spec.project, pipeline.spec.path)
    new = any(item.raw and item.dataset is None for items in planned.inputs.values() for item in items)
    if not planned.plan.is_fresh or new:
        session.ensure_project(pipeline.spec.project, pipeline.spec.project_title)
    inputs = register_inputs(planned.inputs, session)
    run = _Run(pipeline, session, run_id, planned, inputs, listener, choice)
    run.adopt(planned.plan)
    if run.waiting:
        run.execute(engine())
    run.publish()
    result = run.result()
    session.store.end_run(run_id, "complete" if result.ok else "failed")
    return result


class _Run:
    """The state of one run: what is done, what is under way, what waits for which parents."""

    def __init__(
        self,
        pipeline: BoundPipeline,
        session: Session,
        run_id: str,
        planned: Planned,
        inputs: Mapping[str, tuple[InputItem, ...]],
        listener: Listener,
        choice: Choice,
    ) -> None:
        self.pipeline = pipeline
        self.session = session
        self.run_id = run_id
        self.instances = planned.instances
        self.knowledge = planned.knowledge
        self.claimed = set(planned.current)
        self.inputs = inputs
        self.listener = listener
        self.choice = choice
        self.chosen = choice.steps(pipeline)
        self.results: dict[str, Mapping[str, DatasetRef]] = {}
        self.outcomes: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self.logs: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self.waiting: dict[str, set[str]] = {}  # instance -> the parents it waits for
        self._children: dict[str, list[str]] = {}
        self._ready: list[str] = []
        self._started: dict[str, float] = {}
        self._orders: dict[str, StepOrder] = {}
        self._stopped = False

    def adopt(self, planned: PipelinePlan) -> None:
        """Steps whose results are there are done; those that cannot or shall not be made are named."""
        reused = []
        for step in planned.steps:
            if step.state == FRESH:
                self.results[step.name] = step.results
                reused.append(step.name)
            elif step.step not in self.chosen:
                self._end(step.name, LEFT_OUT, {})
            elif step.state == BLOCKED:
                self._end(step.name, FAILED, {}, f"it cannot be made: {'; '.join(step.causes)}")
            else:
                self.waiting[step.name] = set()
        self._reused(reused)
        for name in list(self.waiting):
            self._wait(name)

    def _reused(self, names: list[str]) -> None:
        """Said and written down in one go, since there may be thousands."""
        datasets = {name: _ids(self.results[name]) for name in names}
        self.session.store.record_reused(self.run_id, datasets)
        for name in names:
            self.outcomes[name] = REUSED
            self.listener(StepEvent(name, REUSED, ", ".join(datasets[name].values())))

    def _wait(self, name: str) -> None:
        needs = self.instances[name].needs
        left_out = [need for need in needs if self.outcomes.get(need) == LEFT_OUT]
        if left_out:
            message = f"its parent {left_out[0]} is not there and was left out; run without --only, or --from it"
            self._end(name, FAILED, {}, message)
            del self.waiting[name]
            return
        self.waiting[name] = {need for need in needs if need not in self.results}
        for need in self.waiting[name]:
            self._children.setdefault(need, []).append(name)
        if not self.waiting[name]:
            self._ready.append(name)

    def execute(self, engine: Engine) -> None:
        """Every other step is started as soon as its parents are done."""
        ended: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        under_way = 0
        try:
            while True:
                while self._ready and not self._stopped:
                    ready, self._ready = self._ready, []
                    if not self.session.settings.embedded:  # another machine may run the same: each starts elsewhere
                        random.shuffle(ready)
                    under_way += sum(self._start(engine, name, ended) for name in ready)
                if not under_way:
                    break
                name, running = ended.get()
                under_way -= 1
                self._collect(engine, name, running)
        finally:
            for name in self.instances:
                if name not in self.outcomes:
                    self._end(name, SKIPPED, {}, "a step that it needs failed, or the run was stopped")

    def publish(self) -> None:
        """What is there is also where its step says that it is published; a step of which that is not so has failed."""
        for name, outputs in self.results.items():
            place = self.instances[name].step.spec.output.publish
            if place is None or self.instances[name].step.name not in self.chosen:
                continue
            try:
                for dataset in outputs.values():
                    publish(dataset, place, self.session)
            except LineageError as error:
                self._end(name, FAILED, _ids(outputs), f"its result is registered, but not published: {error}")

    def result(self) -> RunResult:
        """What has been done so far."""
        items = {name: [item.mfid for item in found if item.dataset] for name, found in self.inputs.items()}
        return RunResult(
            run_id=self.run_id,
            pipeline=self.pipeline.name,
            project=self.pipeline.spec.project,
            inputs={name: tuple(mfid for mfid in mfids if mfid) for name, mfids in items.items()},
            datasets={name: _ids(self.results[name]) for name in self.instances if name in self.results},
            outcomes={name: self.outcomes[name] for name in self.instances if name in self.outcomes},
            errors=self.errors,
            logs=self.logs,
            notes=self.notes,
        )

    def _start(self, engine: Engine, name: str, ended: queue.SimpleQueue[tuple[str, Any]]) -> int:
        """1 if the step is under way, 0 if it could not be started."""
        instance = self.instances[name]
        forced = name in self.choice.forced or instance.step.name in self.choice.forced
        project = self.pipeline.spec.project
        self._started[name] = time.monotonic()
        try:
            used = used_datasets(instance, self.inputs, self.results)
            planned = plan_instance(project, instance, used, self.knowledge, self.claimed, forced=forced)
        except InputError as error:
            self._end(name, FAILED, {}, str(error))
            return 0
        if planned.state == FRESH:  # its parents were made again and came out as they had been
            self._done(name, REUSED, planned.results)
            return 0
        self.listener(StepEvent(name, STARTED))
        order = StepOrder(self.pipeline, instance, used, self.run_id, planned.attempt, planned.supersedes)
        self._orders[name] = order
        engine.start(order).add_done_callback(lambda running: ended.put((name, running)))
        return 1

    def _collect(self, engine: Engine, name: str, running: Any) -> None:
        try:
            made = engine.result(running)
        except LineageError as error:
            self.logs |= {name: log} if (log := getattr(error, "log", None)) else {}
            self._end(name, FAILED, {}, str(error))
        except Exception as error:
            self._end(name, FAILED, {}, f"{type(error).__name__}: {error}")
        else:
            replaced = self._orders.pop(name).supersedes
            self.knowledge.made({dataset.mfid: replaced.get(output) for output, dataset in made.outputs.items()})
            self.notes |= {name: made.note} if made.note else {}
            self._done(name, EXECUTED if made.executed else REUSED, made.outputs)

    def _done(self, name: str, outcome: str, outputs: Mapping[str, DatasetRef]) -> None:
        self.results[name] = outputs
        self._end(name, outcome, _ids(outputs), size=sum(f.size for dataset in outputs.values() for f in dataset.files))
        for child in self._children.get(name, ()):
            self.waiting[child].discard(name)
            if not self.waiting[child]:
                self._ready.append(child)

    def _end(
        self, name: str, outcome: str, datasets: Mapping[str, str], error: str = "", size: int | None = None
    ) -> None:
        self.outcomes[name] = outcome
        if error:
            self.errors[name] = error
        if outcome == FAILED and not self.choice.keep_going:
            self._stopped = True
        seconds = time.monotonic() - self._started[name] if name in self._started else None
        self.session.store.record_step(self.run_id, name, outcome, datasets, seconds, error or None, size)
        self.listener(StepEvent(name, outcome, error or ", ".join(datasets.values())))


def _ids(outputs: Mapping[str, DatasetRef]) -> dict[str, str]:
    return {output: dataset.mfid for output, dataset in outputs.items()}
