"""What a run leaves in Prefect's interfaces: its lineage as a picture, and a table of its outputs with their names."""

from __future__ import annotations

from collections.abc import Collection

from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger

from crucible_lineage.errors import LineageError
from crucible_lineage.lineage import Edge, LineageGraph, Node
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.queries.graph.fetch import fetch_lineage
from crucible_lineage.session import Session
from crucible_lineage.tasks.artifacts import dataset_page, lineage_artifact

__all__ = ["leave_artifacts"]

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
