"""Planning and running a pipeline: execute, deliver, confirm, publish, report and record what is not fresh."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.core.slots import pipeline_keyword
from crucible_lineage.errors import (
    TRANSIENT,
    CertificateError,
    CrucibleError,
    LineageError,
    RateLimitedError,
    StorageError,
)
from crucible_lineage.failed_runs import state_run
from crucible_lineage.local.usage import in_use, runs
from crucible_lineage.pipeline.bind.model import BoundPipeline
from crucible_lineage.pipeline.inputs.inputs import register_inputs
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.plan.plan import BLOCKED, FRESH
from crucible_lineage.pipeline.plan.planner import PlannedPipeline, plan_pipeline
from crucible_lineage.pipeline.run.ending import finish, result_of, to_be_ingested
from crucible_lineage.pipeline.run.loop import Arrived, Run
from crucible_lineage.pipeline.run.result import (
    AWAY,
    EXECUTED,
    FAILED,
    REGISTERING,
    WAITING,
    Listener,
    RunResult,
    StepChoice,
    StepEvent,
)
from crucible_lineage.pipeline.run.stopping import Stop
from crucible_lineage.session import Session
from crucible_lineage.settings import retries_from_environment

if TYPE_CHECKING:  # a fresh run executes nothing
    from crucible_lineage.pipeline.engines.local import Engine

_MAX_UNREAD = 1000  # files that could not be ingested, in one run
_SOON_S = 5.0  # chosen: after that the service is away, and a run uses what is known here
_INGESTED_HERE_S = 10.0  # chosen: this machine ingests the files itself, mostly within a second


def plan_and_run(
    pipeline: BoundPipeline,
    session: Session,
    engine: Callable[[], Engine],
    listener: Listener,
    choice: StepChoice = StepChoice(),
    stop: Stop | None = None,
    arrived: Arrived | None = None,
) -> RunResult:
    """Plan a pipeline and execute the steps that are not fresh.

    `engine` is called only if a step has to be executed; `listener` receives every event, and `arrived` each payload
    that this run has delivered.
    """
    planned = plan_for_run(pipeline, session, listener, choice)
    return run_planned(pipeline, planned, session, engine, listener, choice, stop, arrived)


def plan_for_run(
    pipeline: BoundPipeline, session: Session, listener: Listener, choice: StepChoice = StepChoice()
) -> PlannedPipeline:
    """Plan a pipeline that is to be run now; during an outage, from what is known here.

    If that does not suffice, wait for the service up to `choice.patience_s`, unless the environment says how long calls
    are repeated; then raise CrucibleError.
    """
    choice.require_steps(pipeline)  # before anything is looked up
    with noting_unstarted(session, pipeline.spec.path, pipeline.name, pipeline.spec.project):
        return _plan(pipeline, session, listener, choice)


def _plan(pipeline: BoundPipeline, session: Session, listener: Listener, choice: StepChoice) -> PlannedPipeline:
    plan = partial(plan_pipeline, pipeline, session, choice.forced, as_of=choice.as_of, campaign=choice.campaign)
    if session.settings.embedded:
        return plan()
    is_set = bool(retries_from_environment())
    try:
        with nullcontext() if is_set else session.client.repeating(_SOON_S):
            return plan()
    except CertificateError:
        raise
    except RateLimitedError:
        return plan()
    except TRANSIENT as error:
        reason = str(error).partition("\n")[0]
    if session.mirror.is_synced(pipeline.spec.project, pipeline_keyword(pipeline.name)):
        with suppress(*TRANSIENT), session.offline():
            planned = plan()
            if not planned.plan.is_fresh:
                _ = session.agent  # registrations need the account
            listener(StepEvent("", AWAY, f"{reason}; going on with what is known here"))
            return planned
    waits = "asking again" if is_set else f"waiting for it for {choice.patience_s:g} s (--patience)"
    listener(StepEvent("", AWAY, f"{reason}; what is known here does not suffice, {waits}"))
    with nullcontext() if is_set else session.client.repeating(choice.patience_s):
        return plan()


def run_planned(
    pipeline: BoundPipeline,
    planned: PlannedPipeline,
    session: Session,
    engine: Callable[[], Engine],
    listener: Listener,
    choice: StepChoice = StepChoice(),
    stop: Stop | None = None,
    arrived: Arrived | None = None,
) -> RunResult:
    """Execute a plan; arguments and result are those of `plan_and_run`."""
    away = planned.index.is_away
    new = any(item.raw and item.dataset is None for items in planned.inputs.values() for item in items)
    if (not planned.plan.is_fresh or new) and not away:
        with noting_unstarted(session, pipeline.spec.path, pipeline.name, pipeline.spec.project):
            session.prepare(pipeline.spec.project, pipeline.spec.project_title)
    with _recorded(pipeline, session) as run_id:  # a run that was refused before has not begun
        # A fresh run is over before anybody could ask whether it is under way.
        with nullcontext() if planned.plan.is_fresh and not new else in_use(runs(session.settings.data) / run_id):
            before = {one.request for one in session.store.ended_ingestions(_MAX_UNREAD)}
            with session.offline() if away else nullcontext():
                inputs = register_inputs(
                    planned.inputs, session, lambda text: listener(StepEvent("", REGISTERING, text))
                )
                planned.index.begin([key for one in _to_make(planned) for keys in one.slots.values() for key in keys])
                run = Run(pipeline, session, run_id, planned, inputs, listener, choice)
                run.adopt(planned.plan)
            if run.has_work or not session.outbox.is_empty:
                from crucible_lineage.pipeline.job.delivering import (
                    delivering,
                )  # a run in which all is fresh needs none

                with delivering(session, run.note_delivery) as deliverer:
                    run.loop(engine, deliverer, stop or Stop(), arrived)
        unread: tuple[str, ...] = ()
        if not run.stopped:
            finish(run, away=away)
            requested = new or any(state.outcome == EXECUTED for state in run.steps.values())
            unread = _not_ingested(session, run_id, before, partial(to_be_ingested, run), requested=requested)
        result = result_of(run, planned.plan.notes, unread)
        session.journal.end_run(run_id, "complete" if result.ok else "stopped" if result.stopped else "failed")
    if choice.is_whole and not result.stopped and not result.is_held:
        errors = {step: error for step, error in result.errors.items() if result.outcomes.get(step) == FAILED}
        reason = next(iter(errors.values()), "results wait to be delivered") if not result.ok else ""
        with session.client.repeating(0.0) if away else nullcontext():
            message = state_run(session, result.project, result.pipeline, reason, errors)
        if message:
            listener(StepEvent("", WAITING, message))
    return result


def _to_make(planned: PlannedPipeline) -> list[Instance]:
    """Return the instances that are neither fresh nor blocked."""
    return [planned.instances[step.name] for step in planned.plan.steps if step.state not in (FRESH, BLOCKED)]


@contextmanager
def _recorded(pipeline: BoundPipeline, session: Session) -> Iterator[str]:
    """Record the start of a run in the journal, and its end if the block raises. Yields the run's id."""
    run_id = uuid.uuid4().hex
    session.journal.begin_run(run_id, pipeline.name, pipeline.spec.project, pipeline.spec.path)
    try:
        yield run_id
    except BaseException as error:
        with suppress(StorageError):  # the original error says more
            session.journal.end_run(run_id, "failed" if isinstance(error, Exception) else "stopped")
        raise


