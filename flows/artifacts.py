"""What a run leaves in Prefect's interfaces: its lineage as a picture, and a table of its outputs with their names."""

from __future__ import annotations

from prefect.artifacts import create_table_artifact

from crucible_lineage.lineage import Edge, LineageGraph, Node
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.queries.graph.fetch import fetch_lineage
from crucible_lineage.session import Session
from crucible_lineage.tasks.artifacts import lineage_artifact
from crucible_lineage.tasks.pages import dataset_page

__all__ = ["leave_artifacts"]

MOST_LINEAGES = 20  # of a run whose results do not hang together; each is one request


def leave_artifacts(result: RunResult, session: Session) -> None:
    """The run has the artifacts `lineage`, one picture of all that it gave, and `outputs`, a table."""
    graph = _graph(result, session)
    rows = []
    for step, outputs in result.datasets.items():
        for output, mfid in outputs.items():
            node = graph.nodes.get(mfid)
            page = dataset_page(session, mfid, result.project)
            rows.append(
                {
                    "step": step,
                    "outcome": result.outcomes[step],
                    "output": output,
                    "name": node.name if node else "",
                    "state": node.state if node else "",
                    "dataset": mfid,
                    **({"page": page} if page else {}),
                }
            )
    create_table_artifact(table=rows, key="outputs", description=f"Datasets of pipeline {result.pipeline}")
    lineage_artifact(graph, None, session)


def _graph(result: RunResult, session: Session) -> LineageGraph:
    """What the results of the run hang together with; of very many that do not, the last ones."""
    wanted = [mfid for outputs in result.datasets.values() for mfid in outputs.values()]
    nodes: dict[str, Node] = {}
    edges: dict[tuple[str, str], Edge] = {}
    seen: set[str] = set()
    for mfid in reversed(wanted):
        if mfid in nodes or len(seen) == MOST_LINEAGES:
            continue
        seen.add(mfid)
        found = fetch_lineage(session, mfid)
        nodes |= dict(found.nodes)
        edges |= dict(found.edges)
    whole = LineageGraph(list(nodes.values()), list(edges.values()))
    shown = {one for mfid in wanted if mfid in whole for one in ({mfid} | set(whole.ancestors(mfid)))}
    return whole.subgraph(shown)
