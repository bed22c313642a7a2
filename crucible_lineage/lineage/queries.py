"""Questions about how datasets of a lineage hang together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from crucible_lineage.lineage.graph import LineageGraph

__all__ = ["common_ancestors", "nearest_common_ancestors", "paths", "shortest_path", "siblings"]


def paths(graph: LineageGraph, ancestor: str, descendant: str, *, most: int | None = 1000) -> Iterator[tuple[str, ...]]:
    """Every way down from `ancestor` to `descendant`, ends included.

    There can be exponentially many: no more than `most` are given. A node is on a way at most once.
    """
    start, end = graph.node(ancestor).id, graph.node(descendant).id
    if start == end:
        yield (start,)
        return
    between = (graph.descendants(start) & graph.ancestors(end)) | {start, end}
    if end not in graph.descendants(start):
        return
    import networkx  # only who asks for all paths pays for it

    yield from map(tuple, islice(networkx.all_simple_paths(graph.subgraph(between).nx, start, end), most))


def shortest_path(graph: LineageGraph, ancestor: str, descendant: str) -> tuple[str, ...]:
    """The shortest way down from one to the other, ends included; empty if there is none."""
    came_from = {graph.node(ancestor).id: ""}
    end = graph.node(descendant).id
    frontier = [ancestor]
    while frontier and end not in came_from:
        following = []
        for mfid in frontier:
            for child in graph.children(mfid):
                if child not in came_from:
                    came_from[child] = mfid
                    following.append(child)
        frontier = following
    path = [end] if end in came_from else []
    while path and came_from[path[-1]]:
        path.append(came_from[path[-1]])
    return tuple(reversed(path))


def siblings(graph: LineageGraph, mfid: str) -> tuple[str, ...]:
    """The other children of its parents, each once, in the graph's order of links."""
    found = dict.fromkeys(child for parent in graph.parents(mfid) for child in graph.children(parent))
    return tuple(other for other in found if other != mfid)


def common_ancestors(graph: LineageGraph, *mfids: str) -> frozenset[str]:
    """Return the common ancestors; one of the datasets counts if the others come from it.

    InputError for an id that is none.
    """
    if not mfids:
        return frozenset()
    return frozenset.intersection(*(graph.ancestors(mfid) | {mfid} for mfid in mfids))


def nearest_common_ancestors(graph: LineageGraph, *mfids: str) -> frozenset[str]:
    """The common ancestors that no other common ancestor comes from."""
    shared = common_ancestors(graph, *mfids)
    return frozenset(mfid for mfid in shared if not any(child in shared for child in graph.children(mfid)))
