"""`doctor`: what a Crucible does, tried on a scratch project; and how that is shown."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from crucible_lineage.cli.options import announce, crucible_options, json_option, next_command, open_session, print_json
from crucible_lineage.service import ASSUMPTIONS, Observation

__all__ = ["doctor_command", "print_service"]

ANSWERS = {True: "yes", False: "no", None: "?"}


@click.command("doctor")
@crucible_options
@click.option("--project", required=True, help="A scratch project: what is tried makes datasets there.")
@click.option(
    "--seconds", default=60.0, show_default=True, type=click.FloatRange(1), help="How long to watch an ingestion."
)
@json_option
def doctor_command(project: str, seconds: float, as_json: bool) -> None:
    """Try what is relied on of a Crucible, and say what it means where one does it otherwise.

    Datasets are made in the project, a file of 40 MB is sent, and an ingestion is watched; at the end the deletion of
    all that was made is asked for, and each is named. What was found is kept, and runs go by it: `status --service`
    shows it again. Exit code 1 if something is missing that nothing stands in for.
    """
    with open_session() as session:
        announce(session)
        from crucible_lineage.queries.doctor import examine  # the client, which the help does not need

        found = examine(session, project, watch_s=seconds, tell=lambda name: click.echo(f"trying: {name}", err=True))
    if as_json:
        print_json(
            {
                "ok": found.ok,
                "service": [one.to_json() for one in found.findings],
                "made": [one.to_json() for one in found.made],
            }
        )
    else:
        print_service(found.findings)
        click.echo("made for this, and asked to be deleted:")
        for one in found.made:
            click.echo(f"  {one.mfid}  {one.name}  ({one.deletion})")
        click.echo(f"see it again: {next_command('status', '--service')}")
    if not found.ok:
        sys.exit(1)


def print_service(findings: Sequence[Observation]) -> None:
    """Print what is known of a service as a table: what was tried, what happened, what it means and what is done."""
    if not findings:
        click.echo(
            f"nothing is known of this Crucible yet; have it tried: {next_command('doctor', '--project', 'SCRATCH')}"
        )
        return
    width = max(len(found.name) for found in findings)
    click.echo(f"{'ASSUMED':{width}}  HOLDS  WHAT HAPPENED")
    for found in findings:
        click.echo(f"{found.name:{width}}  {ANSWERS[found.holds]:5}  {found.seen}")
        if found.holds is not False:
            continue
        assumed = ASSUMPTIONS[found.name]
        click.echo(f"{'':{width}}         assumed: {assumed.holds}")
        if assumed.otherwise is None:
            click.echo(f"{'':{width}}         MISSING: no substitute; {assumed.lost}")
        else:
            lost = f"; {assumed.lost}" if assumed.lost else ""
            click.echo(f"{'':{width}}         instead: {assumed.otherwise}{lost}")
