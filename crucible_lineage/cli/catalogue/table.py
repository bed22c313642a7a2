"""`table`: the results of a step with their ancestors, or a number over the time of measurement."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crucible_lineage.amounts import amount
from crucible_lineage.cli.exit_codes import FAILURE
from crucible_lineage.cli.options import (
    announce,
    chosen_project,
    crucible_options,
    json_option,
    open_session,
    print_json,
    wants_json,
)
from crucible_lineage.cli.printing import CSV, PROJECT, in_columns, not_listed, print_csv
from crucible_lineage.lineage.labels import plain


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
    from crucible_lineage.queries.table import make_table, require_target, write_table

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
