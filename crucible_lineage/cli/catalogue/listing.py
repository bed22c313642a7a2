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
    read_pair,
    wants_json,
)
from crucible_lineage.cli.printing import CSV, PROJECT, not_listed, print_csv, run_lines
from crucible_lineage.cli.runs.waiting import print_set_aside
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.labels import plain

if TYPE_CHECKING:
    from crucible_lineage.queries.catalogue.listing import Listing
    from crucible_lineage.queries.catalogue.runs import ListedRun
    from crucible_lineage.session import Session


@click.command("list")
@crucible_options
@PROJECT
@click.option("--step", metavar="S", help="Only what this step made.")
@click.option("--pipeline", metavar="N", help="Only what this pipeline made.")
@click.option("--run", metavar="ID", help="Only what this run made or used; the beginning of its id is enough.")
@click.option("--measurement", metavar="M", help="Only this measurement.")
@click.option("--keyword", "keywords", multiple=True, metavar="W", help="Only with this keyword; repeatable.")
@click.option("--instrument", metavar="I", help="Only data of the instrument of this name.")
@click.option(
    "--filter", "others", multiple=True, metavar="NAME=VALUE", help="Any filter of Crucible's list; repeatable."
)
@click.option("--current", is_flag=True, help="Only current results; no measured data.")
@click.option(
    "--sort", metavar="FIELD", help="By name, created, state, size or another column; -name: in descending order."
)
@click.option("--all", "every", is_flag=True, help="Include superseded and incomplete datasets, and records of runs.")
@click.option("--doubtful", is_flag=True, help="Include datasets on hold, and their descendants.")
@click.option("--deleted", is_flag=True, help="List deleted datasets and requests for deletion instead.")
@click.option("--refresh", is_flag=True, help="Download the whole project again, not only what changed.")
@CSV
@json_option
def list_command(
    project: str | None,
    step: str | None,
    pipeline: str | None,
    run: str | None,
    measurement: str | None,
    keywords: tuple[str, ...],
    instrument: str | None,
    others: tuple[str, ...],
    current: bool,
    sort: str | None,
    every: bool,
    doubtful: bool,
    deleted: bool,
    refresh: bool,
    as_csv: bool,
) -> None:
    """List measured data, then current results in order of creation.

    With --all also superseded and incomplete ones. A line has the MFID, the state, the name, and the step.
    """
    # Imports pydantic and httpx, which --help does not need.
    from crucible_lineage.queries.catalogue.columns import as_table
    from crucible_lineage.queries.catalogue.listing import list_datasets

    options = {"measurement": measurement, "instrument_name": instrument, "keyword": list(keywords) or None}
    filters = {**_filters(others), **{name: value for name, value in options.items() if value is not None}}
    with open_session() as session:
        if not as_csv:
            announce(session)
        if deleted:
            _list_deleted(session, chosen_project(session, project), as_csv=as_csv)
            return
        found = list_datasets(
            session,
            chosen_project(session, project),
            step=step,
            pipeline=pipeline,
            run=run,
            filters=filters,
            sort=sort,
            results=current,
            every=every,
            doubtful=doubtful,
            refresh=refresh,
        )
    if wants_json():
        print_json(found.to_json())
    elif as_csv:
        print_csv(*as_table(found.entries))
    else:
        click.echo("\n".join(_lines(found)))


def _list_deleted(session: Session, project: str, *, as_csv: bool) -> None:
    from crucible_lineage.queries.deleted import deletions_in

    found = deletions_in(session, project)
    if as_csv and not wants_json():
        names = ("mfid", "name", "state", "time", "reason")
        print_csv(names, [[getattr(one, name) for name in names] for one in found])
        return
    lines = [*(one.text for one in found), f"{amount(len(found), 'dataset')} deleted or to be deleted"]
    print_result({"project": project, "deleted": [one.to_json() for one in found]}, lines)


def _filters(options: tuple[str, ...]) -> dict[str, object]:
    """Return {name: value}, with a list for repeated names. `true` and `false` become booleans."""
    filters: JsonObject = {}
    for text in options:
        expected = "NAME=VALUE, as in --filter data_type=spectrum"
        name, value = read_pair("--filter", text, expected, may_be_empty=True)
        parsed: object = {"true": True, "false": False}.get(value.lower(), value)
        before = filters.get(name)
        filters[name] = parsed if before is None else [*(before if isinstance(before, list) else [before]), parsed]
    return filters


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
