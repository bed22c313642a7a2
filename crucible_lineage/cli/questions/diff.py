"""`diff`: what differs between two datasets, or two runs, and between all that they come from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import click

from crucible_lineage.cli.options import (
    announce,
    crucible_options,
    dataset_id,
    json_option,
    open_session,
    print_json,
)
from crucible_lineage.errors import InputError
from crucible_lineage.lineage import Change, Difference, Edge, LineageGraph, Node
from crucible_lineage.lineage.labels import detail, plain, short_id, title
from crucible_lineage.queries.diff import Compared, compare_datasets, compare_runs
from crucible_lineage.session import Session

__all__ = ["diff_command", "print_difference"]

MOST_VALUE = 60  # characters of a value that a step returned


@click.command("diff")
@click.argument("old")
@click.argument("new")
@crucible_options
@click.option("--project", "projects", multiple=True, help="For runs: the project that they wrote to.")
@json_option
def diff_command(
    old: str,
    new: str,
    projects: tuple[str, ...],
    as_json: bool,
) -> None:
    """What differs between the datasets OLD and NEW, with all that they come from: first the values that steps
    returned, then datasets added, removed and changed, each with the parameter, code, input or file that is another
    one.

    OLD and NEW may also be the ids of two runs (of crucible-lineage, or of Prefect flow runs), with --project.
    """
    with open_session() as session:
        announce(session)
        datasets = _datasets(session, old, new, projects)
        found = compare_datasets(session, *datasets) if datasets else compare_runs(session, old, new, projects)
    print_difference(found, as_json=as_json)


def _datasets(session: Session, old: str, new: str, projects: Sequence[str]) -> tuple[str, str] | None:
    """The ids of the two datasets that are meant; None where there are none such, and runs may be meant."""
    try:
        return dataset_id(session, old, projects), dataset_id(session, new, projects)
    except InputError as error:
        if projects:
            return None
        raise InputError(f"{error}; if these are the ids of two runs: `runs diff`, or give --project too") from error


def print_difference(found: Compared, *, as_json: bool) -> None:
    """What differs, for people or as JSON."""
    if as_json:
        print_json(_json(found.difference))
        return
    for line in _report(found):
        click.echo(line)


def _report(found: Compared) -> Iterator[str]:
    difference = found.difference
    for (before, after), results in _by_dataset(difference.results):
        yield f"results   {_changed(found, before, after)}"
        yield from (f"  {_result(change)}" for change in results)
    yield from (f"removed   {_described(node)}" for node in difference.removed)
    yield from (f"added     {_described(node)}" for node in difference.added)
    for (before, after), changes in _by_dataset(difference.changed):
        yield f"changed   {_changed(found, before, after)}"
        yield from (f"  {_change(found, change)}" for change in changes)
    yield from (f"unlinked  {_link(found.old, edge)}" for edge in difference.removed_edges)
    yield from (f"linked    {_link(found.new, edge)}" for edge in difference.added_edges)
    if not difference:
        yield f"no difference, in {len(found.old)} datasets and samples"


def _by_dataset(changes: Iterable[Change]) -> Iterator[tuple[tuple[str, str], list[Change]]]:
    for ends, group in groupby(changes, key=lambda change: (change.old_id, change.new_id)):
        yield ends, list(group)


def _changed(found: Compared, before: str, after: str) -> str:
    if before == after:
        return plain(found.new.label(after))
    return f"{plain(found.old.label(before))} -> {plain(found.new.label(after))}"


def _change(found: Compared, change: Change) -> str:
    values = (change.old, change.new)
    if change.field.startswith("inputs."):
        old, new = (", ".join(_label(found, mfid) for mfid in value or ()) for value in values)
    else:
        old, new = map(_value, values)
    return plain(f"{change.field}: {old or 'nothing'} -> {new or 'nothing'}")


def _result(change: Change) -> str:
    by = "" if change.by is None else f" ({change.by:+.6g})"
    return plain(f"{change.field}: {_shown(change.old)} -> {_shown(change.new)}{by}")


def _shown(value: object) -> str:
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    said = "nothing" if value is None else said
    return said if len(said) <= MOST_VALUE else f"{said[:MOST_VALUE]}…"


def _label(found: Compared, mfid: str) -> str:
    # The inputs of the old lineage are told by their successors, which only the new one has.
    return (found.new if mfid in found.new else found.old).label(mfid)


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


def _json(difference: Difference) -> dict[str, object]:
    return {
        "same": not difference,
        "results": [
            {"old_mfid": c.old_id, "new_mfid": c.new_id, "name": c.field, "old": c.old, "new": c.new, "change": c.by}
            for c in difference.results
        ],
        "added": [_node_json(node) for node in difference.added],
        "removed": [_node_json(node) for node in difference.removed],
        "changed": [
            {"old_mfid": c.old_id, "new_mfid": c.new_id, "field": c.field, "old": c.old, "new": c.new}
            for c in difference.changed
        ],
        "added_links": [_edge_json(edge) for edge in difference.added_edges],
        "removed_links": [_edge_json(edge) for edge in difference.removed_edges],
    }


def _node_json(node: Node) -> dict[str, object]:
    return {"mfid": node.id, "kind": node.kind, "name": node.name, "step": node.step}


def _edge_json(edge: Edge) -> dict[str, object]:
    return {"source": edge.source, "target": edge.target, "relationship_type": edge.relationship}
