"""`list`: the datasets of a project; `table`: the results of a step; `runs`: the runs of pipelines."""

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
from crucible_lineage.cli.waiting import print_set_aside
from crucible_lineage.lineage.labels import plain

if TYPE_CHECKING:
    from crucible_lineage.ask.listing import Listing
    from crucible_lineage.ask.runs import ListedRun
import sys
from pathlib import Path

from crucible_lineage.cli.exit_codes import FAILURE
from crucible_lineage.cli.printing import in_columns


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
    from crucible_lineage.ask.columns import as_table
    from crucible_lineage.ask.listing import list_datasets

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
    from crucible_lineage.ask.columns import Surface, columns_at

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
    from crucible_lineage.ask.runs import list_runs

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


@click.command("table")
@crucible_options
@PROJECT
@click.option("--step", required=True, metavar="S", help="The step whose results are the rows.")
@click.option("--pipeline", metavar="N", help="Only results of this pipeline.")
@click.option("--where", metavar="CONDITION", help='As in "params.degree > 2 and results.rms < 0.5".')
@click.option("--field", "fields", multiple=True, metavar="NAME", help="One more column; repeatable.")
@click.option("--by", multiple=True, metavar="NAME", help="A row for each value of this column; repeatable.")
@click.option("--over-time", metavar="NAME", help="This number over the time of measurement, with robust limits.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the table: .csv, .parquet or .json; with --over-time also a picture: .svg.",
)
@click.option("--all", "every", is_flag=True, help="Include superseded, incomplete and doubtful results.")
@CSV
@json_option
def table_command(
    project: str | None,
    step: str,
    pipeline: str | None,
    where: str | None,
    fields: tuple[str, ...],
    by: tuple[str, ...],
    over_time: str | None,
    output: Path | None,
    every: bool,
    as_csv: bool,
) -> None:
    """Print a row for each current result of a step: its parameters (params.NAME), returned values (results.NAME),
    instrument and sample.

    \b
    --where, --field and --by also accept
      name, timestamp, created, measurement, run, who   of the result itself
      metadata.NAME                                     including metadata from its files
      STEP.results.NAME, ROLE.instrument, ...           of an ancestor, by its step or the role it was used in
      raw.metadata.NAME                                 of the measured data that it comes from

    With --by, print the count, and mean, standard deviation, minimum and maximum of each number.

    With --over-time, --by gives a series for each value. Limits are the median, and three times the scaled median
    absolute deviation. Exit code 1 if the last value of a series is outside its limits.
    """
    from crucible_lineage.ask.table import make_table, require_target, write_table

    if output is not None:
        require_target(output, is_picture=over_time is not None)
    with open_session() as session:
        if not as_csv:
            announce(session)
        found = make_table(
            session,
            chosen_project(session, project),
            step,
            pipeline=pipeline,
            where=where,
            fields=fields,
            by=by,
            over_time=over_time,
            every=every,
        )
    if output is not None:
        write_table(found, output)
    if wants_json():
        print_json(found.to_json())
    elif as_csv:
        print_csv(found.columns, found.rows)
    elif output is not None:
        click.echo(f"{output}: {amount(len(found), 'row')}, {amount(len(found.columns), 'column')}")
    else:
        click.echo("\n".join(in_columns(found.columns, found.rows)))
        click.echo(amount(len(found), "row") + not_listed(found.others))
    if not (wants_json() or as_csv):
        for line in (line for series in found.series for line in series.lines()):
            click.echo(plain(line))
    if any(series.alarm for series in found.series):
        sys.exit(FAILURE)
