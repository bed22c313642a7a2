"""The flow that runs a declared pipeline: plan, then one task for each step that is not fresh."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from crucible_lineage.flows.artifacts import leave_artifacts
from crucible_lineage.pipeline.bind import bind_file
from crucible_lineage.pipeline.input_spec import located
from crucible_lineage.pipeline.materialized import Materialized
from crucible_lineage.pipeline.order import StepOrder
from crucible_lineage.pipeline.order_json import order_to_json
from crucible_lineage.pipeline.raw import existing_dataset
from crucible_lineage.pipeline.result import Listener, RunResult, StepEvent
from crucible_lineage.pipeline.run import Choice, Running
from crucible_lineage.pipeline.run import run_pipeline as run_bound
from crucible_lineage.session import Session
from crucible_lineage.tasks.events import tell_failed, tell_reused
from crucible_lineage.tasks.materialize import materialize
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


def _run_name() -> str:
    """The run is called like the pipeline's file."""
    return Path(flow_run.parameters["pipeline"]).stem


@flow(name="run-pipeline", flow_run_name=_run_name, persist_result=False)
def run_pipeline(
    pipeline: str,
    crucible: CrucibleConnection | None = None,
    overrides: dict[str, Any] | None = None,
    choice: Choice = Choice(),
) -> State[Any]:
    """Completed if every step of a pipeline has its result; Failed, with the reasons, if not.

    Args:
        pipeline: Path of the declaration, or package:NAME/PATH for one in an installed package.
        crucible: Which Crucible. By default, the environment where the flow runs says so.
        overrides: Parameters for this run, as in {"axis.degree": 4}.
        choice: Which steps are made. By default, all that are not fresh.
    """
    session = session_for(crucible)
    bound = bind_file(located(pipeline), session.store, overrides)
    logger = get_run_logger()
    logger.info(session.settings.describe())
    observer = _observer.get()

    def listen(event: StepEvent) -> None:
        logger.info("%s: %s %s", event.step, event.outcome, event.detail)
        tell_failed(bound.name, bound.spec.project, event)
        if observer:
            observer.listener(event)

    result = run_bound(bound, session, lambda: PrefectEngine(session, crucible), listen, choice)
    tell_reused(result)
    if observer:
        observer.result = result
    if result.datasets:
        leave_artifacts(result, session)
    if not result.ok:
        reasons = "; ".join(f"{step}: {error}" for step, error in result.errors.items())
        return Failed(message=f"pipeline {bound.name}: {reasons}")
    return Completed(message=f"pipeline {bound.name}: {len(result.executed)} executed", data=result.to_json())


class PrefectEngine:
    """Steps as tasks of the running flow, on its task runner."""

    def __init__(self, session: Session, crucible: CrucibleConnection | None = None) -> None:
        self.session = session
        self.connection = (crucible or CrucibleConnection()).settled(session.settings)

    def start(self, order: StepOrder) -> Running:
        """The step has been submitted, with the tags that it declares."""
        spec = order.instance.step.spec
        options: dict[str, Any] = {"tags": spec.tags} if spec.tags else {}
        options["retry_condition_fn"] = None if spec.retries else is_transient
        if spec.retries:
            options["retries"] = spec.retries
        made: Running = materialize.with_options(**options).submit(order.name, order_to_json(order), self.connection)
        return made

    def result(self, running: Any) -> Materialized:
        """The outcome of the task."""
        running.wait()
        made = running.result()
        outputs = {name: existing_dataset(mfid, self.session) for name, mfid in made["outputs"].items()}
        return Materialized(outputs, made["executed"])
