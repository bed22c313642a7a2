"""`rerun`: remake a dataset, or everything stale in a project, from current inputs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crucible_lineage.cli.options import (
    JOBS,
    chosen_project,
    crucible_options,
    dataset_id,
    json_option,
    open_session,
    print_json,
    wants_json,
)
from crucible_lineage.cli.runs.plans import print_plan
from crucible_lineage.cli.runs.progress import Progress
from crucible_lineage.cli.runs.run import SET, exit_code, parse_overrides, print_summary, returned_by
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.labels import plain_lines
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.rerun import plan_rerun, plan_stale
from crucible_lineage.pipeline.run.run import run_planned


@click.command("rerun")
@click.argument("mfid", required=False)
@crucible_options
@click.option("--stale", is_flag=True, help="Everything stale in the project, in dependency order.")
@click.option("--project", help="For --stale: the project; by default, the folder's, or the only one.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of the steps' modules and scripts; by default the one their pipeline was last run from.",
)
@SET
@click.option("--force", "forced", is_flag=True, help="Rerun even if nothing has changed, and keep the earlier result.")
@click.option("--dry-run", is_flag=True, help="Show what would be done.")
@JOBS
@json_option
def rerun_command(
    mfid: str | None,
    stale: bool,
    project: str | None,
    folder: Path | None,
    overrides: tuple[str, ...],
    forced: bool,
    dry_run: bool,
    jobs: int,
) -> None:
    """Rerun the step of the dataset MFID with its recorded parameters, the current code and current parents.

    Stale ancestors are made first. If nothing has changed, nothing is run. --set changes a parameter of the step.
    """
    if (mfid is None) == (not stale):
        raise InputError("name what to rerun: the MFID of a dataset, or --stale")
    with open_session() as session:
        if mfid is not None:
            values = {name.rpartition(".")[2]: value for name, value in parse_overrides(overrides).items()}
            found = plan_rerun(dataset_id(session, mfid), session, folder, values, forced=forced)
        else:
            found = plan_stale(chosen_project(session, project), session, folder)
        for dataset, reason in found.left_out.items():
            click.echo(plain_lines(f"{dataset} is left out: {reason}"), err=True)
        if dry_run:
            print_plan(found.planned.plan)
            return
        with Progress(list(found.pipeline.steps), silent=wants_json()) as progress:
            pipeline, planned, choice = found.pipeline, found.planned, found.choice
            engine, listen, stop = lambda: LocalEngine(session, jobs), progress.listen, progress.stop
            result = run_planned(pipeline, planned, session, engine, listen, choice, stop)
            returned = {} if wants_json() else returned_by(session, result)
    if wants_json():
        print_json(result.to_json())
    else:
        print_summary(result, returned=returned)
    sys.exit(exit_code(result))
