"""`doctor`: test a service on a scratch project."""

from __future__ import annotations

import sys

import click

from crucible_lineage.cli.options import announced_session, crucible_options, json_option, print_result

ANSWERS = {True: "yes", False: "NO", None: "?"}


@click.command("doctor")
@crucible_options
@click.option("--project", required=True, help="A scratch project, in which the tests make datasets.")
@json_option
def doctor_command(project: str) -> None:
    """Test whether a Crucible does what crucible-lineage needs.

    The tests make datasets in the project and send a file of 40 MB. At the end they request the deletion of everything
    that they made, and list it. Exit code 1 if the service does not do all that is needed.
    """
    with announced_session() as session:
        from crucible_lineage.ask.doctor import NEEDS, examine  # imports the client, which the help does not need

        findings, made = examine(session, project, lambda name: click.echo(f"trying: {name}", err=True))
    width = max(map(len, NEEDS))
    lines = [f"{'NEEDED':{width}}  HOLDS  WHAT HAPPENED"]
    for found in findings:
        lines.append(f"{found.name:{width}}  {ANSWERS[found.holds]:5}  {found.seen}")
        if found.holds is False:
            lines.append(f"{'':{width}}         needed: {NEEDS[found.name]}")
    probes = [f"  {one.mfid}  {one.name}  ({one.deletion})" for one in made]
    is_ok = all(found.holds is not False for found in findings)
    service, datasets = [one.to_json() for one in findings], [one.to_json() for one in made]
    print_result(
        {"ok": is_ok, "service": service, "made": datasets},
        [*lines, "made for this test; deletion requested:", *probes],
    )
    if not is_ok:
        sys.exit(1)