def _not_ingested(
    session: Session, run_id: str, before: Collection[int], awaited: Callable[[], Collection[str]], *, requested: bool
) -> tuple[str, ...]:
    """Follow ingestions, and describe the files that were not ingested, apart from those described `before`.

    Ingestions of the embedded Crucible get some seconds to end, if the run has `requested` any. `awaited` returns the
    datasets whose ingestion is to be waited for: if that is still open, it is described as well.
    """
    found = [one for one in session.store.ended_ingestions(_MAX_UNREAD) if one.request not in before]
    if session.store.open_ingestions() and session.outbox.is_empty:
        from crucible_lineage.registration.ingestion import follow_ingestions  # few runs have any

        at_most_s = _INGESTED_HERE_S if session.settings.embedded and requested else 0.0
        with suppress(CrucibleError), session.connect(at_most_s=0.0) as client:  # else the next run asks
            found += follow_ingestions(client, session.store, at_most_s=at_most_s)
        still_open = {one.mfid for one in session.store.open_ingestions()}
        session.journal.note_ingested(run_id, {one.mfid for one in found if one.status == "complete"} - still_open)
        mfids = awaited()
        found += [one for one in session.store.open_ingestions() if one.mfid in mfids]
    if not found:
        return ()
    from crucible_lineage.registration.ingestion import in_words

    return tuple(in_words(one) for one in found if one.status != "complete")


@contextmanager
def noting_unstarted(session: Session, declaration: Path, pipeline: str = "", project: str = "") -> Iterator[None]:
    """Record an error that ends this block as a run that could not start, of the pipeline if its name is known."""
    try:
        yield
    except LineageError as error:
        with nullcontext() if session.settings.embedded else session.client.repeating(0.0):
            with suppress(LineageError):  # the original error says more, or the key's owner is unknown
                name, path = pipeline or declaration.stem, declaration.absolute()
                session.journal.note_unstarted(uuid.uuid4().hex, name, project, path, str(error))
            if project and not isinstance(error, TRANSIENT):
                state_run(session, project, pipeline, f"could not start: {error}", {})
        raise
