"""Reports in Prefect about our runs: final states, artifacts with lineage and outputs, and events about new data."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from functools import wraps
from inspect import get_annotations, signature
from typing import Any, ParamSpec

import httpx
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.events import Event, emit_event, get_events_client
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed, Failed

from crucible_lineage.ask.runs import waiting_lines
from crucible_lineage.errors import LineageError, RunError
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.pipeline.job.job import Outcome
from crucible_lineage.pipeline.plan.bound import BoundPipeline
from crucible_lineage.pipeline.run.result import PASSING, Listener, RunResult, StepEvent
from crucible_lineage.pipeline.watch import DatasetEvent
from crucible_lineage.registration.payload import Payload
from crucible_lineage.session import Session
from crucible_lineage.tasks.artifacts import (
    dataset_page,
    dataset_resource_id,
    lineage_artifact,
    lineage_of,
    markdown_table,
    step_resource,
    tell_made,
)
from crucible_lineage.text.amounts import amount

P = ParamSpec("P")


@task(task_run_name="{step}", persist_result=False, cache_policy=NO_CACHE)
def _show_reused(step: str, number: int) -> State[Any]:  # noqa: ARG001 (the name that Prefect shows)
    """End in Prefect's state for results that were there: one task run for all instances of a step."""
    return Completed(name="Cached", message=f"{amount(number, 'result')} reused")


