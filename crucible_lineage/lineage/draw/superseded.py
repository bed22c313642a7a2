"""Which results of a lineage are left out of a picture: those that hold no more, and that nothing which holds needs."""

from __future__ import annotations

from collections.abc import Iterable

from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import SUPERSEDED

__all__ = ["dispensable", "left_out_note"]


def dispensable(graph: LineageGraph, asked_for: Iterable[str] = ()) -> frozenset[str]:
    """The superseded results from which nothing comes that holds, or is asked for.

    Who asks for a superseded one sees all that it comes from and all that was made of it.
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
        for parent in graph.parents(waiting.pop()):
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found
