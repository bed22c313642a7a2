"""The end of a run: what it relied on is seen at Crucible, and its results are certified, published and reported."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from datetime import datetime
from typing import TYPE_CHECKING

from crucible_lineage.amounts import value_text
from crucible_lineage.core.slots import pipeline_keyword
from crucible_lineage.errors import TRANSIENT, CrucibleError, InputError, LineageError
from crucible_lineage.pipeline.inputs.inputs import InputItem, Inputs
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.plan.known import ProjectIndex
from crucible_lineage.pipeline.run.loop import Run, ids_of, mfids_of, state_results
from crucible_lineage.pipeline.run.result import EXECUTED, FAILED, REUSED, SKIPPED, WAITING, RunResult
from crucible_lineage.pipeline.spec.inputs import value_of
from crucible_lineage.pipeline.spec.pipeline import Certify
from crucible_lineage.refs import DatasetRef
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.calibrations import Certificate


def finish(run: Run, *, away: bool) -> None:
    """See, certify and publish what a run has made; what does not succeed ends its step as failed.

    `away` says that the service was away when the run was planned.
    """
    with run.session.client.repeating(0.0) if away else nullcontext():
        _rely_on_arrived(run)
        if away:
            _see_again(run)
    _confirm(run)
    _record_checks(run)
    _certify(run)
    _publish(run)


def result_of(run: Run, unread: tuple[str, ...]) -> RunResult:
    """Return what the run has done."""
    items = {name: [item.mfid for item in found if item.dataset] for name, found in run.inputs.items()}
    steps = run.steps
    checks = run.checking.told
    notes = {
        name: [run.reliance.notes.get(name, ""), state.note, *checks.get(name, ())] for name, state in steps.items()
    }
    own = {mfid for state in steps.values() for mfid in mfids_of(state)}
    waiting = [one for one in run.session.outbox.waiting() if own & set(one.mfids) or one.run == run.run_id]
    return RunResult(
        run_id=run.run_id,
        pipeline=run.pipeline.name,
        project=run.pipeline.spec.project,
        inputs={name: tuple(mfid for mfid in mfids if mfid) for name, mfids in items.items()},
        datasets={name: ids_of(s.results) for name, s in steps.items() if s.results is not None},
        outcomes={name: state.outcome for name, state in steps.items() if state.outcome},
        errors={name: state.error for name, state in steps.items() if state.error},
        logs={name: state.log for name, state in steps.items() if state.log},
        tracebacks={name: state.trace for name, state in steps.items() if state.trace},
        notes={name: "; ".join(filter(None, said)) for name, said in notes.items() if any(said)},
        stopped=run.stopped,
        waiting=tuple(waiting),
        delivered=tuple(run.delivered),
        not_ingested=unread,
        stayed=tuple(run.stayed),
        current_again=tuple(run.reliance.again),
        undeclared=run.undeclared,
        unseen=run.unseen,
        returned=run.returned,
        held=_all_held(run),
        unsigned=tuple(run.approving.unsigned),
    )


def to_be_ingested(run: Run) -> set[str]:
    """The datasets whose ingestion the declaration asks to wait for."""
    waits = [name for name, one in run.instances.items() if one.step.spec.output.ingestion.wait]
    results = {dataset.mfid for name in waits for dataset in state_results(run.steps[name]).values()}
    files = (item for items in run.inputs.values() for item in items if item.new and item.new.ingestion.wait)
    return results | {item.dataset.mfid for item in files if item.dataset is not None}


def _rely_on_arrived(run: Run) -> None:
    """Let what had to wait for its delivery, or for the service, hold now."""
    wanted = {name for name, state in run.steps.items() if state.results is not None}
    for name, error in run.relying.rely_on_arrived(wanted).items():
        run.end_step(name, FAILED, run.steps[name].results, error)


def _see_again(run: Run) -> None:
    """See at Crucible what was taken for there, as the service was away; what is gone since has failed."""
    reused = {name: state.results for name, state in run.steps.items() if state.outcome == REUSED}
    mfids = [dataset.mfid for results in reused.values() for dataset in (results or {}).values()]
    now = ProjectIndex(run.session, run.pipeline.spec.project, run.pipeline.name)
    try:
        now.sync()
        now.look(mfids)
        gone = {mfid for mfid in mfids if now.complete(mfid) is None}
    except TRANSIENT as error:
        run.unseen = str(error).partition("\n")[0]
        return
    for name, results in reused.items():
        if lost := sorted(gone.intersection(ids_of(results or {}).values())):
            message = f"{', '.join(lost)} was known here, and is not at Crucible any more; run the same command again"
            run.end_step(name, FAILED, results, message)


def _confirm(run: Run) -> None:
    """See at Crucible, complete, whatever this run made, adopted or registered; what is not seen has failed."""
    executed = [name for name, state in run.steps.items() if state.outcome == EXECUTED]
    refs = {name: list(state_results(run.steps[name]).values()) for name in executed}
    waiting = {mfid for payload in run.session.outbox.all() for mfid in payload.mfids}
    _see_here(run, waiting)
    wanted = [ref for found in refs.values() for ref in found if ref.mfid not in waiting]
    if not wanted and not run.reliance.wrote:
        return
    from crucible_lineage.registration.delivery import confirmed

    project, keyword = run.pipeline.spec.project, pipeline_keyword(run.pipeline.name)
    seen = confirmed(run.session.client, project, keyword, run.began, wanted)
    run.session.mirror.settle(project, keyword, seen.listed)
    lacking = seen.faults
    for name in executed:
        reasons = [f"{ref.mfid} {lacking[ref.mfid]}" for ref in refs[name] if ref.mfid in lacking]
        if reasons:
            message = f"made, and not seen at Crucible: {'; '.join(reasons)}; run the same command again"
            run.end_step(name, FAILED, run.steps[name].results, message)


def _see_here(run: Run, waiting: Collection[str]) -> None:
    """See all results in the embedded Crucible, of which an older copy may have been put back meanwhile."""
    results = {name: set(mfids_of(state)) for name, state in run.steps.items() if state.outcome in (EXECUTED, REUSED)}
    lost = run.session.mirror.lost_here({mfid for mfids in results.values() for mfid in mfids}.difference(waiting))
    for name, mfids in results.items():
        if gone := ", ".join(sorted(mfids & lost)):
            message = (
                f"{gone} was in the embedded Crucible while this run was under way, and is not any more: an older "
                "copy was put back; run the same command again, which makes what is lost"
            )
            run.end_step(name, FAILED, run.steps[name].results, message)


def _record_checks(run: Run) -> None:
    """Register the verdicts of checks; the next run does what cannot be done now."""
    try:
        run.checking.record()
    except CrucibleError as error:
        run.report_once(WAITING, f"verdicts of checks are not recorded, the next run does: {error}")


def _certify(run: Run) -> None:
    """Certify what steps ask for, once it is at Crucible; a step of which that fails has failed."""
    for name, state in run.steps.items():
        step = run.instances[name].step
        if (
            state.results is None
            or step.spec.certify is None
            or run.choice.campaign
            or state.outcome not in (EXECUTED, REUSED)
        ):
            continue
        if run.relying.waits(state.results.values()) or name in run.approving.waiting:
            continue  # the run after its delivery, or its signature, does

        project = run.pipeline.spec.project
        try:
            dataset = next(iter(state.results.values()))
            certify_result(
                run.session,
                run.pipeline.name,
                project,
                run.instances[name],
                run.instances,
                run.inputs,
                dataset,
            )
        except LineageError as error:
            run.end_step(name, FAILED, state.results, f"its result is registered, but not certified: {error}")


def _publish(run: Run) -> None:
    """Copy results to where their steps say that they are published; a step of which that fails has failed."""
    for name, state in run.steps.items():
        step = run.instances[name].step
        if state.results is None or step.spec.output.publish is None or name not in run.taking_part:
            continue
        if run.choice.campaign or run.relying.waits(state.results.values()):
            continue  # it comes after what Crucible has
        from crucible_lineage.pipeline.files.fetch import publish  # most pipelines publish nothing

        try:
            for dataset in state.results.values():
                publish(dataset, step.spec.output.publish, run.session)
        except LineageError as error:
            run.end_step(name, FAILED, state.results, f"its result is registered, but not published: {error}")


def _all_held(run: Run) -> dict[str, str]:
    """The steps that are not made since something is on hold, and those whose results a check has put on hold."""
    after = {**run.checking.held, **run.approving.waiting}  # of what is made; one that failed did for another reason
    failed = {name for name, state in run.steps.items() if state.outcome == FAILED}
    found = {**run.held, **{name: told for name, told in after.items() if name not in failed}}
    for name, state in run.steps.items():  # parents come before their children
        above = [need for need in run.instances[name].needs if need in found and run.steps[need].results is None]
        if state.outcome == SKIPPED and above:
            found[name] = f"{above[0]}, which it needs, is blocked"
    return found


def certify_result(
    session: Session,
    pipeline: str,
    project: str,
    instance: Instance,
    instances: Mapping[str, Instance],
    inputs: Inputs,
    dataset: DatasetRef,
) -> None:
    """Certify a result as its step asks for, unless that was stated before: what was taken back since stays so.

    What the same step certified for the same data and time is replaced. Raises InputError if somebody else certified
    another calibration for them, or if the data do not say which instrument or time.
    """
    from crucible_lineage.certifying import certify  # few steps ask for it

    wanted = instance.step.spec.certify
    assert wanted is not None
    step = f"{pipeline}/{instance.step.name}"
    known = session.mirror.certificates(project)
    if any(one.dataset == dataset.mfid and one.declared_by == step for one in known):
        return
    about = [inputs[root][index] for root, index in instance.about]
    certify(
        session,
        dataset.mfid,
        {name: _shared(name, about) for name in wanted.of},
        _since(wanted, instance, instances, inputs).isoformat(),
        wanted.until,
        kind=wanted.kind or "",
        where=wanted.where,
        why=f"as {step} declares",
        project=project,
        declared_by=step,
        replaced=_own(known, step),
    )


def _own(known: list[Certificate], step: str) -> list[str]:
    return [one.statement for one in known if one.declared_by == step]


def _shared(name: str, about: list[InputItem]) -> str:
    """Return the value of a field that all data have which a result is about."""
    found = {value_text(value) for item in about if (value := value_of(item.fields, name)) not in (None, "")}
    if len(found) != 1:
        told = f"differ in {name}: {', '.join(sorted(found))}" if found else f"have no {name}"
        raise InputError(f"the data it is made from {told}")
    return found.pop()


def _since(wanted: Certify, instance: Instance, instances: Mapping[str, Instance], inputs: Inputs) -> datetime:
    """Return when the first data of the role were measured that the validity begins with."""
    if wanted.role is None:
        return wanted.moment
    places: list[tuple[str, int]] = []
    for feed in instance.feeds:
        if feed.role == wanted.role and feed.instance is not None:
            places += instances[feed.instance].about
        elif feed.role == wanted.role and feed.input is not None:
            places.append((feed.input, feed.index))
    spans = [inputs[root][index].span for root, index in places]
    dated = [span[0] for span in spans if span]
    if not dated or len(dated) < len(spans):
        raise InputError(f"the data behind {wanted.role} have no time of measurement (timestamp)")
    return min(dated)
