"""A run: what is not fresh is made, as wide as the engine allows; a failed step stops only its descendants."""

from __future__ import annotations

import difflib
import queue
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from crucible_lineage.datasets import DatasetRef
from crucible_lineage.errors import InputError, LineageError
from crucible_lineage.pipeline.bind import BoundPipeline, BoundStep
from crucible_lineage.pipeline.inputs import known_inputs, register_inputs
from crucible_lineage.pipeline.inspection import find_step
from crucible_lineage.pipeline.job import StepJob
from crucible_lineage.pipeline.knowledge import ProjectKnowledge, pipeline_keyword
from crucible_lineage.pipeline.materialize import Materialized, materialize_step
from crucible_lineage.pipeline.plan import FRESH, PipelinePlan, plan, plan_step, used_datasets
from crucible_lineage.recipe import UsedDataset
from crucible_lineage.session import Session

__all__ = [
    "Engine",
    "LocalEngine",
    "RunResult",
    "Running",
    "StepEvent",
    "StepOrder",
    "make_plan",
    "require_steps",
    "run_pipeline",
    "step_job",
]

EXECUTED, REUSED, FAILED, SKIPPED, STARTED = "executed", "reused", "failed", "skipped", "started"


@dataclass(frozen=True)
class StepEvent:
    """Something happened to a step: it was started, executed, reused, failed or skipped."""

    step: str
    outcome: str
    detail: str = ""


@dataclass(frozen=True)
class RunResult:
    """What a run did. `datasets` maps inputs and steps to the ids of their datasets, by output."""

    run_id: str
    pipeline: str
    project: str
    inputs: Mapping[str, tuple[str, ...]]
    datasets: Mapping[str, Mapping[str, str]]
    outcomes: Mapping[str, str]
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def executed(self) -> list[str]:
        """The steps that ran."""
        return [step for step, outcome in self.outcomes.items() if outcome == EXECUTED]

    @property
    def ok(self) -> bool:
        """True if every step has its result."""
        return all(outcome in (EXECUTED, REUSED) for outcome in self.outcomes.values())

    def to_json(self) -> dict[str, Any]:
        """What `run --json` prints."""
        return {
            "run_id": self.run_id,
            "pipeline": self.pipeline,
            "project": self.project,
            "inputs": {name: list(mfids) for name, mfids in self.inputs.items()},
            "datasets": {step: dict(outputs) for step, outputs in self.datasets.items()},
            "outcomes": dict(self.outcomes),
            "executed": self.executed,
            "errors": dict(self.errors),
        }


class Running(Protocol):
    """A step under way."""

    def add_done_callback(self, callback: Callable[[Any], None], /) -> None:
        """`callback` is called, in any thread, when the step has ended."""


