"""The flow that processes new data: datasets that match a pipeline's selection and do not have its results yet.

Each run considers datasets created since the previous one, and from time to time all of them. That is only for speed:
ids tell whether a result exists, so runs may be doubled, missed, or concurrent.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from crucible_lineage.core.journal import Failure
from crucible_lineage.errors import CrucibleError, InputError, ParkedError
from crucible_lineage.failed_runs import failures, park
from crucible_lineage.flows.pipelines import PrefectEngine
from crucible_lineage.flows.reports import failing_with_message, reporting_if_stopped, show_result, waiting_message
from crucible_lineage.flows.runners import THREADS
from crucible_lineage.json_types import JsonObject
from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.bind.model import BoundPipeline
from crucible_lineage.pipeline.engines.local import Engine, Running
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.job.materialize import Materialized
from crucible_lineage.pipeline.run.result import EXECUTED, FAILED, PASSING, REUSED, RunResult, StepEvent
from crucible_lineage.pipeline.run.run import noting_unstarted, plan_and_run
from crucible_lineage.pipeline.spec.inputs import located
from crucible_lineage.registration.deliver import Deliverer
from crucible_lineage.session import Session
from crucible_lineage.tasks.artifacts import tell_failed, telling_arrived
from crucible_lineage.tasks.sessions import CrucibleConnection, session_for
from crucible_lineage.watch.new_data import SelectionMarks, each_selection, narrowed


def _run_name() -> str:
    return f"new in {Path(flow_run.parameters['pipeline']).stem}"


@flow(name="process-new", flow_run_name=_run_name, persist_result=False, task_runner=THREADS)
def process_new(
    pipeline: str,
    since: datetime | None = None,
    select: JsonObject | None = None,
    crucible: CrucibleConnection | None = None,
    most_failures: Annotated[int, Field(ge=1)] = 3,
    sweep_hours: Annotated[float, Field(ge=0)] = 24.0,
) -> State[Any]:
    """Process the datasets of a pipeline's selection that lack results: the new ones, or all where necessary.

    The flow run is Completed if each dataset has its results, is parked, or is not ready yet; Failed if a step failed
    that is not parked.

    Args:
        pipeline: Path of the declaration, or package:NAME/PATH for one in an installed package.
        since: Consider datasets created since then. By default, since the previous run.
        select: Filters in addition to those of the pipeline's selection, as in {"session_name": "2026-11"}.
        crucible: Which Crucible to use. By default, the one configured where the flow runs.
        most_failures: A result that failed this often is parked until its code, parameters or inputs change.
        sweep_hours: How often all datasets are considered, not only new ones.
    """
    return failing_with_message(lambda: _process_new(pipeline, since, select, crucible, most_failures, sweep_hours))


def _process_new(
    pipeline: str,
    since: datetime | None,
    select: JsonObject | None,
    crucible: CrucibleConnection | None,
    most_failures: int,
    sweep_hours: float,
) -> State[Any]:
    session = session_for(crucible)
    path = located(pipeline)
    with noting_unstarted(session, path):
        bound = bind_file(path, session.store)
    get_run_logger().info(session.settings.describe())
    with noting_unstarted(session, path, bound.name, bound.spec.project):
        session.ensure_project(bound.spec.project, bound.spec.project_title)
    processing = _Processing(session, crucible, most_failures)
    if since is not None or select:
        result = processing.run(_select(bound, since, select or {}))
    elif name := each_selection(bound):
        result = _run_new(processing, SelectionMarks(bound, name, session, timedelta(hours=sweep_hours)))
    else:
        result = processing.run(bound)
    return processing.state(result)


def _select(bound: BoundPipeline, since: datetime | None, select: JsonObject) -> BoundPipeline:
    name = each_selection(bound)
    if name is None:
        raise InputError(
            f"pipeline {bound.name!r} has no input with `select` and `each` whose datasets are processed one by one; "
            "run it without since and select"
        )
    return narrowed(bound, name, {**select, **({"creation_time_gte": since.isoformat()} if since else {})})


def _run_new(processing: _Processing, marks: SelectionMarks) -> RunResult:
    full = marks.is_full
    result = processing.run(marks.look(full=full))
    if not full and marks.has_other_inputs(result):
        full = True
        result = processing.run(marks.look(full=True))
    marks.note(result, processing.parking.parked, full=full)
    return result


class _Processing:
    """Runs of a pipeline on Prefect with parking; one flow run may need two."""

    def __init__(self, session: Session, crucible: CrucibleConnection | None, most_failures: int) -> None:
        self.session = session
        self.crucible = crucible
        self.most = most_failures
        self.parking = Parking(PrefectEngine(session, crucible), session, most_failures)  # replaced by each run

    def run(self, bound: BoundPipeline) -> RunResult:
        """Run the pipeline, with events, log lines and artifacts for its results."""
        logger = get_run_logger()

        def listen(event: StepEvent) -> None:
            if event.outcome not in (REUSED, *PASSING) and event.step not in self.parking.parked:
                logger.info("%s: %s %s", event.step, event.outcome, event.detail)
            if event.step in self.parking.failed:
                tell_failed(bound.name, bound.spec.project, event)

        engine = PrefectEngine(self.session, self.crucible, bound.spec.runner)
        with reporting_if_stopped(bound.name, listen) as reporter, engine:
            self._park(bound.spec.project)
            self.parking = Parking(engine, self.session, self.most)
            result = plan_and_run(bound, self.session, lambda: self.parking, reporter, arrived=telling_arrived())
            self._park(bound.spec.project)
        for step, error in self.parking.note_refused(result).items():
            tell_failed(bound.name, bound.spec.project, StepEvent(step, FAILED, error))
        show_result(result, self.session, only_executed=True)
        return result

    def _park(self, project: str) -> None:
        """Share parked results through statements; if Crucible is unreachable, the next run does it."""
        try:
            park(self.session, project)
        except CrucibleError as error:
            get_run_logger().warning("parked results are not shared with other workers until the next run: %s", error)

    def state(self, result: RunResult) -> State[Any]:
        """Return the state that the flow run ends with."""
        counts = Counter(result.outcomes.values())
        summary = [f"{counts[EXECUTED]} executed", f"{counts[REUSED]} reused"]
        if parked := self.parking.parked:
            summary.append(f"{len(parked)} parked (see crucible-lineage status)")
        if failed := self.parking.failed:
            summary.append(f"{len(failed)} failed")
        reported = {*failed, *parked}
        waiting = [name for name in result.errors if name not in reported and result.outcomes[name] != "skipped"]
        if waiting:
            summary.append(f"{len(waiting)} not ready ({waiting[0]}: {result.errors[waiting[0]]})")
        message = f"pipeline {result.pipeline}: {', '.join(summary)}"
        reasons = [f"{name}: {error}" for name, error in list(failed.items())[:10]]
        reasons += filter(None, [waiting_message(result)])
        if reasons:
            return Failed(message=f"{message}: {'; '.join(reasons)}")
        return Completed(message=message, data={**result.to_json(), "parked": sorted(parked)})


class Parking:
    """An engine that starts steps with `engine`, except those that failed `most_failures` times or that are parked.

    `parked` and `failed` are by the names of instances.
    """

    def __init__(self, engine: Engine, session: Session, most_failures: int) -> None:
        self.engine = engine
        self.most_failures = most_failures
        self.parked: dict[str, Failure] = {}
        self.failed: dict[str, str] = {}
        self._known = failures(session)
        self._jobs: dict[int, tuple[Running, Job]] = {}
        self._lock = threading.Lock()

    @property
    def deliverer(self) -> Deliverer | None:
        """The engine's deliverer, if it leaves delivery to one."""
        return getattr(self.engine, "deliverer", None)

    @deliverer.setter
    def deliverer(self, deliverer: Deliverer) -> None:
        if hasattr(self.engine, "deliverer"):
            self.engine.deliverer = deliverer

    def start(self, job: Job) -> Running:
        """Start a step; a parked one ends at once."""
        failure = self._known.get(job.mfid)
        if failure is not None and (failure.parked or failure.failures >= self.most_failures):
            self.parked[job.name] = failure
            return _Parked(failure)
        running = self.engine.start(job)
        with self._lock:
            self._jobs[id(running)] = (running, job)  # keeps `running` alive, so that its id is not reused
        return running

    def result(self, running: object) -> Materialized:
        """Return the outcome of a step. Raises its error, or ParkedError if it is parked."""
        if isinstance(running, _Parked):
            raise ParkedError(f"parked after {running.failure.failures} failures: {running.failure.error}")
        with self._lock:
            _, job = self._jobs.pop(id(running))
        try:
            return self.engine.result(running)
        except Exception as error:
            self.failed[job.name] = str(error) or type(error).__name__
            raise

    def stop(self, run_id: str) -> bool:
        """Stop the steps as the engine does."""
        return self.engine.stop(run_id)

    def note_refused(self, result: RunResult) -> dict[str, str]:
        """Note refused results as failed, and return the reasons.

        Each run delivers them again without running their steps, so they are never parked.
        """
        steps = {waiting.step for waiting in result.waiting if waiting.refused}
        refused = {step: error for step, error in result.errors.items() if step in steps and step not in self.failed}
        self.failed |= refused
        return refused


class _Parked:
    """A step that was not started because it is parked."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure

    def add_done_callback(self, callback: Callable[[object], None], /) -> None:
        callback(self)
