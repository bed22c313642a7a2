"""The flow that processes what is new: datasets that match a pipeline's selection and have not got its results yet.

Each run looks at what was created since the last one had looked, and every so often at everything. Nothing depends on
that: whether a result is there is said by its id, so runs may be doubled, missed, or go on at the same time.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
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
from crucible_lineage.flows.reports import leave_artifacts, telling_what_was_made, waiting_told, with_its_error
from crucible_lineage.flows.runners import THREADS
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
from crucible_lineage.tasks.artifacts import tell_failed, tell_reused, telling_arrived
from crucible_lineage.tasks.sessions import CrucibleConnection, session_for
from crucible_lineage.watch.new_data import SelectionMarks, each_selection, narrowed

__all__ = ["Parking", "process_new"]


def _run_name() -> str:
    return f"new in {Path(flow_run.parameters['pipeline']).stem}"


@flow(name="process-new", flow_run_name=_run_name, persist_result=False, task_runner=THREADS)
def process_new(
    pipeline: str,
    since: datetime | None = None,
    select: dict[str, Any] | None = None,
    crucible: CrucibleConnection | None = None,
    most_failures: Annotated[int, Field(ge=1)] = 3,
    sweep_hours: Annotated[float, Field(ge=0)] = 24.0,
) -> State[Any]:
    """Completed if every dataset of a pipeline's selection has its results, is parked, or is not ready yet.

    Failed if a step failed that is not parked. Looks at new datasets only, or at all where that does not do.

    Args:
        pipeline: Path of the declaration, or package:NAME/PATH for one in an installed package.
        since: Look at datasets created since then. By default, at those created since the last look.
        select: Filters beside those of the pipeline's selection, as in {"session_name": "2026-11"}.
        crucible: Which Crucible. By default, the environment where the flow runs says so.
        most_failures: A result that failed so often is parked until its code, parameters or inputs change.
        sweep_hours: How often everything is looked at, and not only what is new.
    """
    return with_its_error(lambda: _process_new(pipeline, since, select, crucible, most_failures, sweep_hours))


def _process_new(
    pipeline: str,
    since: datetime | None,
    select: dict[str, Any] | None,
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
        result = processing.run(_chosen(bound, since, select or {}))
    elif name := each_selection(bound):
        result = _since_last(processing, SelectionMarks(bound, name, session, timedelta(hours=sweep_hours)))
    else:
        result = processing.run(bound)
    return processing.state(result)


def _chosen(bound: BoundPipeline, since: datetime | None, select: dict[str, Any]) -> BoundPipeline:
    name = each_selection(bound)
    if name is None:
        raise InputError(
            f"pipeline {bound.name!r} has no input with `select` and `each` whose datasets are processed one by one; "
            "run it without since and select"
        )
    return narrowed(bound, name, {**select, **({"creation_time_gte": since.isoformat()} if since else {})})


def _since_last(processing: _Processing, newest: SelectionMarks) -> RunResult:
    full = newest.is_full
    result = processing.run(newest.look(full=full))
    if not full and newest.has_other_inputs(result):
        full = True
        result = processing.run(newest.look(full=True))
    newest.note(result, processing.parking.parked, full=full)
    return result


class _Processing:
    """Runs on Prefect with parking; one flow run may need two of them."""

    def __init__(self, session: Session, crucible: CrucibleConnection | None, most_failures: int) -> None:
        self.session = session
        self.crucible = crucible
        self.most = most_failures
        self.parking = Parking(PrefectEngine(session, crucible), session, most_failures)  # replaced by each run

    def run(self, bound: BoundPipeline) -> RunResult:
        """The result of a run; what it made is told and shown."""
        logger = get_run_logger()

        def listen(event: StepEvent) -> None:
            if event.outcome not in (REUSED, *PASSING) and event.step not in self.parking.parked:
                logger.info("%s: %s %s", event.step, event.outcome, event.detail)
            if event.step in self.parking.failed:
                tell_failed(bound.name, bound.spec.project, event)

        engine = PrefectEngine(self.session, self.crucible, bound.spec.runner)
        with telling_what_was_made(bound.name, listen) as heard, engine:
            self._park(bound.spec.project)
            self.parking = Parking(engine, self.session, self.most)
            result = plan_and_run(bound, self.session, lambda: self.parking, heard, arrived=telling_arrived())
            self._park(bound.spec.project)
        for step, error in self.parking.note_refused(result).items():
            tell_failed(bound.name, bound.spec.project, StepEvent(step, FAILED, error))
        tell_reused(result)
        made = {name: outputs for name, outputs in result.datasets.items() if result.outcomes[name] == EXECUTED}
        if made:
            leave_artifacts(replace(result, datasets=made), self.session)
        return result

    def _park(self, project: str) -> None:
        """State what is parked; where Crucible is away, the next run does."""
        try:
            park(self.session, project)
        except CrucibleError as error:
            get_run_logger().warning("what is parked is not known to other workers until the next run: %s", error)

    def state(self, result: RunResult) -> State[Any]:
        """Return the state that the flow run ends with."""
        counts = Counter(result.outcomes.values())
        counted = [f"{counts[EXECUTED]} executed", f"{counts[REUSED]} reused"]
        if parked := self.parking.parked:
            counted.append(f"{len(parked)} parked (see crucible-lineage status)")
        if failed := self.parking.failed:
            counted.append(f"{len(failed)} failed")
        touched = {*failed, *parked}
        waiting = [name for name in result.errors if name not in touched and result.outcomes[name] != "skipped"]
        if waiting:
            counted.append(f"{len(waiting)} not ready ({waiting[0]}: {result.errors[waiting[0]]})")
        message = f"pipeline {result.pipeline}: {', '.join(counted)}"
        reasons = [f"{name}: {error}" for name, error in list(failed.items())[:10]]
        reasons += filter(None, [waiting_told(result)])
        if reasons:
            return Failed(message=f"{message}: {'; '.join(reasons)}")
        return Completed(message=message, data={**result.to_json(), "parked": sorted(parked)})


class Parking:
    """Starts steps with `engine`, but none that has failed `most_failures` times, or that another worker has parked.

    `parked` are those, `failed` all others, by the names of their instances.
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
        """Whoever delivers what the engine hands on before it is delivered."""
        return getattr(self.engine, "deliverer", None)

    @deliverer.setter
    def deliverer(self, deliverer: Deliverer) -> None:
        if hasattr(self.engine, "deliverer"):
            self.engine.deliverer = deliverer

    def start(self, job: Job) -> Running:
        """Start the step, unless it is parked: then it has ended at once."""
        known = self._known.get(min(planned.mfid for planned in job.outputs))
        if known is not None and (known.parked or known.failures >= self.most_failures):
            self.parked[job.name] = known
            return _Parked(known)
        running = self.engine.start(job)
        with self._lock:
            self._jobs[id(running)] = (running, job)  # with `running`, so that its id stays its own
        return running

    def result(self, running: object) -> Materialized:
        """Return the outcome of the step. Raises what it raised, ParkedError if it is parked."""
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
        """Stop as its engine does."""
        return self.engine.stop(run_id)

    def note_refused(self, result: RunResult) -> dict[str, str]:
        """Note refused results as failed, and return the reasons.

        Each run sends them again without making them again, so that none is parked.
        """
        steps = {one.step for one in result.waiting if one.refused}
        refused = {step: error for step, error in result.errors.items() if step in steps and step not in self.failed}
        self.failed |= refused
        return refused


class _Parked:
    """A step that was not started."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure

    def add_done_callback(self, callback: Callable[[object], None], /) -> None:
        callback(self)
