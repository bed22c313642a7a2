"""`status`: what ran from this data folder, what failed, and what is parked because it failed too often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from crucible_lineage.cli.options import (
    crucible_options,
    json_option,
    next_command,
    open_session,
    print_json,
    reports_errors,
)
from crucible_lineage.errors import InputError
from crucible_lineage.watch.state import Failure, Logbook

__all__ = ["status_command"]


@click.command("status")
@crucible_options
@click.option("--project", help="Of this project only.")
@click.option("--runs", default=10, show_default=True, type=click.IntRange(0), help="How many runs to list.")
@click.option(
    "--unpark", metavar="MFID", help="Let this be tried again: a parked result, or all that is about this dataset."
)
@json_option
@reports_errors
def status_command(
    data: Path | None,
    url: str | None,
    api_key: str | None,
    project: str | None,
    runs: int,
    unpark: str | None,
    as_json: bool,
) -> None:
    """List the last runs from this data folder, the pipelines that ran, and the results that could not be made.

    A parked result failed so often that process-new leaves it alone, until its code, parameters or inputs change.
    """
    with open_session(data, url, api_key) as session:
        where = session.settings.describe()
        logbook = Logbook.of(session)
        if unpark is not None:
            _unpark(logbook, unpark)
        recent = session.store.recent_runs(project, runs)
        pipelines = session.store.pipelines(project)
        failures = list(logbook.failures(project).values())
    if as_json:
        print_json({"runs": recent, "pipelines": pipelines, "failures": [one.to_json() for one in failures]})
        return
    click.echo(where)
    _print_runs(recent)
    _print_pipelines(pipelines)
    _print_failures(failures)


def _unpark(logbook: Logbook, mfid: str) -> None:
    if not logbook.clear(mfid):
        raise InputError(
            f"nothing that failed has the id {mfid} or is about that dataset; `status` lists what there is"
        )
    click.echo(f"{mfid}: tried again at the next run", err=True)


def _print_runs(runs: Sequence[Mapping[str, Any]]) -> None:
    click.echo("runs:" if runs else "nothing ran from this data folder yet")
    for run in runs:
        steps = ", ".join(f"{number} {outcome}" for outcome, number in run["steps"].items()) or "no steps"
        outcome = run["outcome"] or "under way, or cut short"
        click.echo(f"  {run['started'][:19]}  {run['pipeline']} ({run['project']}): {outcome}; {steps}")


def _print_pipelines(pipelines: Sequence[Mapping[str, Any]]) -> None:
    if pipelines:
        click.echo("pipelines:")
    for pipeline in pipelines:
        click.echo(f"  {pipeline['pipeline']} ({pipeline['project']}): {pipeline['declaration']}")


def _print_failures(failures: Sequence[Failure]) -> None:
    parked = [failure for failure in failures if failure.parked]
    failing = [failure for failure in failures if not failure.parked]
    for title, found in (("parked:", parked), ("failed, and tried again:", failing)):
        if found:
            click.echo(title)
        for failure in found:
            click.echo(
                f"  {failure.mfid}  {failure.pipeline}: {failure.step}, {failure.failures} times, {failure.last[:19]}"
            )
            click.echo(f"    {failure.error.splitlines()[0]}")
    if parked:
        click.echo(f"try one again: {next_command('status', '--unpark', parked[0].mfid)}")
