"""Planning and running a pipeline: execute, deliver, confirm, report and record what is not fresh."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.core.folders import in_use, runs
from crucible_lineage.core.slots import pipeline_keyword
from crucible_lineage.core.store import Ingestion
from crucible_lineage.errors import (
    TRANSIENT,
    CertificateError,
    CrucibleError,
    InputError,
    LineageError,
    RateLimitedError,
    StorageError,
)
from crucible_lineage.pipeline.declare.pipeline import Certify
from crucible_lineage.pipeline.job.job import Outcome
from crucible_lineage.pipeline.plan.bound import BoundPipeline
from crucible_lineage.pipeline.plan.expand import Instance, items_behind, shared_value
from crucible_lineage.pipeline.plan.inputs import joint_span, register_inputs
from crucible_lineage.pipeline.plan.plan import PipelinePlan
from crucible_lineage.pipeline.plan.planner import ProjectIndex, plan_pipeline
from crucible_lineage.pipeline.run.loop import Arrived, Run
from crucible_lineage.pipeline.run.result import Listener, RunResult, StepChoice, StepEvent, Stop, ids_of
from crucible_lineage.registration.ingestion import follow_ingestions, in_words
from crucible_lineage.registration.read import confirmed
from crucible_lineage.session import Session
from crucible_lineage.settings import retries_from_environment
from crucible_lineage.statements.failed import state_run
from crucible_lineage.statements.stating import certify
from crucible_lineage.text.times import utc

if TYPE_CHECKING:
    from crucible_lineage.pipeline.engines.local import Engine


_MAX_UNREAD = 1000  # files that could not be ingested, in one run
_SOON_S = 5.0  # chosen: after that the service is away, and a run uses what is known here
_INGESTED_HERE_S = 10.0  # chosen: this machine ingests the files itself, mostly within a second


def plan_for_run(
    pipeline: BoundPipeline, session: Session, listener: Listener, choice: StepChoice = StepChoice()
) -> PipelinePlan:
    """Plan a pipeline that is to be run now; during an outage, from what is known here.

    If that does not suffice, wait for the service up to `choice.patience_s`, unless the environment says how long calls
    are repeated; then raise CrucibleError.
    """
    choice.require_steps(pipeline)  # before anything is looked up
    with noting_unstarted(session, pipeline.spec.path, pipeline.name, pipeline.spec.project):
        plan = partial(plan_pipeline, pipeline, session, choice.forced, as_of=choice.as_of)
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
                if not planned.is_done:
                    _ = session.agent  # registrations need the account
                listener(StepEvent("", Outcome.AWAY, f"{reason}; going on with what is known here"))
                return planned
        waits = "asking again" if is_set else f"waiting for it for {choice.patience_s:g} s (--patience)"
        listener(StepEvent("", Outcome.AWAY, f"{reason}; what is known here does not suffice, {waits}"))
        with nullcontext() if is_set else session.client.repeating(choice.patience_s):
            return plan()


def plan_and_run(
    pipeline: BoundPipeline,
    session: Session,
    engine: Callable[[], Engine],
    listener: Listener,
    choice: StepChoice = StepChoice(),
    stop: Stop | None = None,
    arrived: Arrived | None = None,
    planned: PipelinePlan | None = None,
) -> RunResult:
    """Plan a pipeline, unless that was done, and execute the steps that are not fresh.

    `engine` is called only if a step has to be executed; `listener` receives every event, and `arrived` each payload
    that this run has delivered.
    """
    planned = planned or plan_for_run(pipeline, session, listener, choice)
    away = planned.index.is_away
    is_over = planned.is_done and not planned.has_new_files
    if not is_over and not away:
        with noting_unstarted(session, pipeline.spec.path, pipeline.name, pipeline.spec.project):
            session.prepare(pipeline.spec.project)
    with _recorded(pipeline, session) as run_id:  # a run that was refused before has not begun
        # A fresh run is over before anybody could ask whether it is under way.
        with nullcontext() if is_over else in_use(runs(session.settings.data) / run_id):
            before = {ingestion.request for ingestion in session.store.ended_ingestions(_MAX_UNREAD)}
            with session.offline() if away else nullcontext():
                registering = partial(StepEvent, "", Outcome.REGISTERING)
                inputs = register_inputs(planned.inputs, session, lambda text: listener(registering(text)))
                run = Run(pipeline, session, run_id, planned, inputs, listener, choice)
                run.adopt()
            if run.has_work or not session.outbox.is_empty:
                from crucible_lineage.pipeline.job.delivering import delivering  # not needed if all is fresh

                with delivering(session, run.note_delivery) as deliverer:
                    run.loop(engine, deliverer, stop or Stop(), arrived)
        result = result_of(run, () if run.stopped else finish(run, before))
        session.journal.end_run(run_id, result.end)
    if choice.is_whole and not result.stopped and (result.ok or not result.is_held):
        _state_end(run, result)
    return result


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


def _not_ingested(run: Run, before: Collection[int]) -> tuple[str, ...]:
    """Follow ingestions, and describe the files that were not ingested, apart from those described `before`."""
    session = run.session
    found = [ingestion for ingestion in session.store.ended_ingestions(_MAX_UNREAD) if ingestion.request not in before]
    if session.store.open_ingestions() and session.outbox.is_empty:
        found += _followed(run)
    return tuple(in_words(ingestion) for ingestion in found if ingestion.status != "complete")


def _followed(run: Run) -> list[Ingestion]:
    """Follow open ingestions. Return those that have ended, and those that are to be waited for, as declared.

    Ingestions of the embedded Crucible get some seconds to end, if the run has requested any.
    """
    session, found = run.session, list[Ingestion]()
    executed = any(state.outcome == Outcome.EXECUTED for state in run.steps.values())
    is_short = session.settings.embedded and (executed or run.planned.has_new_files)
    with suppress(CrucibleError), session.connect(at_most_s=0.0) as client:  # else the next run asks
        found = follow_ingestions(client, session.store, at_most_s=_INGESTED_HERE_S if is_short else 0.0)
    left = session.store.open_ingestions()
    files = (item for items in run.inputs.values() for item in items if item.new and item.new.awaits_ingestion)
    awaited = {item.dataset.mfid for item in files if item.dataset is not None}
    for name, instance in run.instances.items():
        if instance.step.spec.output.awaits_ingestion:
            awaited.update(run.steps[name].mfids)
    return [*found, *(ingestion for ingestion in left if ingestion.mfid in awaited)]


@contextmanager
def noting_unstarted(session: Session, declaration: Path, pipeline: str = "", project: str = "") -> Iterator[None]:
    """Record an error that ends this block as a run that could not start, of the pipeline if its name is known."""
    try:
        yield
    except LineageError as error:
        with nullcontext() if session.settings.embedded else session.client.repeating(0.0):
            with suppress(LineageError):  # the original error says more, or the key's owner is unknown
                name, path = pipeline or declaration.stem, declaration.absolute()
                session.journal.begin_run(run := uuid.uuid4().hex, name, project, path)
                session.journal.end_run(run, "failed", str(error))
            if project and not isinstance(error, TRANSIENT):
                state_run(session, project, pipeline, f"could not start: {error}", {})
        raise


def finish(run: Run, before: Collection[int]) -> tuple[str, ...]:
    """Confirm and certify the results of a run; a step for which that fails ends as failed.

    Return the files that were not ingested, apart from those described `before`.
    """
    with _asking_once(run):
        done = {name for name, state in run.steps.items() if state.results}
        for name, error in run.slot_writer.write(done).items():
            run.steps.end(name, Outcome.FAILED, error)
        if run.planned.index.is_away:
            _confirm_reused(run)
    _confirm(run)
    _certify(run)
    return _not_ingested(run, before)


def _asking_once(run: Run) -> AbstractContextManager[None]:
    """Let each call of a block be made only once, if the service was away when the run was planned."""
    return run.session.client.repeating(0.0) if run.planned.index.is_away else nullcontext()


def _state_end(run: Run, result: RunResult) -> None:
    """State that the run failed and why, or lift what was stated about an earlier one."""
    errors = {step: error for step, error in result.errors.items() if result.outcomes.get(step) == Outcome.FAILED}
    reason = next(iter(errors.values()), "results wait to be delivered") if not result.ok else ""
    with _asking_once(run):
        message = state_run(run.session, result.project, result.pipeline, reason, errors)
    if message:
        run.listener(StepEvent("", Outcome.WAITING, message))


def result_of(run: Run, unread: tuple[str, ...]) -> RunResult:
    """Return the result of the run, in which files were left `unread` by ingestions."""
    items = {name: tuple(item.dataset.mfid for item in found if item.dataset) for name, found in run.inputs.items()}
    steps = run.steps
    notes = {name: [run.slot_writer.notes.get(name, ""), state.note] for name, state in steps.items()}
    own = {mfid for state in steps.values() for mfid in state.mfids}
    waiting = [row for row in run.session.outbox.waiting() if own & set(row.mfids) or row.run == run.run_id]

    def known(field: str) -> dict[str, str]:
        return {name: text for name, state in steps.items() if (text := getattr(state, field))}

    return RunResult(
        run_id=run.run_id,
        pipeline=run.pipeline.name,
        project=run.pipeline.spec.project,
        inputs=items,
        datasets={name: ids_of(state.results) for name, state in steps.items() if state.results},
        outcomes=known("outcome"),
        errors=known("error"),
        logs=known("log"),
        tracebacks=known("trace"),
        notes={name: "; ".join(filter(None, texts)) for name, texts in notes.items() if any(texts)},
        stopped=run.stopped,
        waiting=tuple(waiting),
        delivered=tuple(run.delivered),
        not_ingested=unread,
        stayed=tuple(run.stayed),
        current_again=tuple(run.slot_writer.again),
        undeclared=run.planned.undeclared,
        unseen=run.unseen,
        returned=run.returned,
        input_notes=run.planned.notes,
        held=_held_steps(run),
    )


def _confirm_reused(run: Run) -> None:
    """Look at Crucible for results that were reused while it was away; steps whose results are gone have failed."""
    reused = {name: state.mfids for name, state in run.steps.items() if state.outcome == Outcome.REUSED}
    mfids = [mfid for own in reused.values() for mfid in own]
    now = ProjectIndex(run.session, run.pipeline.spec.project, run.pipeline.name)
    try:
        now.sync()
        now.results.look_up(mfids)
        missing = {mfid for mfid in mfids if now.complete(mfid) is None}
    except TRANSIENT as error:
        run.unseen = str(error).partition("\n")[0]
        return
    for name, own in reused.items():
        if lost := sorted(missing.intersection(own)):
            message = f"{', '.join(lost)} was known here and is no longer at Crucible; run the same command again"
            run.steps.end(name, Outcome.FAILED, message)


def _confirm(run: Run) -> None:
    """Confirm at Crucible all results that this run made or adopted; steps whose results are not there have failed."""
    executed = [name for name, state in run.steps.items() if state.outcome == Outcome.EXECUTED]
    refs = {name: list(run.steps[name].results.values()) for name in executed}
    waiting = {mfid for payload in run.session.outbox.all() for mfid in payload.mfids}
    expected = [ref for results in refs.values() for ref in results if ref.mfid not in waiting]
    if not expected and not run.slot_writer.wrote:
        return
    project, keyword = run.pipeline.spec.project, pipeline_keyword(run.pipeline.name)
    faults, listed = confirmed(run.session.client, project, keyword, run.began, expected)
    run.session.mirror.settle(project, keyword, listed)
    for name in executed:
        reasons = [f"{ref.mfid} {faults[ref.mfid]}" for ref in refs[name] if ref.mfid in faults]
        if reasons:
            message = f"made, and not seen at Crucible: {'; '.join(reasons)}; run the same command again"
            run.steps.end(name, Outcome.FAILED, message)


def _certify(run: Run) -> None:
    """Certify results as declared, once they are at Crucible; a step whose result cannot be certified has failed.

    Those that were certified before are left alone, even if that was lifted since.
    """
    if not any(instance.step.spec.certify for instance in run.instances.values()):
        return
    stated = {
        (statement.body.get("place"), statement.about.datasets)
        for statement in run.session.mirror.statements().values()
    }
    for name, state in run.steps.items():
        declared = run.instances[name].step.spec.certify
        if declared is None or not state.results or state.outcome not in (Outcome.EXECUTED, Outcome.REUSED):
            continue
        if run.slot_writer.waits(state.results.values()) or name in run.slot_writer.unsigned:
            continue  # certified by the run after its delivery or its signature

        mfid = next(iter(state.results.values())).mfid
        if (f"{run.pipeline.name}/{run.instances[name].step.name}", (mfid,)) in stated:
            continue
        try:
            _certify_result(run, run.instances[name], declared, mfid)
        except LineageError as error:
            run.steps.end(name, Outcome.FAILED, f"its result is registered, but not certified: {error}")


def _held_steps(run: Run) -> dict[str, str]:
    """Return the steps that a hold prevents, and those whose results wait for signatures, with reasons."""
    after = run.slot_writer.unsigned  # of results; failed steps have another reason
    failed = {name for name, state in run.steps.items() if state.outcome == Outcome.FAILED}
    held = {**run.held, **{name: reason for name, reason in after.items() if name not in failed}}
    results = {mfid: name for name, state in run.steps.items() if name not in {*held, *failed} for mfid in state.mfids}
    doubts = run.session.effects.doubts(results, run.pipeline.spec.project)
    held |= {results[mfid]: f"{mfid} {doubt.message(mfid)}" for mfid, doubt in doubts.items()}
    for name, state in run.steps.items():  # parents come before their children
        above = [need for need in run.instances[name].needs if need in held and not run.steps[need].results]
        if state.outcome == Outcome.SKIPPED and above:
            held[name] = f"{above[0]}, which it needs, is blocked"
    return held


def _certify_result(run: Run, instance: Instance, declared: Certify, mfid: str) -> None:
    """Certify a result as its step declares.

    Replaces certificates of the same step for the same data and time. Raises InputError if somebody else certified
    another calibration for them, or if the data do not name the instrument or time.
    """
    step, project = f"{run.pipeline.name}/{instance.step.name}", run.pipeline.spec.project
    own = [certificate for certificate in run.session.mirror.certificates(project) if certificate.declared_by == step]
    shared = {}
    for name in declared.of:
        value, fault = shared_value(name, [run.inputs[root][index] for root, index in instance.about])
        if fault:
            raise InputError(f"{name} of the data it is made from: {fault}")
        shared[name] = value
    if declared.role is None:
        since = utc(declared.since)
    else:  # when the first data of the declared role were measured
        data = items_behind((feed for feed in instance.feeds if feed.role == declared.role), run.instances)
        if (span := joint_span(run.inputs[root][index].span for root, index in data)) is None:
            raise InputError(f"the data behind {declared.role} have no time of measurement (timestamp)")
        since, _ = span
    certify(
        run.session,
        mfid,
        shared,
        since.isoformat(),
        declared.until,
        kind=declared.kind or "",
        where=declared.where,
        why=f"as {step} declares",
        project=project,
        declared_by=step,
        replaced=[certificate.statement for certificate in own],
    )
