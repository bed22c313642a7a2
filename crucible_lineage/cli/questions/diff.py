"""`diff`: what differs between two datasets, or two runs, and between all that they come from."""

from __future__ import annotations

from collections.abc import Sequence

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
from crucible_lineage.lineage import Difference, Edge, Node
from crucible_lineage.queries.diff import Compared, compare_datasets, compare_runs
from crucible_lineage.session import Session

__all__ = ["diff_command", "print_difference"]


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
    """Show what differs between the datasets OLD and NEW, with all that they come from: first the values that steps
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
    """Print a difference, for people or as JSON."""
    if as_json:
        print_json(_json(found.difference))
        return
    click.echo(str(found))


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
