"""The flow that runs a declared pipeline: a plan, then one task for each step that is not fresh."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import Task, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, PREFECT_HOME
from prefect.states import Completed, Crashed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic_core import to_jsonable_python

from crucible_lineage.core.folders import MARK, in_use, is_in_use, runs
from crucible_lineage.errors import LineageError, PrefectAwayError, RunError
from crucible_lineage.flows.reports import failing_with_message, reporting, state_of, telling_arrived, tolerating
from crucible_lineage.json_types import JsonObject
from crucible_lineage.pipeline.declare.inputs import located
from crucible_lineage.pipeline.declare.load import load_pipeline
from crucible_lineage.pipeline.declare.pipeline import INHERIT
from crucible_lineage.pipeline.engines.local import Running
from crucible_lineage.pipeline.job.job import StepState
from crucible_lineage.pipeline.job.materialize import materialize_step
from crucible_lineage.pipeline.logs import LineCallback
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.bound import BoundPipeline
from crucible_lineage.pipeline.plan.plan import PipelinePlan, StepPlan
from crucible_lineage.pipeline.plan.planner import by_project
from crucible_lineage.pipeline.processes.supervised import stop_run
from crucible_lineage.pipeline.requests import Pipelines, answer_event
from crucible_lineage.pipeline.run.result import Listener, RunResult, StepChoice, Stop
from crucible_lineage.pipeline.run.run import noting_unstarted, plan_and_run
from crucible_lineage.registration.deliver import Deliverer
from crucible_lineage.session import Session
from crucible_lineage.settings import JOBS_AT_ONCE
from crucible_lineage.tasks.materialization import materialize
from crucible_lineage.tasks.sessions import CrucibleConnection, is_worth_a_retry, session_for
from crucible_lineage.text.masking import masked_text
from crucible_lineage.text.times import time_shown

# As many threads as the local engine has. Prefect's default is one for each step that is ready: then two machines would
# start all of them at once, and run each twice.
THREADS: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=JOBS_AT_ONCE)
MARKED = "prefect-"  # before the id of a flow run in the name of its mark
KILLED = "its process was killed; this was noticed when the next run began"


@dataclass
class Observer:
    """An observer of a flow: it chooses the steps, hears of each, may end the flow early, and gets its result.

    It may have bound and planned the pipeline that the flow is to run.
    """

    listener: Listener
    choice: StepChoice = StepChoice()
    stop: Stop | None = None
    pipeline: BoundPipeline | None = None
    planned: PipelinePlan | None = None
    result: RunResult | None = None


_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Let flows in this block be observed."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def _run_name() -> str:
    """Name the run after project, pipeline, the parameters of the run, and its scheduled time."""
    parameters: JsonObject = flow_run.parameters
    name, observer = Path(parameters["pipeline"]).stem, _observer.get()
    with suppress(LineageError):  # which the run reports
        bound = observer.pipeline if observer else None
        spec = bound.spec if bound else load_pipeline(located(parameters["pipeline"]))
        name = f"{spec.project} / {spec.pipeline}" if spec.project != INHERIT else spec.pipeline
    overrides = [f"{name}={value}" for name, value in (parameters.get("overrides") or {}).items()]
    variant = f" [{', '.join(overrides)}]" if overrides else ""
    return masked_text(f"{name}{variant} {time_shown(flow_run.scheduled_start_time.isoformat())}")[:200]


@flow(name="run-pipeline", flow_run_name=_run_name, persist_result=False, task_runner=THREADS)
@failing_with_message
def run_pipeline(
    pipeline: str,
    crucible: CrucibleConnection | None = None,
    overrides: JsonObject | None = None,
    only: Sequence[str] = (),
    force: Sequence[str] = (),
    request: JsonObject | None = None,
) -> State[Any]:
    """Run a pipeline. The flow run is Completed if every step has its result; else Failed, with the reasons.

    Args:
        pipeline: Path of the declaration, or package:NAME/PATH for one in an installed package.
        crucible: Which Crucible to use. By default, the one configured where the flow runs.
        overrides: Parameters for this run, as in {"axis.degree": 4}.
        only: Make only these steps.
        force: Make these steps again, and keep their earlier results.
        request: Answer this request for results of one dataset, as {"dsid": MFID}, and run for no other.
    """
    session = session_for(crucible)
    path = located(pipeline)
    observer = _observer.get() or Observer(lambda _: None, StepChoice(forced=tuple(force), only=tuple(only)))
    with noting_unstarted(session, path) if not overrides else nullcontext():
        bound = observer.pipeline or bind_file(path, session.store, overrides)
    get_run_logger().info(session.settings.describe())
    engine = PrefectEngine(session)
    ends = list[State[Any]]()

    def run(one: BoundPipeline, choice: StepChoice = observer.choice) -> RunResult:
        with reporting(one, observer.listener) as listen:
            result = observer.result = plan_and_run(
                *(one, session, lambda: engine, listen, choice, observer.stop),
                arrived=telling_arrived(),
                planned=observer.planned,
            )
        where = f" in project {one.spec.project}" if one is not bound else ""
        ends.append(state_of(result, session, f"pipeline {one.name}{where}"))
        return result

    with marked_alive(session.settings.data):
        if request is not None:
            narrowed = replace(observer.choice, is_request=True)
            answered = answer_event(request, Pipelines([bound], session), partial(run, choice=narrowed))
            return (
                Completed(message=", ".join(answered.results)) if answered.results else Failed(message=answered.reason)
            )
        for one in by_project(bound, session):
            run(one)
    return next((state for state in ends if not state.is_completed()), ends[-1])


# Prefect imports FastAPI for this, a tenth of a second.
run_pipeline.serialize_parameters = partial(to_jsonable_python, serialize_unknown=True)  # type: ignore[method-assign]


@contextmanager
def marked_alive(data: Path) -> Iterator[None]:
    """Mark this flow run as alive, and end in Prefect those of this data folder whose process was killed.

    A killed process does not report its end, and Prefect looks for it only through the worker that started it.
    """
    folder = runs(data)
    for mark in folder.glob(f"{MARKED}*{MARK}"):
        if not is_in_use(mark.with_suffix("")):
            with tolerating("the end of a killed run"):
                with suppress(ObjectNotFound), get_client(sync_client=True) as client:
                    run_id = UUID(mark.stem.removeprefix(MARKED))
                    state = client.read_flow_run(run_id).state
                    if state is not None and state.is_running():
                        client.set_flow_run_state(run_id, Crashed(message=KILLED), force=True)
                mark.unlink(missing_ok=True)
    with in_use(folder / f"{MARKED}{flow_run.id}"):
        yield


@cache
def _task(retries: int) -> Task[..., Any]:
    """Return the task for steps with this number of retries; cached, as creating one costs as much as submitting it."""
    return materialize.with_options(retries=retries, retry_condition_fn=is_worth_a_retry) if retries else materialize


class PrefectEngine:
    """An engine that runs steps as tasks of the current flow, in threads of its process."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.deliverer: Deliverer | None = None
        self._task_runs: dict[str, PrefectFuture[StepState]] = {}  # by dataset, for the arrows in Prefect's graph

    def start(self, job: StepPlan) -> Running:
        """Submit a step."""
        runs = [run for part in job.used if (run := self._task_runs.get(part.dataset.mfid))]
        parents = list({id(run): run for run in runs}.values())
        task = _task(job.spec.retries)
        return task.submit(job.name, partial(self._make, job), wait_for=parents)

    def _make(self, job: StepPlan, run: JsonObject, log: LineCallback) -> StepState:
        assert self.deliverer is not None
        return materialize_step(replace(job, run={**job.run, **run}), self.session, self.deliverer.add, log)

    def stop(self, run_id: str) -> None:
        """Stop the processes of steps."""
        stop_run(run_id)

    def result(self, running: Any) -> StepState:
        """Return the outcome of the task, which has ended."""
        made: StepState = running.result()
        self._task_runs |= dict.fromkeys((dataset.mfid for dataset in made.results.values()), running)
        return made


# Prefixes of Prefect's plain RuntimeErrors when a flow run cannot begin.
UNREACHED = "Failed to reach API"
NOT_STARTED = "Timed out while attempting to connect to ephemeral Prefect API server"


@contextmanager
def reaching_prefect(action: str, remedy: str) -> Iterator[None]:
    """Convert errors of Prefect's API: RunError if it refuses, PrefectAwayError if it is away; `action` failed."""
    try:
        yield
    except (httpx.HTTPError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith((UNREACHED, NOT_STARTED)):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        where = f"Prefect at {PREFECT_API_URL.value()}"
        if str(error).startswith(NOT_STARTED):
            where = f"Prefect, which was started for this and keeps its database in {PREFECT_HOME.value()}"
        kind = RunError if isinstance(error, httpx.HTTPStatusError) else PrefectAwayError
        raise kind(f"could not {action}: {where}: {reason}\n{remedy}") from error
