"""`run` and `plan`: do what is not done, or say what that would be."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import ValidationError

from crucible_lineage.cli.options import (
    FAILURE,
    crucible_options,
    json_option,
    next_command,
    only_json,
    open_session,
    print_json,
    reports_errors,
)
from crucible_lineage.cli.runs.engines import RunRequest, run_with_engine
from crucible_lineage.cli.runs.plans import print_plan
from crucible_lineage.cli.runs.progress import Progress
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.bind.model import bind_file
from crucible_lineage.pipeline.declare.yaml import parse_document
from crucible_lineage.pipeline.plan.plan import PipelinePlan
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.pipeline.run.result import EXECUTED, FAILED, LEFT_OUT, REUSED, SKIPPED, RunResult
from crucible_lineage.pipeline.run.scheduler import Choice
from crucible_lineage.pipeline.spec.inputs import located
from crucible_lineage.pipeline.spec.pipeline import Runner
from crucible_lineage.session import Session

__all__ = ["SET", "parse_overrides", "plan_command", "print_summary", "run_command"]

F = TypeVar("F", bound=Callable[..., Any])

SET = click.option(
    "--set", "overrides", multiple=True, metavar="STEP.PARAM=VALUE", help="A parameter for this run; repeatable."
)
FORCE = click.option(
    "--force", "forced", multiple=True, metavar="STEP", help="Make this step again, beside what is there."
)
REFRESH = click.option("--refresh", is_flag=True, help="Ask Crucible again, also for what is known to be complete.")


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
@click.option(
    "--runner",
    metavar="RUNNER",
    help="What Prefect runs the steps on: threads, processes, dask, ray, or dask=ADDRESS of a cluster.",
)
@SET
@FORCE
@click.option("--only", multiple=True, metavar="STEP", help="Make just this step; repeatable.")
@click.option("--from", "from_", multiple=True, metavar="STEP", help="Make this step and all that depend on it.")
@click.option("--keep-going/--fail-fast", default=True, help="What to do once a step has failed.  [default: go on]")
@click.option("--dry-run", is_flag=True, help="Say what would be done, as `plan` does.")
@click.option("--record-run", is_flag=True, help="Register the run, too: a dataset that lists all it relied on.")
@REFRESH
@json_option
@reports_errors
def run_command(
    pipeline: str,
    data: Path | None,
    url: str | None,
    api_key: str | None,
    engine: str,
    jobs: int,
    runner: str | None,
    overrides: tuple[str, ...],
    forced: tuple[str, ...],
    only: tuple[str, ...],
    from_: tuple[str, ...],
    keep_going: bool,
    dry_run: bool,
    record_run: bool,
    refresh: bool,
    as_json: bool,
) -> None:
    """Run the pipeline declared in the file PIPELINE: make and register what is not there yet.

    Exit code 0 if every step has its result, 1 if a step failed (run again to go on), 2 if the input is wrong.
    """
    with open_session(data, url, api_key) as session:
        if not as_json:
            click.echo(session.settings.describe())
        values = parse_overrides(overrides)
        bound = bind_file(located(pipeline), session.store, values)
        if refresh:
            session.store.forget()
        request = RunRequest(bound, values, Choice(forced, only, from_, keep_going), _runner(runner))
        chosen = request.choice.steps(bound)
        if dry_run:
            steps = make_plan(bound, session, forced).steps
            print_plan(PipelinePlan(tuple(step for step in steps if step.step in chosen)), as_json=as_json)
            return
        with only_json(as_json), Progress(list(bound.steps), quiet=as_json) as progress:
            result = run_with_engine(engine, request, session, progress.listen, jobs)
        recorded = (
            _register_run(result, session) if record_run and (result.datasets or any(result.inputs.values())) else None
        )
    if as_json:
        print_json({**result.to_json(), **({"recorded": recorded} if recorded else {})})
    else:
        print_summary(result)
        if recorded:
            click.echo(f"the run is recorded: {recorded}")
    sys.exit(0 if result.ok else FAILURE)


@click.command("plan")
@click.argument("pipeline")
@crucible_options
@SET
@FORCE
@REFRESH
@json_option
@reports_errors
def plan_command(
    pipeline: str,
    data: Path | None,
    url: str | None,
    api_key: str | None,
    overrides: tuple[str, ...],
    forced: tuple[str, ...],
    refresh: bool,
    as_json: bool,
) -> None:
    """Say for each step of the pipeline in the file PIPELINE whether its result is there, and if not, why."""
    with open_session(data, url, api_key) as session:
        bound = bind_file(located(pipeline), session.store, parse_overrides(overrides))
        if refresh:
            session.store.forget()
        planned = make_plan(bound, session, forced)
        if not as_json:
            click.echo(session.settings.describe())
        print_plan(planned, as_json=as_json)


def _register_run(result: RunResult, session: Session) -> str:
    from crucible_lineage.pipeline.run.run_record import (
        register_run,  # the client, which a run without work does not need
    )

    return register_run(session, result).mfid


def _runner(text: str | None) -> Runner | None:
    try:
        return None if text is None else Runner.model_validate(text)
    except ValidationError as error:
        raise InputError(f"--runner {text}: write threads, processes, dask, ray, or dask=ADDRESS") from error


def parse_overrides(given: tuple[str, ...]) -> dict[str, Any]:
    """{"step.param": value} of what was said with --set; a value is read as in YAML."""
    overrides = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--set {text}: write NAME=VALUE, as in --set axis.degree=4")
        overrides[name.strip()] = parse_document(value, f"--set {name}").data if value.strip() else ""
    return overrides


def print_summary(result: RunResult) -> None:
    """What a run did, in a few lines."""
    counts = {
        kind: list(result.outcomes.values()).count(kind) for kind in (EXECUTED, REUSED, FAILED, SKIPPED, LEFT_OUT)
    }
    click.echo(", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "there is nothing to do")
    for step, error in result.errors.items():
        if result.outcomes[step] == FAILED:
            click.echo(error if repr(step) in error else f"{step}: {error}", err=True)
    for step, note in result.notes.items():
        click.echo(f"note: {step}: {note}", err=True)
    if result.outcomes and not result.executed and result.ok:
        click.echo("everything was there already; nothing was run")
    last = list(result.datasets.values())[-1:]
    for mfid in (mfid for outputs in last for mfid in outputs.values()):
        click.echo(f"see it: {next_command('lineage', mfid)}")