@dataclass(frozen=True)
class StepOrder:
    """A step to be made in a run: its parents, which attempt it is, and what its outputs replace."""

    step: BoundStep
    used: tuple[UsedDataset, ...]
    run_id: str
    attempt: int = 0
    supersedes: Mapping[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """What runs steps: threads of this process, or Prefect."""

    def start(self, order: StepOrder) -> Running:
        """The step has been handed over."""

    def result(self, running: Any) -> Materialized:
        """The outcome of a step that has ended; raises what it raised."""


Listener = Callable[[StepEvent], None]


def make_plan(pipeline: BoundPipeline, session: Session, forced: Collection[str] = ()) -> PipelinePlan:
    """The plan as things stand. Changes nothing."""
    require_steps(pipeline, forced)
    knowledge = ProjectKnowledge(session, pipeline.spec.project, pipeline.name)
    return plan(pipeline, known_inputs(pipeline.spec, session), knowledge, forced)


def require_steps(pipeline: BoundPipeline, names: Collection[str]) -> None:
    """InputError if one of the names is no step of the pipeline."""
    for name in names:
        if name not in pipeline.steps:
            near = difflib.get_close_matches(name, pipeline.steps, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(pipeline.steps)}"
            raise InputError(f"pipeline {pipeline.name!r} has no step {name!r}; {hint}")


def run_pipeline(
    pipeline: BoundPipeline,
    session: Session,
    engine: Callable[[], Engine],
    listener: Listener,
    forced: Collection[str] = (),
) -> RunResult:
    """The result of a run. `engine` is called only if something has to be made; `listener` hears of every step.

    Steps in `forced` are made again, as a new attempt beside what is there.
    """
    require_steps(pipeline, forced)
    run_id = uuid.uuid4().hex
    knowledge = ProjectKnowledge(session, pipeline.spec.project, pipeline.name)
    known = known_inputs(pipeline.spec, session)
    planned = plan(pipeline, known, knowledge, forced)
    session.store.begin_run(run_id, pipeline.name, pipeline.spec.project)
    if not planned.is_fresh or None in known.values():
        session.ensure_project(pipeline.spec.project, pipeline.spec.project_title)
    inputs = register_inputs(pipeline.spec, known, session)
    run = _Run(pipeline, session, run_id, inputs, knowledge, listener, forced)
    run.adopt(planned)
    if not planned.is_fresh:
        run.execute(engine())
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
        inputs: Mapping[str, tuple[DatasetRef, ...]],
        knowledge: ProjectKnowledge,
        listener: Listener,
        forced: Collection[str],
    ) -> None:
        self.pipeline = pipeline
        self.session = session
        self.run_id = run_id
        self.inputs = inputs
        self.knowledge = knowledge
        self.listener = listener
        self.forced = forced
        self.results: dict[str, Mapping[str, DatasetRef]] = {}
        self.outcomes: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self._started: dict[str, float] = {}
        self._orders: dict[str, StepOrder] = {}

    def adopt(self, planned: PipelinePlan) -> None:
        """Steps whose results are there are done."""
        for step in planned.steps:
            if step.state == FRESH:
                self._done(step.name, REUSED, step.results)

    def execute(self, engine: Engine) -> None:
        """Every other step is started as soon as its parents are done."""
        ended: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        under_way = 0
        try:
            while True:
                while ready := self._ready():
                    under_way += sum(self._start(engine, name, ended) for name in ready)
                if not under_way:
                    break
                name, running = ended.get()
                under_way -= 1
                self._collect(engine, name, running)
        finally:
            for name in self.pipeline.steps:
                if name not in self.outcomes:
                    self._end(name, SKIPPED, {}, "a step that it needs failed, or the run was stopped")

    def result(self) -> RunResult:
        """What has been done so far."""
        return RunResult(
            run_id=self.run_id,
            pipeline=self.pipeline.name,
            project=self.pipeline.spec.project,
            inputs={name: tuple(dataset.mfid for dataset in found) for name, found in self.inputs.items()},
            datasets={name: _ids(self.results[name]) for name in self.pipeline.steps if name in self.results},
            outcomes={name: self.outcomes[name] for name in self.pipeline.steps if name in self.outcomes},
            errors=self.errors,
        )

    def _ready(self) -> list[str]:
        return [
            name
            for name, step in self.pipeline.steps.items()
            if name not in self.outcomes and name not in self._started and all(n in self.results for n in step.needs)
        ]

    def _start(self, engine: Engine, name: str, ended: queue.SimpleQueue[tuple[str, Any]]) -> int:
        """1 if the step is under way, 0 if it could not be started."""
        step = self.pipeline.steps[name]
        self._started[name] = time.monotonic()
        try:
            used = used_datasets(step, self.inputs, {need: self.results[need] for need in step.needs})
            planned = plan_step(self.pipeline.spec.project, step, used, self.knowledge, forced=name in self.forced)
        except InputError as error:
            self._end(name, FAILED, {}, str(error))
            return 0
        if planned.state == FRESH:  # its parents were made again and came out as they had been
            self._done(name, REUSED, planned.results)
            return 0
        self.listener(StepEvent(name, STARTED))
        self._orders[name] = StepOrder(step, used, self.run_id, planned.attempt, planned.supersedes)
        engine.start(self._orders[name]).add_done_callback(lambda running: ended.put((name, running)))
        return 1

    def _collect(self, engine: Engine, name: str, running: Any) -> None:
        try:
            made = engine.result(running)
        except LineageError as error:
            self._end(name, FAILED, {}, str(error))
        except Exception as error:
            self._end(name, FAILED, {}, f"{type(error).__name__}: {error}")
        else:
            replaced = self._orders[name].supersedes
            self.knowledge.made({dataset.mfid: replaced.get(output) for output, dataset in made.outputs.items()})
            self._done(name, EXECUTED if made.executed else REUSED, made.outputs)

    def _done(self, name: str, outcome: str, outputs: Mapping[str, DatasetRef]) -> None:
        self.results[name] = outputs
        self._end(name, outcome, _ids(outputs))

    def _end(self, name: str, outcome: str, datasets: Mapping[str, str], error: str = "") -> None:
        self.outcomes[name] = outcome
        if error:
            self.errors[name] = error
        seconds = time.monotonic() - self._started[name] if name in self._started else None
        self.session.store.record_step(self.run_id, name, outcome, datasets, seconds, error or None)
        self.listener(StepEvent(name, outcome, error or ", ".join(datasets.values())))


def _ids(outputs: Mapping[str, DatasetRef]) -> dict[str, str]:
    return {output: dataset.mfid for output, dataset in outputs.items()}


def step_job(pipeline: BoundPipeline, order: StepOrder, run: Mapping[str, Any]) -> StepJob:
    """The job that a step of a pipeline comes down to."""
    step = order.step
    return StepJob(
        name=step.name,
        project=pipeline.spec.project,
        step=find_step(step.spec.uses, pipeline.spec.folder) if step.spec.uses else None,
        command=step.spec.run or (),
        inspection=step.inspection,
        given=step.spec.params,
        used=order.used,
        attempt=order.attempt,
        timeout_s=step.spec.timeout,
        declared_in=pipeline.spec.folder,
        supersedes=order.supersedes,
        output=step.spec.output,
        keywords=(pipeline_keyword(pipeline.name),),
        pipeline={"name": pipeline.name, "hash": pipeline.spec.digest},
        run=run,
    )


class LocalEngine:
    """Threads of this process."""

    def __init__(self, pipeline: BoundPipeline, session: Session, jobs: int) -> None:
        self.pipeline = pipeline
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
        job = step_job(self.pipeline, order, {"engine": "local", "run_id": order.run_id})
        for attempt in range(order.step.spec.retries + 1):
            try:
                return materialize_step(job, self.session)
            except InputError:
                raise
            except LineageError:
                if attempt == order.step.spec.retries:
                    raise
        raise AssertionError("unreachable")
