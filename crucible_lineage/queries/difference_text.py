"""A difference between two lineages in lines for people: returned values first, then what made them differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import groupby

from crucible_lineage.lineage import Change, Difference, Edge, LineageGraph, Node
from crucible_lineage.lineage.labels import detail, nodes_text, plain, short_id, title

__all__ = ["difference_lines"]

MOST_VALUE = 60  # characters of a value that a step returned


def difference_lines(old: LineageGraph, new: LineageGraph, difference: Difference) -> Iterator[str]:
    """Yield the differences between two lineages, a line each."""
    for (before, after), results in _by_dataset(difference.results):
        yield f"results   {_changed(old, new, before, after)}"
        yield from (f"  {_result(change)}" for change in results)
    yield from (f"removed   {_described(node)}" for node in difference.removed)
    yield from (f"added     {_described(node)}" for node in difference.added)
    for (before, after), changes in _by_dataset(difference.changed):
        yield f"changed   {_changed(old, new, before, after)}"
        yield from (f"  {_change(old, new, change)}" for change in changes)
    yield from (f"unlinked  {_link(old, edge)}" for edge in difference.removed_edges)
    yield from (f"linked    {_link(new, edge)}" for edge in difference.added_edges)
    if not difference:
        yield f"no difference, in {nodes_text(len(old))}"


def _by_dataset(changes: Iterable[Change]) -> Iterator[tuple[tuple[str, str], list[Change]]]:
    for ends, group in groupby(changes, key=lambda change: (change.old_id, change.new_id)):
        yield ends, list(group)


def _changed(old: LineageGraph, new: LineageGraph, before: str, after: str) -> str:
    if before == after:
        return plain(new.label(after))
    return f"{plain(old.label(before))} -> {plain(new.label(after))}"


def _change(old: LineageGraph, new: LineageGraph, change: Change) -> str:
    values = (change.old, change.new)
    if change.field.startswith("inputs."):
        before, after = (", ".join(_label(old, new, mfid) for mfid in value or ()) for value in values)
    else:
        before, after = map(_value, values)
    return plain(f"{change.field}: {before or 'nothing'} -> {after or 'nothing'}")


def _result(change: Change) -> str:
    by = "" if change.by is None else f" ({change.by:+.6g})"
    return plain(f"{change.field}: {_shown(change.old)} -> {_shown(change.new)}{by}")


def _shown(value: object) -> str:
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    said = "nothing" if value is None else said
    return said if len(said) <= MOST_VALUE else f"{said[:MOST_VALUE]}…"


def _label(old: LineageGraph, new: LineageGraph, mfid: str) -> str:
    # The inputs of the old lineage are told by their successors, which only the new one has.
    return (new if mfid in new else old).label(mfid)


def _value(value: object) -> str:
    if value in (None, ""):
        return ""
    text = value if isinstance(value, str) else repr(value)
    return f"{text[:12]}…" if len(text) == 64 and text.isalnum() else text


def _described(node: Node) -> str:
    mfid = "" if node.kind == "hidden" else short_id(node.id)
    return "  ".join(filter(None, (title(node), mfid, detail(node))))


def _link(graph: LineageGraph, edge: Edge) -> str:
    ends = f"{graph.label(edge.source)} -> {graph.label(edge.target)}"
    return plain(f"{ends}  {edge.relationship or 'untyped link'}")
