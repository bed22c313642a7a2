"""What Prefect shows of our runs: the state that one ends with, its lineage and outputs, and events of what is new."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.events import Event, get_events_client
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_API_URL
from prefect.states import Failed

from crucible_lineage.errors import LineageError, RunError
from crucible_lineage.lineage import Edge, LineageGraph, Node
from crucible_lineage.pipeline.run.result import (
    EXECUTED,
    FAILED,
    LEFT_OUT,
    REUSED,
    SKIPPED,
    STOPPED,
    Listener,
    RunResult,
    StepEvent,
)
from crucible_lineage.queries.graph.fetch import fetch_lineage
from crucible_lineage.session import Session
from crucible_lineage.tasks.artifacts import dataset_page, dataset_resource_id, lineage_artifact, markdown_table
from crucible_lineage.watch.changes import DatasetEvent

MOST_LINEAGES = 20  # of a run whose results do not hang together; each is one request


def leave_artifacts(result: RunResult, session: Session) -> None:
    """The run has the artifacts `lineage`, one picture of all that it gave and is at Crucible, and `outputs`, a table.

    Without a picture, and with a warning, where Crucible cannot be asked; it is not where it was away a moment ago.
    """
    waiting = {mfid for one in result.waiting for mfid in one.mfids}
    try:
        graph = LineageGraph([], []) if _is_away(result) else _graph(result, waiting, session)
    except LineageError as error:
        get_run_logger().warning("the run has no picture of its lineage: %s", error)
        graph = LineageGraph([], [])
    rows = []
    for step, outputs in result.datasets.items():
        for output, mfid in outputs.items():
            node = graph.nodes.get(mfid)
            page = dataset_page(session, mfid, result.project)
            made = session.outbox.find(mfid) if mfid in waiting else None
            rows.append(
                {
                    "step": step,
                    "outcome": result.outcomes[step],
                    "output": output,
                    "name": made.name if made else node.name if node else "",
                    "state": "waits to be delivered" if made else node.state if node else "",
                    "dataset": mfid,
                    **({"page": page} if page else {}),
                }
            )
    create_table_artifact(table=rows, key="outputs", description=f"Datasets of pipeline {result.pipeline}")
    if graph.nodes:
        lineage_artifact(graph, None, session)


def _is_away(result: RunResult) -> bool:
    """True if results wait that Crucible has not refused."""
    return any(not one.refused for one in result.waiting)


def _graph(result: RunResult, waiting: Collection[str], session: Session) -> LineageGraph:
    """Return the graph of the run's results; of very many unconnected ones, the last ones."""
    found = (mfid for outputs in result.datasets.values() for mfid in outputs.values())
    wanted = [mfid for mfid in found if mfid not in waiting]
    nodes: dict[str, Node] = {}
    edges: dict[tuple[str, str], Edge] = {}
    seen: set[str] = set()
    for mfid in reversed(wanted):
        if mfid in nodes or len(seen) == MOST_LINEAGES:
            continue
        seen.add(mfid)
        part = fetch_lineage(session, mfid)
        nodes |= dict(part.nodes)
        edges |= dict(part.edges)
    whole = LineageGraph(list(nodes.values()), list(edges.values()))
    shown = {one for mfid in wanted if mfid in whole for one in ({mfid} | set(whole.ancestors(mfid)))}
    return whole.subgraph(shown)


def emit_events(news: Sequence[DatasetEvent]) -> None:
    """Prefect has received an event for each of the news. RunError if it cannot be reached."""
    if not news:
        return
    try:
        asyncio.run(_sent([as_event(one) for one in news]))
    except Exception as error:  # of websockets, of the network, or Prefect's own
        reason = str(error) or type(error).__name__
        raise RunError(f"report {len(news)} events to Prefect at {PREFECT_API_URL.value()}: {reason}") from error


def as_event(news: DatasetEvent) -> Event:
    """The event that tells of it; the same news are the same event, however often they are told."""
    resource = {
        "prefect.resource.id": dataset_resource_id(news.mfid),
        "prefect.resource.name": news.name,
        **news.attributes,
    }
    return Event.model_validate(
        {"occurred": datetime.now(UTC), "event": news.event, "resource": resource, "id": news.id}
    )


async def _sent(events: Sequence[Event]) -> None:
    # emit_event would hand them to a thread that drops them when the server is away; here each is confirmed.
    async with get_events_client(reconnection_attempts=2, checkpoint_every=1) as client:
        for event in events:
            await client.emit(event)


def with_its_error(run: Callable[[], State[Any]]) -> State[Any]:
    """Return the state of `run`, or failed with the message of an error of ours, without our traceback."""
    try:
        return run()
    except LineageError as error:
        get_run_logger().error("%s", error)
        return Failed(message=str(error), data=error)


def reasons_of(result: RunResult) -> str:
    """The errors of its steps, and what is made and not at Crucible."""
    told = [*map(result.error_line, result.errors)]
    unseen = f"what was there was not seen at Crucible: {result.unseen}" if result.unseen else ""
    return "; ".join([*told, *filter(None, [waiting_told(result), unseen])])


def waiting_told(result: RunResult) -> str:
    """Describe the results that wait to be delivered, why, and the way out; empty if only failed steps' do."""
    waiting = [one for one in result.waiting if one.step not in result.errors]
    if not waiting:
        return ""
    number = sum(len(one.mfids) for one in waiting)
    reason = next((f": {one.error.splitlines()[0]}" for one in waiting if one.error), "")
    datasets = "1 dataset is made and waits" if number == 1 else f"{number} datasets are made and wait"
    return f"{datasets} to be delivered{reason} (the next run delivers, as does crucible-lineage push)"


ENDINGS = (EXECUTED, REUSED, FAILED, STOPPED, SKIPPED, LEFT_OUT)
WAY_OUT = "what is made stays: retry this run, or start another one, and it goes on from there"


@contextmanager
def telling_what_was_made(pipeline: str, listener: Listener) -> Iterator[Listener]:
    """A listener for the run in this block, which `listener` hears, too.

    If the flow run is ended meanwhile, its log and its artifact `stopped` say what was made. Prefect's worker gives a
    cancelled run a state with a message of its own.
    """
    ended: dict[str, StepEvent] = {}

    def listen(event: StepEvent) -> None:
        if event.outcome in ENDINGS:
            ended[event.step] = event
        listener(event)

    try:
        yield listen
    except Exception:
        raise
    except BaseException:  # what ends the process
        _tell(pipeline, ended)
        raise


def _tell(pipeline: str, ended: dict[str, StepEvent]) -> None:
    counts = Counter(event.outcome for event in ended.values())
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ENDINGS if counts[outcome]) or "nothing was begun"
    get_run_logger().warning("pipeline %s was stopped: %s; %s", pipeline, told, WAY_OUT)
    rows = [{"step": name, "outcome": event.outcome, "": event.detail} for name, event in ended.items()]
    text = f"pipeline {pipeline} was stopped: {told}; {WAY_OUT}\n\n{markdown_table(rows)}"
    create_markdown_artifact(markdown=text, key="stopped", description=f"{pipeline}: {told}", _sync=True)  # type: ignore[call-arg]
