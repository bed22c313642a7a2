"""A pipeline planned and run: what is not fresh is made, delivered, confirmed, published, reported, and recorded."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from crucible_lineage.pipeline.plan.plan import BLOCKED, FORCED, FRESH
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

if TYPE_CHECKING:  # a run in which all is fresh makes nothing
    from crucible_lineage.pipeline.engines.local import Engine

_MOST_UNREAD = 1000  # files that could not be read, in one run
_SOON_S = 5.0  # chosen: after that the service is away, and a run goes by what is known here
_INGESTED_HERE_S = 10.0  # chosen: this machine reads the files itself, and mostly within a second


def plan_and_run(
    pipeline: BoundPipeline,
    session: Session,
    engine: Callable[[], Engine],
    listener: Listener,
    choice: StepChoice = StepChoice(),
    stop: Stop | None = None,
    arrived: Arrived | None = None,
) -> RunResult:
    """Plan a pipeline and make what is not fresh.

    `engine` is called only if something has to be made; `listener` is given every event, and `arrived` each payload
    that this run has brought to Crucible.
    """
    planned = plan_for_run(pipeline, session, listener, choice)
    return run_planned(pipeline, planned, session, engine, listener, choice, stop, arrived)


def plan_for_run(
    pipeline: BoundPipeline, session: Session, listener: Listener, choice: StepChoice = StepChoice()
) -> PlannedPipeline:
    """Plan a pipeline that is to be run now, in an outage by what is known here.

    If that does not suffice, the service is waited for, as long as `choice` is patient, unless the environment says for
    how long calls are repeated. Raises CrucibleError after it.
    """
    choice.steps(pipeline)  # a name that is none is refused before anything is looked up
    with noting_unstarted(session, pipeline.spec.path, pipeline.name, pipeline.spec.project):
        return _plan(pipeline, session, listener, choice)


def _plan(pipeline: BoundPipeline, session: Session, listener: Listener, choice: StepChoice) -> PlannedPipeline:
    if session.settings.embedded:
        return plan_pipeline(pipeline, session, choice.forced, as_of=choice.as_of, campaign=choice.campaign)
    is_set = bool(retries_from_environment())
    try:
        with nullcontext() if is_set else session.client.repeating(_SOON_S):
            return plan_pipeline(pipeline, session, choice.forced, as_of=choice.as_of, campaign=choice.campaign)
    except (CertificateError, RateLimitedError) as error:
        if isinstance(error, CertificateError):
            raise
        return plan_pipeline(pipeline, session, choice.forced, as_of=choice.as_of, campaign=choice.campaign)
    except TRANSIENT as error:
        reason = str(error).partition("\n")[0]
    if session.mirror.is_synced(pipeline.spec.project, pipeline_keyword(pipeline.name)):
        with suppress(*TRANSIENT), session.offline():
            planned = plan_pipeline(pipeline, session, choice.forced, as_of=choice.as_of, campaign=choice.campaign)
            if not planned.plan.is_fresh:
                _ = session.agent  # who registers has to be known as well
            listener(StepEvent("", AWAY, f"{reason}; going on with what is known here"))
            return planned
    waits = "asking again" if is_set else f"waiting for it for {choice.patience_s:g} s (--patience)"
    listener(StepEvent("", AWAY, f"{reason}; what is known here does not suffice, {waits}"))
    with nullcontext() if is_set else session.client.repeating(choice.patience_s):
        return plan_pipeline(pipeline, session, choice.forced, as_of=choice.as_of, campaign=choice.campaign)


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
    """The same for a plan that was made already."""
    away = planned.index.is_away
    new = any(item.raw and item.dataset is None for items in planned.inputs.values() for item in items)
    ready: Callable[[], Engine] = partial(_started_ahead, engine, planned, choice.steps(pipeline))
    if not planned.plan.is_fresh or new:
        ready = ready if planned.plan.is_fresh else session.client.ahead(ready)
        if not away:
            with noting_unstarted(session, pipeline.spec.path, pipeline.name, pipeline.spec.project):
                session.prepare(pipeline.spec.project, pipeline.spec.project_title)
    with _recorded(pipeline, session) as run_id:  # one that was refused until here has not begun
        # A run that has nothing to do is over before anybody could ask whether it is under way.
        with nullcontext() if planned.plan.is_fresh and not new else in_use(runs(session.settings.data) / run_id):
            before = {one.request for one in session.store.ended_ingestions(_MOST_UNREAD)}
            with session.offline() if away else nullcontext():
                inputs = register_inputs(
                    planned.inputs, session, lambda text: listener(StepEvent("", REGISTERING, text))
                )
                planned.index.begin(_slots_to_fill(planned))
                run = Run(pipeline, session, run_id, planned, inputs, listener, choice)
                run.adopt(planned.plan)
            if run.has_work or not session.outbox.is_empty:
                from crucible_lineage.pipeline.job.delivering import (
                    delivering,
                )  # a run in which all is fresh needs none

                with delivering(session, run.note_delivery) as deliverer:
                    deliverer.shared = not session.settings.embedded
                    deliverer.others = planned.index.others(deliverer.context.client)
                    run.loop(ready, deliverer, stop or Stop(), arrived)
        unread: tuple[str, ...] = ()
        if not run.stopped:
            finish(run, away=away)
            asked = new or any(state.outcome == EXECUTED for state in run.steps.values())
            unread = _not_ingested(session, run_id, before, partial(to_be_ingested, run), asked=asked)
        result = _with_notes(result_of(run, unread), planned, session)
        session.journal.end_run(run_id, "complete" if result.ok else "stopped" if result.stopped else "failed")
    if choice.is_whole and not result.stopped and not result.is_held:
        errors = {step: error for step, error in result.errors.items() if result.outcomes.get(step) == FAILED}
        why = next(iter(errors.values()), "results wait to be delivered") if not result.ok else ""
        with session.client.repeating(0.0) if away else nullcontext():
            told = state_run(session, result.project, result.pipeline, why, errors)
        if told:
            listener(StepEvent("", WAITING, told))
    return result


def _with_notes(result: RunResult, planned: PlannedPipeline, session: Session) -> RunResult:
    """The result with what is to be said of measured files, and of steps that gave something else when forced."""
    notes, waiting = dict(result.notes), {mfid for one in result.waiting for mfid in one.mfids}
    for step in planned.plan.steps:
        if FORCED not in step.causes or result.outcomes.get(step.name) != EXECUTED:
            continue
        from crucible_lineage.pipeline.run.reproduced import NOT_DETERMINISTIC, moved  # few runs force a step

        for output, before in step.supersedes.items():
            now = result.datasets.get(step.name, {}).get(output)
            if now is None or now in waiting or before == now:
                continue
            with suppress(CrucibleError):  # what was made is there; `why` compares them later
                if lines := moved(session, before, now):
                    said = f"{NOT_DETERMINISTIC}: {'; '.join(lines)}"
                    notes[step.name] = "; ".join(filter(None, (notes.get(step.name), said)))
    return replace(result, notes=notes, input_notes=planned.plan.notes)


def _slots_to_fill(planned: PlannedPipeline) -> list[str]:
    """The slots of the steps that are not fresh."""
    todo = [planned.instances[step.name] for step in planned.plan.steps if step.state not in (FRESH, BLOCKED)]
    return [key for one in todo for keys in one.slots.values() for key in keys]


def _started_ahead(engine: Callable[[], Engine], planned: PlannedPipeline, chosen: Collection[str]) -> Engine:
    """The engine, which has begun to start processes for the functions that can be called first."""
    made = engine()
    if start_ahead := getattr(made, "start_ahead", None):
        done = {step.name for step in planned.plan.steps if step.state == FRESH}
        todo = [planned.instances[step.name] for step in planned.plan.steps if step.state not in (FRESH, BLOCKED)]
        functions = [one for one in todo if one.step.name in chosen and not one.step.spec.run]
        start_ahead(sum(done.issuperset(one.needs) for one in functions))
    return made


@contextmanager
def _recorded(pipeline: BoundPipeline, session: Session) -> Iterator[str]:
    """The id of a run that the journal knows as under way, and as ended if it is left by an error."""
    run_id = uuid.uuid4().hex
    session.journal.begin_run(run_id, pipeline.name, pipeline.spec.project, pipeline.spec.path)
    try:
        yield run_id
    except BaseException as error:
        with suppress(StorageError):  # what is raised already says more
            session.journal.end_run(run_id, "failed" if isinstance(error, Exception) else "stopped")
        raise


def _not_ingested(
    session: Session, run_id: str, before: Collection[int], waited: Callable[[], Collection[str]], *, asked: bool
) -> tuple[str, ...]:
    """Follow ingestions, and describe the files that were not read, apart from those described `before`.

    Those of the embedded Crucible are given some seconds to end, if the run has `asked` for any. `waited` gives the
    datasets whose ingestion is to be waited for: where that is still open, it is described as well.
    """
    found = [one for one in session.store.ended_ingestions(_MOST_UNREAD) if one.request not in before]
    if session.store.open_ingestions() and session.outbox.is_empty:
        from crucible_lineage.registration.ingestion import follow_ingestions  # few runs have any

        at_most_s = _INGESTED_HERE_S if session.settings.embedded and asked else 0.0
        with suppress(CrucibleError), session.connect(at_most_s=0.0) as client:  # else whoever comes next asks
            found += follow_ingestions(client, session.store, at_most_s=at_most_s)
        still_open = {one.mfid for one in session.store.open_ingestions()}
        session.journal.note_ingested(run_id, {one.mfid for one in found if one.status == "complete"} - still_open)
        mfids = waited()
        found += [one for one in session.store.open_ingestions() if one.mfid in mfids]
    if not found:
        return ()
    from crucible_lineage.registration.ingestion import in_words

    return tuple(in_words(one) for one in found if one.status != "complete")


@contextmanager
def noting_unstarted(session: Session, declaration: Path, pipeline: str = "", project: str = "") -> Iterator[None]:
    """Note an error that ends this block as a run that could not start.

    Pipeline and project are found out where they are not given, from the file or from earlier runs.
    """
    try:
        yield
    except LineageError as error:
        if not pipeline:
            pipeline, project = _named(session, declaration)
        with nullcontext() if session.settings.embedded else session.client.repeating(0.0):
            with suppress(LineageError):  # what is raised already says more; or nobody knows whose key it is
                path = declaration.absolute()
                session.journal.note_unstarted(uuid.uuid4().hex, pipeline, project, path, str(error))
            if project and not isinstance(error, TRANSIENT):
                state_run(session, project, pipeline, f"could not start: {error}", {})
        raise


def _named(session: Session, declaration: Path) -> tuple[str, str]:
    """Return name and project of a declaration that may have faults; without a project if nobody knows."""
    from crucible_lineage.pipeline.declare.yaml import parse_document  # only what cannot be read is read twice

    data: Any = None
    with suppress(OSError, LineageError):
        data = parse_document(declaration.read_text(encoding="utf-8"), declaration.name).data
    if isinstance(data, dict) and isinstance(data.get("pipeline"), str) and isinstance(data.get("project"), str):
        return data["pipeline"], data["project"]
    path = str(declaration.absolute())
    known = (one for one in session.journal.pipelines() if path in one["declarations"])
    return next(((one["pipeline"], one["project"]) for one in known), (declaration.stem, ""))
