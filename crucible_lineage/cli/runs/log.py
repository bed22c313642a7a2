"""`log`: what the step printed that made a dataset, or the last attempt of a step."""

from __future__ import annotations

import click

from crucible_lineage.cli.options import crucible_options, dataset_id, json_option, open_session, print_json
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.spec.inputs import located
from crucible_lineage.queries.logs import Attempt, last_attempts, log_of_dataset

__all__ = ["log_command"]


@click.command("log")
@click.argument("what", metavar="MFID|STEP")
@click.argument("pipeline", required=False)
@crucible_options
@json_option
def log_command(what: str, pipeline: str | None, as_json: bool) -> None:
    """Print what the step printed that made the dataset MFID; or the last attempt of STEP of the file PIPELINE.

    Of a step also what it printed before it failed, with the error; of one that has several instances, of each.
    """
    with open_session() as session:
        if pipeline is None:
            try:
                what = dataset_id(session, what)
            except InputError as error:
                raise InputError(f"{error}; for a step, name its pipeline too: log STEP PIPELINE.yaml") from error
            said = log_of_dataset(session, what)
            if as_json:
                print_json({"mfid": what, "log": said})
            elif said is None:
                click.echo(f"{what} has no log: no step made it, or one that printed nothing", err=True)
            else:
                click.echo(said, nl=not said.endswith("\n"))
            return
        attempts = list(last_attempts(session, located(pipeline), what))
    if as_json:
        print_json({"attempts": [vars(attempt) for attempt in attempts]})
        return
    for attempt in attempts:
        _print_attempt(attempt)


def _print_attempt(attempt: Attempt) -> None:
    ids = ", ".join(attempt.datasets.values())
    click.echo(
        f"{attempt.step}: {attempt.outcome}, run of {attempt.started[:19]}" + (f", {ids}" if ids else ""), err=True
    )
    if attempt.log:
        click.echo(attempt.log, nl=not attempt.log.endswith("\n"))
    elif attempt.log is None:
        click.echo("nothing is kept of what it printed", err=True)
    if attempt.error:
        click.echo(attempt.error, err=True)
