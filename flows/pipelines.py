"""The flow that runs a declared pipeline: a plan, then one task for each step that is not fresh."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import Task, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, PREFECT_HOME
from prefect.states import Crashed
from prefect.task_runners import TaskRunner

from crucible_lineage.core.folders import MARK, in_use, is_in_use, runs
from crucible_lineage.errors import LineageError, PrefectAwayError, RunError, StepError
from crucible_lineage.flows.reports import failing_with_message, reporting, state_of, telling_arrived, tolerating
from crucible_lineage.flows.runners import THREADS, task_runner
from crucible_lineage.json_types import JsonObject
from crucible_lineage.pipeline.declare.inputs import located
from crucible_lineage.pipeline.declare.load import load_pipeline
from crucible_lineage.pipeline.declare.pipeline import Runner
from crucible_lineage.pipeline.engines.local import Running
from crucible_lineage.pipeline.job.delivering import Driver, delivered_here
from crucible_lineage.pipeline.job.job import Job, Materialized, job_to_json, made_from_json
from crucible_lineage.pipeline.logs import reading_progress
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.bound import BoundPipeline
from crucible_lineage.pipeline.plan.plan import PipelinePlan
from crucible_lineage.pipeline.processes.supervised import stop_run
from crucible_lineage.pipeline.run.result import Listener, RunResult, StepChoice, Stop
from crucible_lineage.pipeline.run.run import noting_unstarted, plan_and_run
from crucible_lineage.registration.deliver import Deliverer
from crucible_lineage.session import Session
from crucible_lineage.tasks.materialization import materialize
from crucible_lineage.tasks.sessions import CrucibleConnection, is_transient, is_worth_a_retry, session_for
from crucible_lineage.text.masking import masked_text
from crucible_lineage.text.times import time_shown

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


def _current_observer() -> Observer | None:
    """Return the observer. Flow code is pickled for other processes, so it must not refer to the context variable."""
    return _observer.get()


def _run_name() -> str:
    """Name the run after project, pipeline, the parameters of the run, and its scheduled time."""
    parameters: JsonObject = flow_run.parameters
    name, observer = Path(parameters["pipeline"]).stem, _current_observer()
    with suppress(LineageError):  # which the run reports
        bound = observer.pipeline if observer else None
        spec = bound.spec if bound else load_pipeline(located(parameters["pipeline"]))
        name = f"{spec.project} / {spec.pipeline}"
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
    runner: Runner | None = None,
) -> State[Any]:
    """Run a pipeline. The flow run is Completed if every step has its result; else Failed, with the reasons.

    Args:
        pipeline: Path of the declaration, or package:NAME/PATH for one in an installed package.
        crucible: Which Crucible to use. By default, the one configured where the flow runs.
        overrides: Parameters for this run, as in {"axis.degree": 4}.
        only: Make only these steps.
        force: Make these steps again, and keep their earlier results.
        runner: What steps run on, instead of the declared runner.
    """
    session = session_for(crucible)
    path = located(pipeline)
    observer = _current_observer() or Observer(lambda _: None, StepChoice(forced=tuple(force), only=tuple(only)))
    with noting_unstarted(session, path) if not overrides else nullcontext():
        bound = observer.pipeline or bind_file(path, session.store, overrides)
    get_run_logger().info(session.settings.describe())
    engine = PrefectEngine(session, crucible, runner or bound.spec.runner)
    with marked_alive(session.settings.data), reporting(bound, observer.listener) as listen, engine:
        result = observer.result = plan_and_run(
            *(bound, session, lambda: engine, listen, observer.choice, observer.stop),
            arrived=telling_arrived(),
            planned=observer.planned,
        )
    return state_of(result, session, f"pipeline {bound.name}")


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
def _task(tags: tuple[str, ...], retries: int) -> Task[..., Any]:
    """Return the task for steps with these options. It is cached, since creating one costs as much as submitting it."""
    options: dict[str, Any] = {"tags": tags} if tags else {}
    options["retry_condition_fn"] = is_worth_a_retry if retries else is_transient
    if retries:
        options["retries"] = retries
    return materialize.with_options(**options)


class PrefectEngine(AbstractContextManager["PrefectEngine"]):
    """An engine that runs steps as tasks of the current flow, on its task runner or on a declared one, which it closes.

    Only ids and declared values are sent to a runner, which may be another machine; keys are looked up there.
    """

    def __init__(
        self, session: Session, crucible: CrucibleConnection | None = None, runner: Runner | None = None
    ) -> None:
        self.session = session
        self.connection = (crucible or CrucibleConnection()).settled(session.settings)
        self._declared = runner
        self._stack = ExitStack()
        self._runner: TaskRunner[Any] | None = None
        self._progress: Callable[[], None] | None = None  # publishes it
        self.deliverer: Deliverer | None = None
        self._delivers = False
        self._task_runs: JsonObject = {}  # by dataset, for the arrows in Prefect's graph

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def start(self, job: Job) -> Running:
        """Submit a step, with its declared tags."""
        if self.deliverer and not self._delivers:
            self._stack.enter_context(delivered_here(job.run_id, self.deliverer))
            self._delivers = True
        if self._declared and self._runner is None:  # started on demand: a run with only fresh steps needs none
            self._runner = self._stack.enter_context(task_runner(self._declared, self.session.settings.data))
            if self._declared.type != "threads":
                progress = reading_progress(self.session.settings.data, job.run_id)
                self._progress = self._stack.enter_context(progress)
        spec = job.spec
        task = _task(spec.tags, spec.retries)
        parameters: JsonObject = {"step": job.name, "job": json.dumps(job_to_json(job)), "crucible": self.connection}
        if self._progress and self.deliverer:
            parameters["driver"] = Driver.of(job, self.session)
        runs = [run for part in job.used if (run := self._task_runs.get(part.dataset.mfid))]
        parents = list({id(run): run for run in runs}.values())
        running: Any = (
            self._runner.submit(task, parameters=parameters, wait_for=parents)
            if self._runner
            else task.submit(**parameters, wait_for=parents)
        )
        return running  # type: ignore[no-any-return]

    def stop(self, run_id: str) -> bool:
        """Stop the processes of steps. Returns False if they run elsewhere, where they end with the runner."""
        stop_run(run_id)
        if self._declared is None or self._declared.type == "threads":
            return True
        for child in multiprocessing.active_children():  # else the pool waits for them
            child.terminate()
        return False

    def result(self, running: Any) -> Materialized:
        """Wait for the task and return its outcome."""
        running.wait()
        if self._progress:  # report the step's progress before its end
            self._progress()
        try:
            outcome = running.result()
        except Exception as error:
            if type(error).__name__ == "KilledWorker":  # of Dask, which is not imported here
                raise StepError(f"the workers that made it have died, one after the other: {error}") from error
            raise
        self._task_runs |= dict.fromkeys(outcome["outputs"].values(), running)
        made_elsewhere = min(outcome["outputs"].values()) if self._progress and self.deliverer else ""
        if made_elsewhere and self.deliverer and (waiting := self.session.outbox.label(made_elsewhere)):
            self.deliverer.add(waiting)  # the other process may have left delivery to this one
        return made_from_json(outcome, self.session)


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
