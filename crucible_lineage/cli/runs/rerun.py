"""`rerun`: what made a dataset, or all that is stale in a project, made again with what is current."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from crucible_lineage.cli.options import (
    FAILURE,
    crucible_options,
    json_option,
    only_json,
    open_session,
    print_json,
    reports_errors,
)
from crucible_lineage.cli.runs.plans import print_plan
from crucible_lineage.cli.runs.progress import Progress
from crucible_lineage.cli.runs.run import SET, parse_overrides, print_summary
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.rerun import plan_rerun, plan_stale
from crucible_lineage.pipeline.run.local import LocalEngine
from crucible_lineage.pipeline.run.scheduler import run_planned

__all__ = ["rerun_command"]


@click.command("rerun")
@click.argument("mfid", required=False)
@crucible_options
@click.option("--stale", is_flag=True, help="All that is stale in the project, in dependency order.")
@click.option("--project", help="The project, for --stale.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the steps' modules and scripts are; by default where their pipeline was last run from.",
)
@SET
@click.option("--force", "forced", is_flag=True, help="Make it again though nothing has changed, beside what is there.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@click.option("--jobs", type=click.IntRange(1, 256), default=min(8, (os.cpu_count() or 1) + 2), show_default=True)
@json_option
@reports_errors
def rerun_command(
    mfid: str | None,
    data: Path | None,
    url: str | None,
    api_key: str | None,
    stale: bool,
    project: str | None,
    folder: Path | None,
    overrides: tuple[str, ...],
    forced: bool,
    dry_run: bool,
    jobs: int,
    as_json: bool,
) -> None:
    """Make the dataset MFID again: its recorded step and parameters, the code as it is now, parents that are current.

    What it descends from is made first where that is stale. If nothing has changed, nothing is run. With --set, a
    parameter of the step has another value.
    """
    if (mfid is None) == (not stale) or (stale and not project):
        raise InputError("say what to make again: the MFID of a dataset, or --stale --project PROJECT")
    with open_session(data, url, api_key) as session:
        if mfid is not None:
            values = {name.rpartition(".")[2]: value for name, value in parse_overrides(overrides).items()}
            found = plan_rerun(mfid, session, folder, values, forced=forced)
        else:
            found = plan_stale(project or "", session, folder)
        for dataset, reason in found.left_out.items():
            click.echo(f"{dataset} is left out: {reason}", err=True)
        if dry_run:
            print_plan(found.planned.plan, as_json=as_json)
            return
        with only_json(as_json), Progress(list(found.pipeline.steps), quiet=as_json) as progress:
            pipeline, planned, choice = found.pipeline, found.planned, found.choice
            result = run_planned(
                pipeline, planned, session, lambda: LocalEngine(session, jobs), progress.listen, choice
            )
    if as_json:
        print_json(result.to_json())
    else:
        print_summary(result)
    sys.exit(0 if result.ok else FAILURE)
