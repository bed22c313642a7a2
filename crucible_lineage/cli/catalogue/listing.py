"""`list`: the datasets of a project; `runs`: the runs of pipelines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from crucible_lineage.amounts import amount
from crucible_lineage.cli.options import (
    announce,
    announced_session,
    chosen_project,
    crucible_options,
    json_option,
    next_command,
    open_session,
    print_json,
    print_result,
    wants_json,
)
from crucible_lineage.cli.printing import CSV, PROJECT, not_listed, print_csv, run_lines
from crucible_lineage.cli.runs.waiting import print_set_aside
from crucible_lineage.lineage.labels import plain

if TYPE_CHECKING:
    from crucible_lineage.queries.catalogue.listing import Listing
    from crucible_lineage.queries.catalogue.runs import ListedRun


@click.command("list")
@crucible_options
@PROJECT
@click.option("--step", metavar="S", help="Only what this step made.")
@click.option("--pipeline", metavar="N", help="Only what this pipeline made.")
@click.option("--run", metavar="ID", help="Only what this run made or used; the beginning of its id is enough.")
@click.option("--where", metavar="CONDITION", help="""As in "measurement == 'Raman' and results.rms < 0.5".""")
@click.option(
    "--sort", metavar="FIELD", help="By name, created, state, size or another column; -name: in descending order."
)
@click.option("--all", "every", is_flag=True, help="Include superseded, incomplete and doubtful datasets.")
@CSV
@json_option
def list_command(
    project: str | None,
    step: str | None,
    pipeline: str | None,
    run: str | None,
    where: str | None,
    sort: str | None,
    every: bool,
    as_csv: bool,
) -> None:
    """List measured data, then current results in order of creation, each with its MFID, state, name and step.

    Columns for --where and --sort are state, step, pipeline, measurement, instrument, taken, size, results.NAME, ...
    """
    # Imports pydantic and httpx, which --help does not need.
    from crucible_lineage.queries.catalogue.columns import as_table
    from crucible_lineage.queries.catalogue.listing import list_datasets

    with open_session() as session:
        if not as_csv:
            announce(session)
        found = list_datasets(
            session,
            chosen_project(session, project),
            step=step,
            pipeline=pipeline,
            run=run,
            where=where,
            sort=sort,
            every=every,
        )
    if wants_json():
        print_json(found.to_json())
    elif as_csv:
        print_csv(*as_table(found.entries))
    else:
        click.echo("\n".join(_lines(found)))


def _lines(found: Listing) -> Iterator[str]:
    from crucible_lineage.queries.catalogue.columns import Surface, columns_at

    widest = max((len(entry.state) for entry in found.entries), default=0)
    others = [column for column in columns_at(Surface.TERMINAL) if column.name not in ("mfid", "state")]
    for entry in found.entries:
        described = "  ".join(filter(None, (column.text(entry) for column in others)))
        yield f"{entry.mfid}  {entry.state:{widest}}  {plain(described)}"
    yield amount(len(found.entries), "dataset") + not_listed(found.others)


@click.command("runs")
@crucible_options
@click.option("--project", "projects", multiple=True, metavar="P", help="Only this project; repeatable.")
@click.option("--pipeline", metavar="N", help="Only this pipeline.")
@click.option("-n", "--number", type=click.IntRange(1), default=20, show_default=True, help="How many to list.")
@json_option
def runs_command(projects: tuple[str, ...], pipeline: str | None, number: int) -> None:
    """List the runs of pipelines, newest first: those from this data folder, and all with results in a project.

    For runs from here, the list also says how they ended. `list --run ID` shows what a run made or used.
    """
    from crucible_lineage.queries.catalogue.runs import list_runs

    with announced_session() as session:
        found = list_runs(session, projects or None, pipeline=pipeline, limit=number)
        damaged = session.outbox.set_aside()
    lines = list(run_lines(found)) if found else ["no runs"]
    if pair := _comparable(found):
        lines.append(f"to compare two: {next_command('diff', *pair)}")
    document = {"runs": [run.to_json() for run in found], "damaged": [one.to_json() for one in damaged]}
    print_result(document, lines)
    if not wants_json():
        print_set_aside(damaged)


def _comparable(runs: Sequence[ListedRun]) -> tuple[str, str] | None:
    """Return the two newest runs of one pipeline, the older one first; None if no pipeline has two."""
    newer: dict[tuple[str, str], str] = {}
    for run in runs:
        if (later := newer.setdefault((run.project, run.pipeline), run.run_id)) != run.run_id:
            return run.run_id, later
    return None
