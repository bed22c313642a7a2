"""`certify`, `decertify`, `calibration`: from when until when a calibration is valid, and which one data have."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from crucible_lineage.amounts import amount
from crucible_lineage.calibrations import NO_END, range_text
from crucible_lineage.cli.options import (
    announce,
    crucible_options,
    dataset_id,
    json_option,
    open_session,
    print_json,
    read_fields,
)
from crucible_lineage.lineage.labels import plain

if TYPE_CHECKING:
    from crucible_lineage.queries.calibrations import CalibrationUse


MOST_LISTED = 20
FOR = "field of the data and its value, as in instrument='Raman 1' or metadata.grating=1800; repeatable"
KIND = click.option("--kind", default="", help="The kind of calibration; by default, what was measured in it.")
PROJECT = click.option(
    "--project", default="", metavar="P", help="Project of the statement; by default, the calibration's."
)
AS_OF = click.option(
    "--as-of", default="", metavar="TIME", help="Use what was stated until then; a date means the end of that day."
)


@click.command("certify")
@click.argument("calibration")
@click.option("--for", "fields", multiple=True, required=True, metavar="FIELD=VALUE", help=f"Of which data: a {FOR}.")
@click.option("--where", default="", metavar="CONDITION", help="Only of data for which this holds.")
@click.option("--from", "since", required=True, metavar="TIME", help="Of data measured at that time or later (UTC).")
@click.option("--until", default="", metavar="TIME", help="Of data measured before; `next`: until the next one begins.")
@KIND
@click.option("--why", required=True, help="Why, in your own words.")
@click.option("--replace", "is_replacing", is_flag=True, help="End for that time what is certified for the same data.")
@PROJECT
@crucible_options
@json_option
def certify_command(
    calibration: str,
    fields: tuple[str, ...],
    where: str,
    since: str,
    until: str,
    kind: str,
    why: str,
    is_replacing: bool,
    project: str,
    as_json: bool,
) -> None:
    """State when CALIBRATION is valid, and for which data. Pipelines choose by it.

    A second one for the same data and time is refused, unless it replaces the first.
    """
    from crucible_lineage.certifying import certify

    with open_session() as session:
        mfid = dataset_id(session, calibration)
        done = certify(
            session, mfid, read_fields(fields), since, until,
            kind=kind, where=where, why=why, project=project, replaced=is_replacing,
        )  # fmt: skip
        mine = [
            one for one in session.mirror.certificates(done.statement.project) if one.statement == done.statement.mfid
        ]
    if as_json:
        print_json({**done.to_json(), "certificate": mine[0].to_json() if mine else None})
        return
    before = "" if done.is_new else " (as before)"
    for one in mine:
        click.echo(plain(f"{mfid} is the {one.kind} of {one.scope} {', '.join(map(range_text, one.spans))}{before}"))
    click.echo(f"statement {done.statement.mfid}")


@click.command("decertify")
@click.argument("calibration")
@click.option("--from", "since", default="", metavar="TIME", help="Start of the invalid time; by default, unlimited.")
@click.option("--until", default="", metavar="TIME", help="End of that time; by default, unlimited.")
@click.option("--for", "fields", multiple=True, metavar="FIELD=VALUE", help=f"Only of these data: a {FOR}.")
@KIND
@click.option("--why", required=True, help="Why, in your own words.")
@PROJECT
@crucible_options
@json_option
def decertify_command(
    calibration: str,
    since: str,
    until: str,
    fields: tuple[str, ...],
    kind: str,
    why: str,
    project: str,
    as_json: bool,
) -> None:
    """State that CALIBRATION is not valid in a time, and list the current results that used it then."""
    from crucible_lineage.certifying import decertify
    from crucible_lineage.queries.calibrations import used_in

    with open_session() as session:
        mfid = dataset_id(session, calibration)
        named = read_fields(fields) if fields else None
        done = decertify(session, mfid, since, until, kind=kind, fields=named, why=why, project=project)
        spans = [span for _, lost in done.lost for span in lost]
        used = used_in(session, done.stating.statement.project, mfid, spans)
    if as_json:
        told = [
            {"statement": one.statement, "from": a.isoformat(), "until": None if b == NO_END else b.isoformat()}
            for one, some in done.lost for a, b in some
        ]  # fmt: skip
        print_json({**done.stating.to_json(), "lost": told, "used": [one.to_json() for one in used]})
        return
    for one, lost in done.lost:
        click.echo(plain(f"{mfid} is not the {one.kind} of {one.scope} any more {', '.join(map(range_text, lost))}"))
    click.echo(f"statement {done.stating.statement.mfid}")
    _print_used(used)


def _print_used(used: Sequence[CalibrationUse]) -> None:
    click.echo(f"{amount(len(used), 'current result')} used it for data of that time" + (":" if used else ""))
    for use in used[:MOST_LISTED]:
        click.echo(plain(f"  {use.mfid}  {use.name}"))
    if len(used) > MOST_LISTED:
        click.echo(f"  and {len(used) - MOST_LISTED} more (--json lists all)")


@click.group("calibration")
def calibration_command() -> None:
    """Show certified calibrations, of data or of a project."""


@calibration_command.command("for")
@click.argument("dataset")
@KIND
@AS_OF
@crucible_options
@json_option
def calibration_for_command(dataset: str, kind: str, as_of: str, as_json: bool) -> None:
    """Show the calibration certified for measured DATASET, why, the alternatives, and what was made with which.

    Exit code 1 if none is certified, or several contradict each other.
    """
    from crucible_lineage.queries.calibrations import calibrations_for

    with open_session() as session:
        if not as_json:
            announce(session)
        found = calibrations_for(session, dataset_id(session, dataset), kind, as_of)
    if as_json:
        print_json({"mfid": found.mfid, "name": found.name, "calibrations": [one.to_json() for one in found.kinds]})
    else:
        for line in str(found).splitlines():
            click.echo(plain(line))
    sys.exit(0 if found.kinds and all(one.valid for one in found.kinds) else 1)


@calibration_command.command("list")
@click.option(
    "--project", default=None, metavar="P", help="Project in which they count; optional if there is only one."
)
@KIND
@AS_OF
@crucible_options
@json_option
def calibration_list_command(project: str | None, kind: str, as_of: str, as_json: bool) -> None:
    """List what is certified, by kind, data and time."""
    from crucible_lineage.certifying import certificates_as_of
    from crucible_lineage.queries.catalogue.reference import find_project

    with open_session() as session:
        if not as_json:
            announce(session)
        found = certificates_as_of(session, find_project(session, project), kind or None, as_of)
    found = sorted((one for one in found if one.spans), key=lambda one: (one.key, one.spans))
    if as_json:
        print_json({"certificates": [one.to_json() for one in found]})
        return
    for one in found:
        for span in one.spans:
            click.echo(plain(f"{one.kind}, {one.scope}: {one.dataset} {range_text(span)}, {one.attribution}"))
    click.echo(amount(len(found), "certificate"))
