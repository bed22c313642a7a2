"""`run` and `plan`: do what is not done, or say what that would be."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from crucible_lineage.cli.engines import run_with_engine
from crucible_lineage.cli.options import (
    FAILURE,
    crucible_options,
    json_option,
    open_session,
    print_json,
    reports_errors,
)
from crucible_lineage.cli.progress import Progress
from crucible_lineage.pipeline.bind import bind_file
from crucible_lineage.pipeline.run import RunResult, make_plan
from crucible_lineage.pipeline.spec import located

__all__ = ["plan_command", "run_command"]

MARKS = {"fresh": "=", "missing": "+", "stale": "~", "incomplete": "!"}


@click.command("run")
@click.argument("pipeline")
@crucible_options
@click.option(
    "--engine",
    type=click.Choice(["auto", "prefect", "local"]),
    default="auto",
    help="auto: Prefect where a Prefect API is configured, else threads of this process.",
)
@click.option("--jobs", type=click.IntRange(1, 256), default=min(8, (os.cpu_count() or 1) + 2), show_default=True)
@click.option("--force", "forced", multiple=True, metavar="STEP", help="Make this step again, beside what is there.")
@click.option("--refresh", is_flag=True, help="Ask Crucible again, also for what is known to be complete.")
@json_option
@reports_errors
def run_command(
    pipeline: str,
    data: Path | None,
    url: str | None,
    api_key: str | None,
    engine: str,
    jobs: int,
    forced: tuple[str, ...],
    refresh: bool,
    as_json: bool,
) -> None:
    """Run the pipeline declared in the file PIPELINE: make and register what is not there yet.

    Exit code 0 if every step has its result, 1 if a step failed (run again to go on), 2 if the input is wrong.
    """
    with open_session(data, url, api_key) as session:
        if not as_json:
            click.echo(session.settings.describe())
        bound = bind_file(located(pipeline), session.store)
        if refresh:
            session.store.forget()
        with Progress(list(bound.steps), quiet=as_json) as progress:
            result = run_with_engine(engine, bound, session, progress.listen, jobs, forced)
    if as_json:
        print_json(result.to_json())
    else:
        _summary(result)
    sys.exit(0 if result.ok else FAILURE)


@click.command("plan")
@click.argument("pipeline")
@crucible_options
@click.option("--refresh", is_flag=True, help="Ask Crucible again, also for what is known to be complete.")
@json_option
@reports_errors
def plan_command(
    pipeline: str, data: Path | None, url: str | None, api_key: str | None, refresh: bool, as_json: bool
) -> None:
    """Say for each step of the pipeline in the file PIPELINE whether its result is there, and if not, why."""
    with open_session(data, url, api_key) as session:
        bound = bind_file(located(pipeline), session.store)
        if refresh:
            session.store.forget()
        planned = make_plan(bound, session)
        if as_json:
            print_json(planned.to_json())
            return
        click.echo(session.settings.describe())
        width = max(len(step.name) for step in planned.steps)
        for step in planned.steps:
            ids = ", ".join(mfid for mfid in step.datasets.values() if mfid)
            click.echo(f"{MARKS[step.state]} {step.name:{width}}  {step.state:10}  {ids}")
            for cause in step.causes:
                click.echo(f"  {'':{width}}  because {cause}")


def _summary(result: RunResult) -> None:
    counts = {kind: list(result.outcomes.values()).count(kind) for kind in ("executed", "reused", "failed", "skipped")}
    click.echo(", ".join(f"{count} {kind}" for kind, count in counts.items() if count))
    for step, error in result.errors.items():
        click.echo(f"{step}: {error}", err=True)
    if not result.executed and result.ok:
        click.echo("everything was there already; nothing was run")
    last = list(result.datasets.values())[-1:]
    for mfid in (mfid for outputs in last for mfid in outputs.values()):
        click.echo(f"see it: crucible-lineage lineage {mfid}")
