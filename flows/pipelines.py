"""The flow that runs a declared pipeline: plan, then one task for each step that is not fresh."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from prefect import Task, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import NotPausedError
from prefect.flow_runs import resume_flow_run, suspend_flow_run
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import TaskRunner

from crucible_lineage.flows.reports import leave_artifacts, reasons_of, telling_what_was_made, with_its_error
from crucible_lineage.flows.runners import MOST_THREADS, THREADS, requesting, task_runner
from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.engines.local import Running
from crucible_lineage.pipeline.engines.slurm import cancel_jobs
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.job.job_json import job_to_json, made_from_json
from crucible_lineage.pipeline.job.materialize import Materialized
from crucible_lineage.pipeline.job.progress import ProgressReader, reading_progress
from crucible_lineage.pipeline.processes.supervised import stop_run
from crucible_lineage.pipeline.processes.worker import start_ahead
from crucible_lineage.pipeline.run.result import PASSING, Listener, RunResult, StepChoice, StepEvent
from crucible_lineage.pipeline.run.run import noting_unstarted, plan_and_run
from crucible_lineage.pipeline.run.stopping import Stop
from crucible_lineage.pipeline.spec.inputs import located
from crucible_lineage.pipeline.spec.pipeline import Runner
from crucible_lineage.registration.deliver import Deliverer
from crucible_lineage.session import Session
from crucible_lineage.tasks.artifacts import tell_failed, tell_reused, telling_arrived
from crucible_lineage.tasks.materialization import Driver, delivered_here, materialize
from crucible_lineage.tasks.sessions import CrucibleConnection, is_transient, is_worth_another, session_for


@dataclass
class Observer:
    """Hears of every step, and holds the result when the flow has ended; `stop` may end it before."""

    listener: Listener
    stop: Stop | None = None
    result: RunResult | None = None


_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


@contextmanager
def observing(listener: Listener, stop: Stop | None = None) -> Iterator[Observer]:
    """Flows that run in this block tell `listener` of their steps, and end when `stop` is asked for."""
    observer = Observer(listener, stop)
    token = _observer.set(observer)
    try:
        yield observer
    finally:
        _observer.reset(token)


def _current_observer() -> Observer | None:
    """Whoever observes. A flow's own code goes to other processes as it is, and must not name a context variable."""
    return _observer.get()


def _run_name() -> str:
    """The run is called like the pipeline's file, with the parameters that it was given and what it is to make."""
    given: dict[str, Any] = flow_run.parameters
    told = [f"{name}={value}" for name, value in (given.get("overrides") or {}).items()]
    variant = f" [{', '.join(told)}]" if told else ""
    return f"{Path(given['pipeline']).stem}{variant}"[:200]


