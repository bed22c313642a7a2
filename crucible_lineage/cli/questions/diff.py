"""`diff`: the differences between two datasets or two runs, and between their ancestors."""

from __future__ import annotations

from collections.abc import Sequence

import click

from crucible_lineage.cli.options import (
    announced_session,
    crucible_options,
    dataset_id,
    json_option,
    print_result,
)
from crucible_lineage.errors import InputError
from crucible_lineage.queries.catalogue.reference import visible_projects
from crucible_lineage.queries.diff import LineageComparison, compare_datasets, compare_runs
from crucible_lineage.session import Session


@click.command("diff")
@click.argument("old")
@click.argument("new")
@crucible_options
@click.option("--project", "projects", multiple=True, help="Where to look for them; repeatable.")
@json_option
def diff_command(
    old: str,
    new: str,
    projects: tuple[str, ...],
) -> None:
    """Show the differences between the datasets OLD and NEW, including their ancestors: first the values that steps
    returned, then datasets added, removed and changed, each with the parameter, code, input or file that differs.

    OLD and NEW may also be two runs, named by the id, or its beginning, of a run or a Prefect flow run.
    """
    with announced_session() as session:
        found = _compare(session, old, new, projects)
    print_result(found.to_json(), found.lines())


def _compare(session: Session, old: str, new: str, projects: Sequence[str]) -> LineageComparison:
    """Compare two datasets, or two runs if they are not datasets."""
    try:
        datasets = dataset_id(session, old, projects), dataset_id(session, new, projects)
    except InputError as no_dataset:
        try:
            return compare_runs(session, old, new, projects or visible_projects(session))
        except InputError as no_run:
            raise InputError(f"{no_dataset}\n{no_run}") from no_run
    return compare_datasets(session, *datasets)
