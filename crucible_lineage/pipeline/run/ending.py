"""The end of a run: its results are confirmed at Crucible, certified, published and reported."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime

from crucible_lineage.core.slots import pipeline_keyword
from crucible_lineage.errors import TRANSIENT, CrucibleError, InputError, LineageError
from crucible_lineage.pipeline.inputs.inputs import InputItem, joint_span
from crucible_lineage.pipeline.plan.expand import Instance, distinct_values, items_behind
from crucible_lineage.pipeline.plan.known import ProjectIndex
from crucible_lineage.pipeline.run.loop import Run, ids_of
from crucible_lineage.pipeline.run.result import EXECUTED, FAILED, REUSED, SKIPPED, WAITING, RunResult
from crucible_lineage.pipeline.spec.pipeline import Certify


def finish(run: Run, *, away: bool) -> None:
    """Confirm, certify and publish the results of a run; a step for which that fails ends as failed.

    `away` says that the service was away when the run was planned.
    """
    with run.session.client.repeating(0.0) if away else nullcontext():
        _rely_on_arrived(run)
        if away:
            _confirm_reused(run)
    _confirm(run)
    _record_checks(run)
    _certify(run)
    _publish(run)


def result_of(run: Run, input_notes: tuple[str, ...], unread: tuple[str, ...]) -> RunResult:
    """Return the result of the run."""
    items = {name: tuple(item.dataset.mfid for item in found if item.dataset) for name, found in run.inputs.items()}
    steps = run.steps
    checks = run.checking.messages
    notes = {
        name: [run.slot_writer.notes.get(name, ""), state.note, *checks.get(name, ())] for name, state in steps.items()
    }
    own = {mfid for state in steps.values() for mfid in state.mfids}
    waiting = [one for one in run.session.outbox.waiting() if own & set(one.mfids) or one.run == run.run_id]
    return RunResult(
        run_id=run.run_id,
        pipeline=run.pipeline.name,
        project=run.pipeline.spec.project,
        inputs=items,
        datasets={name: ids_of(s.results) for name, s in steps.items() if s.results is not None},
        outcomes={name: state.outcome for name, state in steps.items() if state.outcome},
        errors={name: state.error for name, state in steps.items() if state.error},
        logs={name: state.log for name, state in steps.items() if state.log},
        tracebacks={name: state.trace for name, state in steps.items() if state.trace},
        notes={name: "; ".join(filter(None, texts)) for name, texts in notes.items() if any(texts)},
        stopped=run.stopped,
        waiting=tuple(waiting),
        delivered=tuple(run.delivered),
        not_ingested=unread,
        stayed=tuple(run.stayed),
        current_again=tuple(run.slot_writer.again),
        undeclared=run.undeclared,
        unseen=run.unseen,
        returned=run.returned,
        input_notes=input_notes,
        held=_held_steps(run),
    )


def to_be_ingested(run: Run) -> set[str]:
    """Return the datasets whose ingestion is to be waited for, as declared."""
    waits = [name for name, one in run.instances.items() if one.step.spec.output.ingestion.wait]
    results = {dataset.mfid for name in waits for dataset in run.steps[name].outputs.values()}
    files = (item for items in run.inputs.values() for item in items if item.new and item.new.ingestion.wait)
    return results | {item.dataset.mfid for item in files if item.dataset is not None}


def _rely_on_arrived(run: Run) -> None:
    """Make results current that had to wait for their delivery or for the service."""
    done = {name for name, state in run.steps.items() if state.results is not None}
    for name, error in run.slot_updates.write_delayed(done).items():
        run.end_step(name, FAILED, run.steps[name].results, error)


def _confirm_reused(run: Run) -> None:
    """Look at Crucible for results that were reused while it was away; steps whose results are gone have failed."""
    reused = {name: state.results for name, state in run.steps.items() if state.outcome == REUSED}
    mfids = [dataset.mfid for results in reused.values() for dataset in (results or {}).values()]
    now = ProjectIndex(run.session, run.pipeline.spec.project, run.pipeline.name)
    try:
        now.sync()
        now.results.look(mfids)
        missing = {mfid for mfid in mfids if now.complete(mfid) is None}
    except TRANSIENT as error:
        run.unseen = str(error).partition("\n")[0]
        return
    for name, results in reused.items():
        if lost := sorted(missing.intersection(ids_of(results or {}).values())):
            message = f"{', '.join(lost)} was known here and is no longer at Crucible; run the same command again"
            run.end_step(name, FAILED, results, message)


def _confirm(run: Run) -> None:
    """Confirm at Crucible all results that this run made or adopted; steps whose results are not there have failed."""
    executed = [name for name, state in run.steps.items() if state.outcome == EXECUTED]
    refs = {name: list(run.steps[name].outputs.values()) for name in executed}
    waiting = {mfid for payload in run.session.outbox.all() for mfid in payload.mfids}
    expected = [ref for results in refs.values() for ref in results if ref.mfid not in waiting]
    if not expected and not run.slot_writer.wrote:
        return
    from crucible_lineage.registration.delivery import confirmed

    project, keyword = run.pipeline.spec.project, pipeline_keyword(run.pipeline.name)
    confirmation = confirmed(run.session.client, project, keyword, run.began, expected)
    run.session.mirror.settle(project, keyword, confirmation.listed)
    faults = confirmation.faults
    for name in executed:
        reasons = [f"{ref.mfid} {faults[ref.mfid]}" for ref in refs[name] if ref.mfid in faults]
        if reasons:
            message = f"made, and not seen at Crucible: {'; '.join(reasons)}; run the same command again"
            run.end_step(name, FAILED, run.steps[name].results, message)


def _record_checks(run: Run) -> None:
    """Register the verdicts of checks; the next run registers those that cannot be registered now."""
    try:
        run.checking.record()
    except CrucibleError as error:
        run.report_once(WAITING, f"verdicts of checks are not recorded; the next run records them: {error}")


def _certify(run: Run) -> None:
    """Certify results as declared, once they are at Crucible; a step whose result cannot be certified has failed."""
    for name, state in run.steps.items():
        declared = run.instances[name].step.spec.certify
        if declared is None or not state.results or run.choice.campaign or state.outcome not in (EXECUTED, REUSED):
            continue
        if run.slot_updates.waits(state.results.values()) or name in run.approving.waiting:
            continue  # certified by the run after its delivery or its signature

        try:
            _certify_result(run, run.instances[name], declared, next(iter(state.results.values())).mfid)
        except LineageError as error:
            run.end_step(name, FAILED, state.results, f"its result is registered, but not certified: {error}")


def _publish(run: Run) -> None:
    """Publish results as declared; a step whose result cannot be published has failed."""
    for name, state in run.steps.items():
        step = run.instances[name].step
        if state.results is None or step.spec.output.publish is None or name not in run.taking_part:
            continue
        if run.choice.campaign or run.slot_updates.waits(state.results.values()):
            continue  # results are published after they are at Crucible
        from crucible_lineage.pipeline.files.fetch import publish  # most pipelines publish nothing

        try:
            for dataset in state.results.values():
                publish(dataset, step.spec.output.publish, run.session)
        except LineageError as error:
            run.end_step(name, FAILED, state.results, f"its result is registered, but not published: {error}")


def _held_steps(run: Run) -> dict[str, str]:
    """Return the steps that a hold prevents, and those whose results a check has put on hold, with reasons."""
    after = {**run.checking.held, **run.approving.waiting}  # of results; failed steps have another reason
    failed = {name for name, state in run.steps.items() if state.outcome == FAILED}
    held = {**run.held, **{name: reason for name, reason in after.items() if name not in failed}}
    for name, state in run.steps.items():  # parents come before their children
        above = [need for need in run.instances[name].needs if need in held and run.steps[need].results is None]
        if state.outcome == SKIPPED and above:
            held[name] = f"{above[0]}, which it needs, is blocked"
    return held


def _certify_result(run: Run, instance: Instance, declared: Certify, mfid: str) -> None:
    """Certify a result as its step declares, unless that was stated before, even if it was revoked since.

    Replaces certificates of the same step for the same data and time. Raises InputError if somebody else certified
    another calibration for them, or if the data do not name the instrument or time.
    """
    from crucible_lineage.certifying import certify  # few steps declare it

    step, project = f"{run.pipeline.name}/{instance.step.name}", run.pipeline.spec.project
    own = [one for one in run.session.mirror.certificates(project) if one.declared_by == step]
    if any(one.dataset == mfid for one in own):
        return
    about = [run.inputs[root][index] for root, index in instance.about]
    certify(
        run.session,
        mfid,
        {name: _shared(name, about) for name in declared.of},
        _since(declared, instance, run).isoformat(),
        declared.until,
        kind=declared.kind or "",
        where=declared.where,
        why=f"as {step} declares",
        project=project,
        declared_by=step,
        replaced=[one.statement for one in own],
    )


def _shared(name: str, about: list[InputItem]) -> str:
    """Return the value of a field that all source data of a result share."""
    values = distinct_values(name, about, {})
    if len(values) != 1 or "" in values:
        differ = f"differ in {name}: {', '.join(sorted(value or 'nothing' for value in values))}"
        raise InputError(f"the data it is made from {differ if len(values) > 1 else f'have no {name}'}")
    return next(iter(values))


def _since(declared: Certify, instance: Instance, run: Run) -> datetime:
    """Return the start of the validity: when the first data of the declared role were measured."""
    if declared.role is None:
        return declared.moment
    data = items_behind((feed for feed in instance.feeds if feed.role == declared.role), run.instances)
    span = joint_span(run.inputs[root][index].span for root, index in data)
    if span is None:
        raise InputError(f"the data behind {declared.role} have no time of measurement (timestamp)")
    return span[0]