@flow(name="run-pipeline", flow_run_name=_run_name, persist_result=False, task_runner=THREADS)
def run_pipeline(
    pipeline: str,
    crucible: CrucibleConnection | None = None,
    overrides: dict[str, Any] | None = None,
    choice: StepChoice = StepChoice(),
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
    return with_its_error(lambda: _run_pipeline(pipeline, crucible, overrides, choice, runner))


def _run_pipeline(
    pipeline: str,
    crucible: CrucibleConnection | None,
    overrides: dict[str, Any] | None,
    choice: StepChoice,
    runner: Runner | None,
) -> State[Any]:
    session = session_for(crucible)
    path = located(pipeline)
    with noting_unstarted(session, path) if not overrides else nullcontext():
        bound = bind_file(path, session.store, overrides)
    logger = get_run_logger()
    logger.info(session.settings.describe())
    observer = _current_observer()

    def listen(event: StepEvent) -> None:
        if event.outcome not in PASSING:
            logger.info("%s: %s %s", event.step or bound.name, event.outcome, event.detail)
        tell_failed(bound.name, bound.spec.project, event)
        if observer:
            observer.listener(event)

    declared = runner or bound.spec.runner
    with telling_what_was_made(bound.name, listen) as heard, PrefectEngine(session, crucible, declared) as engine:
        stop = observer.stop if observer else None
        result = plan_and_run(bound, session, lambda: engine, heard, choice, stop, telling_arrived())
    tell_reused(result)
    for step, note in result.notes.items():
        logger.warning("%s: %s", step, note)
    if observer:
        observer.result = result
    if result.datasets:
        leave_artifacts(result, session)
    if result.stopped:
        return Cancelled(message=f"pipeline {bound.name}: the run was stopped")
    if result.is_held:
        suspend_until_signed(result.unsigned)
    if not result.ok:
        return Failed(message=f"pipeline {bound.name}: {reasons_of(result)}")
    delivered = f", {len(result.delivered)} of before delivered" if result.delivered else ""
    message = f"pipeline {bound.name}: {len(result.executed)} executed{delivered}"
    return Completed(message=message, data=result.to_json())


@cache
def _task(tags: tuple[str, ...], retries: int) -> Task[..., Any]:
    """The task for steps that declare these; making one costs as much as submitting it."""
    options: dict[str, Any] = {"tags": tags} if tags else {}
    options["retry_condition_fn"] = is_worth_another if retries else is_transient
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
        self._news: ProgressReader | None = None
        self.deliverer: Deliverer | None = None
        self._delivers = False
        self._made: dict[str, Any] = {}  # the task runs that gave these datasets, for the arrows in Prefect's picture

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def start_ahead(self, steps: int) -> None:
        """Start the first processes for functions of steps, where they are called by threads of this process."""
        if self._declared is None or self._declared.type == "threads":
            threads = (self._declared.workers if self._declared else None) or MOST_THREADS
            start_ahead(min(steps, threads))

    def start(self, job: Job) -> Running:
        """The step has been submitted, with the tags and resources that it declares."""
        if self.deliverer and not self._delivers:
            self._stack.enter_context(delivered_here(job.run_id, self.deliverer))
            self._delivers = True
        if self._declared and self._runner is None:  # a run in which all is fresh starts none
            self._runner = self._stack.enter_context(task_runner(self._declared))
            if self._declared.type != "threads":
                hearing = reading_progress(self.session.settings.data, job.run_id)
                self._news = self._stack.enter_context(hearing)
        spec = job.spec
        task = _task(spec.tags, spec.retries)
        sent = json.dumps(job_to_json(job))
        parameters: dict[str, Any] = {"step": job.name, "job": sent, "crucible": self.connection}
        if self._declared and self._declared.type == "slurm":
            parameters["slurm"] = self._declared
        elif self._news and self.deliverer and self.session.defers_delivery:
            parameters["driver"] = Driver.of(job, self.session, self.deliverer)
        parents = list({id(one): one for part in job.used if (one := self._made.get(part.dataset.mfid))}.values())
        with requesting(self._runner, spec.amounts):
            made: Any = (
                self._runner.submit(task, parameters=parameters, wait_for=parents)
                if self._runner
                else task.submit(**parameters, wait_for=parents)
            )
        return made  # type: ignore[no-any-return]

    def stop(self, run_id: str) -> bool:
        """Processes of steps are being ended. False if they run elsewhere, where they end with the runner."""
        stop_run(run_id)
        if self._declared is None or self._declared.type == "threads":
            return True
        if self._declared.type == "slurm":
            cancel_jobs(run_id)
            return True
        for child in multiprocessing.active_children():  # else the pool waits for them
            child.terminate()
        return False

    def result(self, running: Any) -> Materialized:
        """The outcome of the task."""
        running.wait()
        if self._news:  # what the step has told comes before its end
            self._news.look()
        told = running.result()
        self._made |= dict.fromkeys(told["outputs"].values(), running)
        if self._news and self.deliverer:  # made in another process, which may have left it to this one
            if left := self.session.outbox.look(min(told["outputs"].values())):
                self.deliverer.add(left)
            self.deliverer.took(told["seconds"] or 0.0)
        return made_from_json(told, self.session)


PAUSED = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))
TAG = "unsigned-"  # of a flow run that waits: with the id of each result that needs a signature


def suspend_until_signed(mfids: Collection[str]) -> None:
    """End this flow run as Suspended, tagged with the results that need signatures.

    Whoever signs them resumes it; a worker then runs the flow once more, which finds the signatures. Nothing is done
    for a run without a deployment, which no worker can resume, and where another run waits for the same results.
    """
    if not mfids or not deployment.id:
        return
    with get_client(sync_client=True) as client:
        same = FlowRunFilterTags(all_=[TAG + mfid for mfid in mfids])
        if client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=same, state=PAUSED), limit=1):
            return
        tags = [tag for tag in client.read_flow_run(flow_run.id).tags if not tag.startswith(TAG)]
        client.update_flow_run(flow_run.id, tags=sorted({*tags, *(TAG + mfid for mfid in mfids)}))
    suspend_flow_run(timeout=None, key=str(uuid4()))  # by a new key each time: a resumed run may have to wait again


def resume_signed(mfids: Collection[str]) -> list[str]:
    """Resume the flow runs that wait for signatures of these results. Returns their names."""
    if not mfids:
        return []
    waits = FlowRunFilter(tags=FlowRunFilterTags(any_=[TAG + mfid for mfid in mfids]), state=PAUSED)
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=waits)
    resumed = []
    for run in found:
        with suppress(NotPausedError):  # somebody else was faster
            resume_flow_run(run.id)
            resumed.append(run.name)
    return resumed
