"""`runs`: the runs of pipelines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from crucible_lineage.amounts import time_text
from crucible_lineage.cli.catalogue.printing import in_columns
from crucible_lineage.cli.options import announce, crucible_options, json_option, next_command, open_session, print_json
from crucible_lineage.cli.runs.waiting import print_set_aside
from crucible_lineage.times import utc

if TYPE_CHECKING:
    from crucible_lineage.queries.catalogue.runs import ListedRun

__all__ = ["runs_command"]


@click.command("runs")
@crucible_options
@click.option("--project", "projects", multiple=True, metavar="P", help="Of this project only; repeatable.")
@click.option("--pipeline", metavar="N", help="Of this pipeline only.")
@click.option("-n", "--number", type=click.IntRange(1), default=20, show_default=True, help="How many to list.")
@json_option
def runs_command(projects: tuple[str, ...], pipeline: str | None, number: int, as_json: bool) -> None:
    """List the runs of pipelines, newest first: those from this data folder, and all whose results a project holds.

    A run from here says how it ended, too. `list --run ID` has what a run made or relied on.
    """
    from crucible_lineage.queries.catalogue.reference import visible_projects
    from crucible_lineage.queries.catalogue.runs import list_runs

    with open_session() as session:
        announce(session)
        found = list_runs(session, projects or visible_projects(session), pipeline=pipeline, limit=number)
        damaged = session.outbox.set_aside()
    if as_json:
        print_json({"runs": [run.to_json() for run in found], "damaged": [one.to_json() for one in damaged]})
        return
    click.echo("\n".join(_listed(found)) if found else "no run is known")
    print_set_aside(damaged)


def _listed(found: Sequence[ListedRun]) -> Iterator[str]:
    rows = []
    for run in found:
        took = time_text((utc(run.ended) - utc(run.started)).total_seconds()) if run.ended else ""
        steps = ", ".join(f"{count} {outcome}" for outcome, count in (run.steps or {}).items())
        rows.append(
            (
                run.run_id,
                run.started[:19].replace("T", " "),
                run.pipeline,
                run.project,
                run.state or "",
                took,
                run.who or "",
                steps or f"{len(run.made)} made",
            )
        )
    yield from in_columns(("RUN", "STARTED (UTC)", "PIPELINE", "PROJECT", "STATE", "TOOK", "BY", "STEPS"), rows)
    if len(found) > 1:
        yield f"compare two: {next_command('diff', found[1].run_id, found[0].run_id)}"