@contextmanager
def tolerating(what: str) -> Iterator[None]:
    """Warn if Prefect does not store a report: that fails no run, whose results are in Crucible."""
    try:
        yield
    except (httpx.HTTPError, RuntimeError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        get_run_logger().warning("Prefect did not store %s: %s", what, reason)


def _create_artifacts(result: RunResult, session: Session) -> None:
    """Create the artifacts `lineage`, a picture of all delivered results, and `outputs`, a table.

    If Crucible cannot be read, there is a warning and no picture. It is not tried if it was just unreachable.
    """
    waiting = {mfid for delivery in result.waiting for mfid in delivery.mfids}
    graph = LineageGraph([], [])
    if all(delivery.refused for delivery in result.waiting):  # else the service was away
        results = (mfid for outputs in result.datasets.values() for mfid in outputs.values())
        delivered = [mfid for mfid in results if mfid not in waiting]
        try:
            found = lineage_of(delivered, session)  # of very many that are unconnected, of the last ones
        except LineageError as error:
            get_run_logger().warning("the run has no picture of its lineage: %s", error)
        else:
            ancestry = {node for mfid in delivered if mfid in found for node in ({mfid} | set(found.ancestors(mfid)))}
            graph = found.subgraph(ancestry)
    rows = []
    for step, outputs in result.datasets.items():
        for output, mfid in outputs.items():
            node = graph.nodes.get(mfid)
            page = dataset_page(session, mfid, result.project)
            undelivered = session.outbox.find(mfid) if mfid in waiting else None
            rows.append(
                {
                    "step": step,
                    "outcome": result.outcomes[step],
                    "output": output,
                    "name": undelivered.name if undelivered else node.name if node else "",
                    "state": "waits to be delivered" if undelivered else node.state if node else "",
                    "dataset": mfid,
                    **({"page": page} if page else {}),
                }
            )
    create_table_artifact(table=rows, key="outputs", description=f"Datasets of pipeline {result.pipeline}")
    if graph.nodes:
        lineage_artifact(graph, None, session)


def telling_arrived() -> Callable[[Payload], None]:
    """Return a function that emits events, for the calling flow run, for results delivered after their task."""
    context = copy_context()

    def tell(payload: Payload) -> None:
        records = {new.mfid: record for new in payload.datasets if (record := new.record.as_step)}
        outputs = {records[new.mfid].output: new for new in payload.datasets if new.mfid in records}
        for record in list(records.values())[:1]:  # all outputs of a step have these in common
            pipeline, run = record.pipeline.name if record.pipeline else "", record.activity.run
            task_run_id = run.task_run_id if run else None
            tell_made(pipeline, payload.project, payload.step, record.parents, outputs, task_run_id)

    return lambda payload: context.copy().run(tell, payload)


def emit_events(changes: Sequence[DatasetEvent]) -> None:
    """Emit a Prefect event for each change and wait for confirmation. Raises RunError if Prefect is unreachable."""
    if not changes:
        return
    try:
        asyncio.run(_emit([as_event(change) for change in changes]))
    except Exception as error:  # of websockets, of the network, or Prefect's own
        reason = str(error) or type(error).__name__
        count, address = len(changes), PREFECT_API_URL.value()
        raise RunError(f"could not report {count} events to Prefect at {address}: {reason}") from error


def as_event(change: DatasetEvent) -> Event:
    """Return the Prefect event of a change. It has the id of the change, so that repetition is harmless."""
    resource = {
        "prefect.resource.id": dataset_resource_id(change.mfid),
        "prefect.resource.name": change.name,
        **change.attributes,
    }
    return Event.model_validate(
        {"occurred": datetime.now(UTC), "event": change.event, "resource": resource, "id": change.id}
    )


async def _emit(events: Sequence[Event]) -> None:
    # emit_event would pass them to a thread that drops them if the server is unreachable; here each is confirmed.
    async with get_events_client(reconnection_attempts=2, checkpoint_every=1) as client:
        for event in events:
            await client.emit(event)


def failing_with_message(function: Callable[P, State[Any]]) -> Callable[P, State[Any]]:
    """Let the function of a flow end as Failed with the message of one of our errors, without a traceback."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> State[Any]:
        try:
            return function(*args, **kwargs)
        except LineageError as error:
            get_run_logger().error("%s", error)
            return Failed(message=str(error), data=error)

    vars(run)["__signature__"] = signature(function, eval_str=True)  # Prefect evaluates texts where the wrapper is
    run.__annotations__ = get_annotations(function, eval_str=True)
    return run


def state_of(result: RunResult, session: Session, subject: str) -> State[Any]:
    """Show the result of a run in Prefect, and return the state in which its flow run ends.

    The notes on steps are logged, reused steps are shown as cached, and results have artifacts.
    """
    for step, note in result.notes.items():
        get_run_logger().warning("%s: %s", step, note)
    reused = Counter(step.partition("[")[0] for step, outcome in result.outcomes.items() if outcome == Outcome.REUSED)
    for step, number in reused.items():
        _show_reused(step, number)
    if result.datasets:
        with tolerating("the artifacts of the run"):
            _create_artifacts(result, session)
    if result.stopped:
        return Cancelled(message=f"{subject}: the run was stopped")
    if not result.ok:
        unseen = f"existing results were not confirmed by Crucible: {result.unseen}" if result.unseen else ""
        waiting = [delivery for delivery in result.waiting if delivery.step not in result.errors]
        reasons = (*map(result.error_line, result.errors), *map(str.strip, waiting_lines(waiting)), unseen)
        return Failed(message=f"{subject}: {'; '.join(filter(None, reasons))}")
    delivered = f", {len(result.delivered)} earlier ones delivered" if result.delivered else ""
    return Completed(message=f"{subject}: {len(result.executed)} executed{delivered}", data=result.to_json())


ENDINGS = (Outcome.EXECUTED, Outcome.REUSED, Outcome.FAILED, Outcome.STOPPED, Outcome.SKIPPED, Outcome.LEFT_OUT)
REMEDY = "results are kept: retry this run or start another one to continue from there"


@contextmanager
def reporting(pipeline: BoundPipeline, listener: Listener | None = None) -> Iterator[Listener]:
    """Yield a listener for the run in this block that logs how steps end and emits an event for each that fails.

    It also calls `listener`. If the flow run is stopped, its log and the artifact `stopped` list the steps that ended,
    since Prefect's worker gives a cancelled run a message of its own.
    """
    logger, ended = get_run_logger(), dict[str, StepEvent]()

    def listen(event: StepEvent) -> None:
        if event.outcome not in PASSING:
            logger.info("%s: %s %s", event.step or pipeline.name, event.outcome, event.detail)
        if event.outcome == Outcome.FAILED:
            resource = step_resource(pipeline.name, pipeline.spec.project, event.step)
            emit_event("crucible.step.failed", resource=resource, payload={"error": event.detail})
        if event.outcome in ENDINGS:
            ended[event.step] = event
        if listener:
            listener(event)

    try:
        yield listen
    except Exception:
        raise
    except BaseException:  # the end of the process
        counts = Counter(event.outcome for event in ended.values())
        parts = [f"{counts[outcome]} {outcome}" for outcome in ENDINGS if counts[outcome]]
        summary = ", ".join(parts) or "no step was started"
        message = f"pipeline {pipeline.name} was stopped: {summary}; {REMEDY}"
        logger.warning("%s", message)
        rows = [{"step": name, "outcome": event.outcome, "": event.detail} for name, event in ended.items()]
        shown = {"markdown": f"{message}\n\n{markdown_table(rows)}", "description": f"{pipeline.name}: {summary}"}
        with tolerating("what the run made before it was stopped"):
            create_markdown_artifact(key="stopped", **shown, _sync=True)  # type: ignore[call-arg]
        raise
