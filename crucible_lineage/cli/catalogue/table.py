"""`table`: the results of a step with parameters, returned values and facts of what they come from."""

from __future__ import annotations

from pathlib import Path

import click

from crucible_lineage.amounts import amount
from crucible_lineage.cli.catalogue.printing import CSV, PROJECT, in_columns, print_csv
from crucible_lineage.cli.options import announce, crucible_options, json_option, open_session, print_json

__all__ = ["table_command"]


@click.command("table")
@crucible_options
@PROJECT
@click.option("--step", required=True, metavar="S", help="The step whose results are the rows.")
@click.option("--pipeline", metavar="N", help="Only those that this pipeline made.")
@click.option("--where", metavar="CONDITION", help='As in "params.degree > 2 and results.rms < 0.5".')
@click.option("--field", "fields", multiple=True, metavar="NAME", help="One more column; repeatable.")
@click.option("--by", multiple=True, metavar="NAME", help="A row for each value of this column; repeatable.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it: .csv, .parquet or .json."
)
@click.option("--all", "every", is_flag=True, help="What is superseded or incomplete, too, with its state.")
@click.option("--doubtful", is_flag=True, help="What is on hold, or comes from what is, too, with its state.")
@click.option("--refresh", is_flag=True, help="Download the whole project again, not only what changed.")
@CSV
@json_option
def table_command(
    project: str | None,
    step: str,
    pipeline: str | None,
    where: str | None,
    fields: tuple[str, ...],
    by: tuple[str, ...],
    output: Path | None,
    every: bool,
    doubtful: bool,
    refresh: bool,
    as_csv: bool,
    as_json: bool,
) -> None:
    """A row for each current result of a step: its parameters (params.NAME), what it returned (results.NAME), its
    instrument and sample.

    \b
    --where, --field and --by also know
      name, timestamp, created, measurement, run, who   of the result itself
      metadata.NAME                                     also what its files say
      STEP.results.NAME, ROLE.instrument, ...           the same of an ancestor, by its step or the role it was used in
      raw.metadata.NAME                                 of the measured data that it comes from

    With --by, how many there are, and mean, standard deviation, least and greatest of each number.
    """
    from crucible_lineage.queries.catalogue.reference import find_project
    from crucible_lineage.queries.table.files import require_target, write_table
    from crucible_lineage.queries.table.table import make_table

    if output is not None:
        require_target(output)
    with open_session() as session:
        if not as_csv:
            announce(session)
        found = make_table(
            session,
            find_project(session, project),
            step,
            pipeline=pipeline,
            where=where,
            fields=fields,
            by=by,
            every=every,
            doubtful=doubtful,
            refresh=refresh,
        )
    if output is not None:
        write_table(found, output)
    if as_json:
        print_json(found.to_json())
    elif as_csv:
        print_csv(found.columns, found.rows)
    elif output is not None:
        click.echo(f"{output}: {amount(len(found), 'row')}, {amount(len(found.columns), 'column')}")
    else:
        click.echo("\n".join(in_columns(found.columns, found.rows)))
        told = dict.fromkeys(("candidate", "doubtful"), " (--doubtful)")
        more = ", ".join(f"{count} {state}{told.get(state, '')}" for state, count in sorted(found.others.items()))
        click.echo(f"{len(found)} {'row' if len(found) == 1 else 'rows'}" + (f"; not in it: {more}" if more else ""))
