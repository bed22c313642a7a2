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
from crucible_lineage.queries.catalogue.reference import find_run, visible_projects
from crucible_lineage.queries.catalogue.runs import list_runs
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
    as_json: bool,
) -> None:
    """Show what differs between the datasets OLD and NEW, with all that they come from: first the values that steps
    returned, then datasets added, removed and changed, each with the parameter, code, input or file that differs.

    OLD and NEW may also be two runs: the id, or the beginning of one, of a run or of a Prefect flow run.
    """
    with open_session() as session:
        announce(session)
        found = _compared(session, old, new, projects)
    if as_json:
        print_json(found.to_json())
    else:
        click.echo(str(found))


def _compared(session: Session, old: str, new: str, projects: Sequence[str]) -> LineageComparison:
    """Compare two datasets; or two runs, where neither is a dataset."""
    try:
        datasets = dataset_id(session, old, projects), dataset_id(session, new, projects)
    except InputError as no_dataset:
        return _compared_runs(session, old, new, projects, no_dataset)
    return compare_datasets(session, *datasets)


def _compared_runs(
    session: Session, old: str, new: str, projects: Sequence[str], no_dataset: InputError
) -> LineageComparison:
    looked_in = projects or visible_projects(session)
    known = {run.run_id: run.project for run in list_runs(session, looked_in)}
    try:
        earlier, later = (find_run(run, known) for run in (old, new))
    except InputError as no_run:
        try:  # the id of a Prefect flow run is in the records only
            return compare_runs(session, old, new, looked_in)
        except InputError:
            raise InputError(f"{no_dataset}\n{no_run}") from no_run
    return compare_runs(session, earlier, later, list(dict.fromkeys((known[earlier], known[later]))))
