"""The flow that runs a declared pipeline: plan, then one task for each step that is not fresh."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from prefect import Task, flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner

from crucible_lineage.flows.artifacts import leave_artifacts
from crucible_lineage.flows.runners import THREADS, requesting, task_runner
from crucible_lineage.pipeline.bind.model import bind_file
from crucible_lineage.pipeline.job.job_json import order_to_json
from crucible_lineage.pipeline.job.order import StepOrder
from crucible_lineage.pipeline.plan.raw import existing_dataset
from crucible_lineage.pipeline.run.materialized import Materialized
from crucible_lineage.pipeline.run.result import Listener, RunResult, StepEvent
from crucible_lineage.pipeline.run.scheduler import Choice, Running
from crucible_lineage.pipeline.run.scheduler import run_pipeline as run_bound
from crucible_lineage.pipeline.spec.inputs import located
from crucible_lineage.pipeline.spec.pipeline import Runner
from crucible_lineage.session import Session
from crucible_lineage.tasks.events import tell_failed, tell_reused
from crucible_lineage.tasks.materialization import materialize
from crucible_lineage.tasks.retries import is_transient
from crucible_lineage.tasks.sessions import CrucibleConnection, session_for

__all__ = ["Observer", "observing", "run_pipeline"]


@dataclass
class Observer:
    """Hears of every step, and holds the result when the flow has ended."""

    listener: Listener
    result: RunResult | None = None


_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


@contextmanager
def observing(listener: Listener) -> Iterator[Observer]:
    """Flows that run in this block tell `listener` of their steps."""
    observer = Observer(listener)
    token = _observer.set(observer)
    try:
        yield observer
    finally:
        _observer.reset(token)


def _current_observer() -> Observer | None:
    """Whoever observes. A flow's own code goes to other processes as it is, and must not name a context variable."""
    return _observer.get()


def _run_name() -> str:
    """The run is called like the pipeline's file."""
    return Path(flow_run.parameters["pipeline"]).stem


@flow(name="run-pipeline", flow_run_name=_run_name, persist_result=False, task_runner=THREADS)
def run_pipeline(
    pipeline: str,
    crucible: CrucibleConnection | None = None,
    overrides: dict[str, Any] | None = None,
    choice: Choice = Choice(),
    runner: Runner | None = None,
) -> State[Any]:
    """Completed if every step of a pipeline has its result; Failed, with the reasons, if not.

    Args:
        pipeline: Path of the declaration, or package:NAME/PATH for one in an installed package.
        crucible: Which Crucible. By default, the environment where the flow runs says so.
        overrides: Parameters for this run, as in {"axis.degree": 4}.
        choice: Which steps are made. By default, all that are not fresh.
        runner: What steps run on, instead of what the declaration says.
    """
    session = session_for(crucible)
    bound = bind_file(located(pipeline), session.store, overrides)
    logger = get_run_logger()
    logger.info(session.settings.describe())
    observer = _current_observer()

    def listen(event: StepEvent) -> None:
        logger.info("%s: %s %s", event.step, event.outcome, event.detail)
        tell_failed(bound.name, bound.spec.project, event)
        if observer:
            observer.listener(event)

    with PrefectEngine(session, crucible, runner or bound.spec.runner) as engine:
        result = run_bound(bound, session, lambda: engine, listen, choice)
    tell_reused(result)
    for step, note in result.notes.items():
        logger.warning("%s: %s", step, note)
    if observer:
        observer.result = result
    if result.datasets:
        leave_artifacts(result, session)
    if not result.ok:
        reasons = "; ".join(f"{step}: {error}" for step, error in result.errors.items())
        return Failed(message=f"pipeline {bound.name}: {reasons}")
    return Completed(message=f"pipeline {bound.name}: {len(result.executed)} executed", data=result.to_json())


@cache
def _task(tags: tuple[str, ...], retries: int) -> Task[..., Any]:
    """The task for steps that declare these; making one costs as much as submitting it."""
    options: dict[str, Any] = {"tags": tags} if tags else {}
    options["retry_condition_fn"] = None if retries else is_transient
    if retries:
        options["retries"] = retries
    return materialize.with_options(**options)


class PrefectEngine:
    """Steps as tasks of the running flow: on its task runner, or on the one that is declared, which it then closes.

    Only ids and declared values go to a runner, which may be another machine; keys are looked up there.
    """

    def __init__(
        self, session: Session, crucible: CrucibleConnection | None = None, runner: Runner | None = None
    ) -> None:
        self.session = session
        self.connection = (crucible or CrucibleConnection()).settled(session.settings)
        self._declared = runner
        self._stack = ExitStack()
        self._runner: TaskRunner[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: Any) -> None:
        self._stack.close()

    def start(self, order: StepOrder) -> Running:
        """The step has been submitted, with the tags and resources that it declares."""
        if self._declared and self._runner is None:  # a run in which all is fresh starts none
            self._runner = self._stack.enter_context(task_runner(self._declared))
        spec = order.instance.step.spec
        task = _task(spec.tags, spec.retries)
        parameters: dict[str, Any] = {"step": order.name, "order": order_to_json(order), "crucible": self.connection}
        with requesting(self._runner, spec.resources):
            made: Running = (
                self._runner.submit(task, parameters=parameters) if self._runner else task.submit(**parameters)
            )
        return made

    def result(self, running: Any) -> Materialized:
        """The outcome of the task."""
        running.wait()
        made = running.result()
        outputs = {name: existing_dataset(mfid, self.session) for name, mfid in made["outputs"].items()}
        return Materialized(outputs, made["executed"], made["note"])
