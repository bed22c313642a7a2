"""Which results of a lineage a picture leaves out: those that are superseded, and that no current result needs."""

from __future__ import annotations

from collections.abc import Iterable

from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import SUPERSEDED
from crucible_lineage.lineage.records import equal_parents, parents_as_used

__all__ = ["dispensable", "left_out_note"]


def dispensable(graph: LineageGraph, asked_for: Iterable[str] = ()) -> frozenset[str]:
    """Return the superseded results from which nothing comes that holds, or is asked for.

    A parent whose place another one with equal bytes has taken is not needed. A superseded one that is asked for is
    shown with all that it comes from and all that was made of it.
    """
    superseded = {mfid for mfid, node in graph.nodes.items() if node.state == SUPERSEDED}
    needed = _with_ancestors(graph, graph.nodes.keys() - superseded)
    for mfid in superseded.intersection(asked_for):
        needed |= {mfid, *graph.ancestors(mfid), *graph.descendants(mfid)}
    return frozenset(superseded - needed)


def left_out_note(count: int) -> str:
    """Return the note on those that a picture leaves out; empty if there are none."""
    return f"{count} superseded {'result' if count == 1 else 'results'} not shown" if count else ""


def _with_ancestors(graph: LineageGraph, mfids: Iterable[str]) -> set[str]:
    found = set(mfids)
    waiting = list(found)
    while waiting:
        child = waiting.pop()
        stood_for = _stood_for(graph, child)
        for parent in graph.parents(child):
            if parent not in found and parent not in stood_for:
                found.add(parent)
                waiting.append(parent)
    return found


def _stood_for(graph: LineageGraph, child: str) -> set[str]:
    """Return the superseded parents for which another parent stands that is not superseded."""
    record = graph.nodes[child].record
    if not equal_parents(record):
        return set()
    alike = ({was, *others} for was, others in parents_as_used(record, graph.parents(child)).items())
    old = [(mfids, {mfid for mfid in mfids if graph.nodes[mfid].state == SUPERSEDED}) for mfids in alike]
    return {mfid for mfids, superseded in old if superseded < mfids for mfid in superseded}
