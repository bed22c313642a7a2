"""A run: what is not fresh is made, delivered and published; what became of each step is the result."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial

from crucible_lineage.errors import LineageError, StorageError
from crucible_lineage.local.usage import in_use, runs
from crucible_lineage.pipeline.bind.model import BoundPipeline
from crucible_lineage.pipeline.engines.engine import Engine
from crucible_lineage.pipeline.inputs.inputs import register_inputs
from crucible_lineage.pipeline.plan.plan import BLOCKED, FRESH
from crucible_lineage.pipeline.plan.planner import Planned, plan_pipeline
from crucible_lineage.pipeline.run.choice import Choice
from crucible_lineage.pipeline.run.ingested import MOST_TOLD, not_ingested
from crucible_lineage.pipeline.run.making import Making
from crucible_lineage.pipeline.run.outcomes import ids_of
from crucible_lineage.pipeline.run.result import EXECUTED, FAILED, REGISTERING, Listener, RunResult, StepEvent
from crucible_lineage.pipeline.run.stopping import Stop
from crucible_lineage.registration.made import Made
from crucible_lineage.session import Session

__all__ = ["Choice", "plan_and_run", "run_planned"]


def plan_and_run(
    pipeline: BoundPipeline,
    session: Session,
    engine: Callable[[], Engine],
    listener: Listener,
    choice: Choice = Choice(),
    stop: Stop | None = None,
    arrived: Callable[[Made], None] | None = None,
) -> RunResult:
    """The result of a run. `engine` is called only if something has to be made; `listener` hears of every step, and
    `arrived`, in a thread of its own, of each step's result that is at Crucible from now on.
    """
    choice.steps(pipeline)  # a name that is none is refused before anything is looked up
    planned = plan_pipeline(pipeline, session, choice.forced)
    return run_planned(pipeline, planned, session, engine, listener, choice, stop, arrived)


def run_planned(
    pipeline: BoundPipeline,
    planned: Planned,
    session: Session,
    engine: Callable[[], Engine],
    listener: Listener,
    choice: Choice = Choice(),
    stop: Stop | None = None,
    arrived: Callable[[Made], None] | None = None,
) -> RunResult:
    """The same for a plan that was made already."""
    new = any(item.raw and item.dataset is None for items in planned.inputs.values() for item in items)
    ready: Callable[[], Engine] = partial(_started_ahead, engine, planned, choice.steps(pipeline))
    if not planned.plan.is_fresh or new:
        ready = ready if planned.plan.is_fresh else session.client.ahead(ready)
        session.prepare(pipeline.spec.project, pipeline.spec.project_title)
    with _recorded(pipeline, session) as run_id:  # one that was refused until here has not begun
        # A run that has nothing to do is over before anybody could ask whether it is under way.
        with nullcontext() if planned.plan.is_fresh and not new else in_use(runs(session.settings.data) / run_id):
            before = {one.request for one in session.store.ended_ingestions(MOST_TOLD)}
            inputs = register_inputs(planned.inputs, session, lambda text: listener(StepEvent("", REGISTERING, text)))
            planned.knowledge.begin(_places_to_be_filled(planned))
            making = Making(pipeline, session, run_id, planned, inputs, listener, choice)
            making.adopt(planned.plan)
            if making.waiting or session.outbox.all():
                from crucible_lineage.pipeline.job.desk import delivering  # a run in which all is fresh needs none
                from crucible_lineage.registration.register import nothing

                with delivering(session, making.troubles.hear, arrived or nothing) as deliveries:
                    deliveries.shared = not session.settings.embedded
                    deliveries.others = planned.knowledge.others(deliveries.desk.client)
                    making.make(ready() if making.waiting else None, deliveries, stop or Stop())
        unread: tuple[str, ...] = ()
        if not making.stopped:
            _publish(making)
            asked = new or EXECUTED in making.outcomes.of.values()
            unread = not_ingested(session, before, partial(_to_be_read, making), asked=asked)
        result = _result(making, planned, unread)
        session.store.end_run(run_id, "complete" if result.ok else "stopped" if result.stopped else "failed")
    return result


def _places_to_be_filled(planned: Planned) -> list[str]:
    """Those of the steps that are not fresh."""
    todo = [planned.instances[step.name] for step in planned.plan.steps if step.state not in (FRESH, BLOCKED)]
    return [key for one in todo for keys in one.places.values() for key in keys]


def _started_ahead(engine: Callable[[], Engine], planned: Planned, chosen: Collection[str]) -> Engine:
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
    """The id of a run that the store knows as under way, and as ended if it is left by an error."""
    run_id = uuid.uuid4().hex
    session.store.begin_run(run_id, pipeline.name, pipeline.spec.project, pipeline.spec.path)
    try:
        yield run_id
    except BaseException as error:
        with suppress(StorageError):  # what is raised already tells more
            session.store.end_run(run_id, "failed" if isinstance(error, Exception) else "stopped")
        raise


def _publish(making: Making) -> None:
    """What is there is also where its step says that it is published; a step of which that is not so has failed."""
    for name, outputs in making.outcomes.results.items():
        step = making.instances[name].step
        if step.spec.output.publish is None or step.name not in making.chosen:
            continue
        if making.relying.waits(outputs.values()):
            continue  # it comes after what Crucible has
        from crucible_lineage.pipeline.files.publish import publish  # most pipelines publish nothing

        try:
            for dataset in outputs.values():
                publish(dataset, step.spec.output.publish, making.session)
        except LineageError as error:
            told = f"its result is registered, but not published: {error}"
            making.outcomes.end(name, FAILED, ids_of(outputs), told)


def _to_be_read(making: Making) -> set[str]:
    """The datasets whose ingestion the declaration asks to wait for."""
    waits = {name for name, one in making.instances.items() if one.step.spec.output.ingestion.wait}
    results = {dataset.mfid for name in waits for dataset in making.outcomes.results.get(name, {}).values()}
    files = (item for items in making.inputs.values() for item in items if item.new and item.new.ingestion.wait)
    return results | {item.dataset.mfid for item in files if item.dataset is not None}


def _joined(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """What both note of each instance."""
    return {name: "; ".join(notes[name] for notes in (one, other) if name in notes) for name in (*one, *other)}


def _result(making: Making, planned: Planned, unread: tuple[str, ...]) -> RunResult:
    """What has been done."""
    items = {name: [item.mfid for item in found if item.dataset] for name, found in making.inputs.items()}
    outcomes = making.outcomes
    return RunResult(
        run_id=making.run_id,
        pipeline=making.pipeline.name,
        project=making.pipeline.spec.project,
        inputs={name: tuple(mfid for mfid in mfids if mfid) for name, mfids in items.items()},
        datasets={name: ids_of(outcomes.results[name]) for name in making.instances if name in outcomes.results},
        outcomes={name: outcomes.of[name] for name in making.instances if name in outcomes.of},
        errors=outcomes.errors,
        logs=outcomes.logs,
        tracebacks=outcomes.tracebacks,
        notes=_joined(making.reliance.notes, outcomes.notes),
        stopped=making.stopped,
        waiting=tuple(making.session.outbox.waiting()),
        delivered=making.delivered,
        not_ingested=unread,
        stayed=tuple(making.stayed),
        current_again=tuple(making.reliance.again),
        undeclared=planned.plan.undeclared,
        returned=outcomes.returned,
    )
