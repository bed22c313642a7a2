"""Lineage graphs as the service draws them, in node-link form."""

from __future__ import annotations

from typing import Any

from crucible_lineage.client.http.connection import Connection
from crucible_lineage.client.http.wire import quoted, segment
from crucible_lineage.client.official import OfficialNames
from crucible_lineage.errors import ServerError

__all__ = ["GraphCalls"]


class GraphCalls(OfficialNames):
    """`client.graphs`: what descends from what, as node-link JSON; `LineageGraph.from_api` reads it."""

    subject = "graphs"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, mfid: str, recursive: bool = True) -> dict[str, Any]:
        """`nodes` and `edges` around a dataset or sample: all that hangs together, or only the direct neighbours.

        An edge's source is the parent, its target the child.
        """
        what = f"read the graph of {mfid}"
        params = {"recursive": True} if recursive else None
        path = f"/entity_graph_cte/{segment(mfid, 'dataset or sample')}"
        return _node_link(self._connection.get(path, what, mfid=mfid, params=params), what)

    def project(self, project_id: str) -> dict[str, Any]:
        """`nodes` and `edges` of all datasets and samples of a project."""
        what = f"read the graph of project {project_id}"
        return _node_link(self._connection.get(f"/project_graph/{quoted(project_id)}", what), what)


def _node_link(answer: object, what: str) -> dict[str, Any]:
    """The graph with `edges`, which older services call `links`."""
    if not isinstance(answer, dict) or not isinstance(answer.get("nodes"), list):
        raise ServerError(f"could not {what}: Crucible's answer is no graph")
    edges = answer.get("edges", answer.get("links"))
    if not isinstance(edges, list):
        raise ServerError(f"could not {what}: Crucible's answer is a graph without edges")
    return {**answer, "edges": edges}
