"""`certify`, `decertify`, `calibration`: when a calibration is valid, and which one applies to data."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from crucible_lineage.amounts import amount
from crucible_lineage.calibrations import NO_END, range_text
from crucible_lineage.cli.options import (
    announced_session,
    chosen_project,
    crucible_options,
    dataset_id,
    json_option,
    open_session,
    print_result,
    read_fields,
)
from crucible_lineage.lineage.labels import first_lines

if TYPE_CHECKING:
    from crucible_lineage.queries.calibrations import CalibrationUse


MOST_LISTED = 20
FOR = "field of the data and its value, as in instrument='Raman 1' or metadata.grating=1800; repeatable"
KIND = click.option("--kind", default="", help="The kind of calibration; by default, what was measured in it.")
PROJECT = click.option(
    "--project", default="", metavar="P", help="Project of the statement; by default, the calibration's."
)
AS_OF = click.option(
    "--as-of", default="", metavar="TIME", help="Use statements made until then; a date means the end of that day."
)


@click.command("certify")
@click.argument("calibration")
@click.option("--for", "fields", multiple=True, required=True, metavar="FIELD=VALUE", help=f"For which data: a {FOR}.")
@click.option("--where", default="", metavar="CONDITION", help="Only for data that meet this condition.")
@click.option("--from", "since", required=True, metavar="TIME", help="For data measured at that time or later (UTC).")
@click.option(
    "--until", default="", metavar="TIME", help="For data measured before; `next`: until the next one starts."
)
@KIND
@click.option("--why", required=True, help="Why, in your own words.")
@click.option(
    "--replace", "is_replacing", is_flag=True, help="End, for that time, other certificates for the same data."
)
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
) -> None:
    """State when CALIBRATION is valid, and for which data. Pipelines select calibrations by this.

    A second calibration for the same data and time is refused, unless it replaces the first.
    """
    from crucible_lineage.certifying import certify

    with open_session() as session:
        mfid = dataset_id(session, calibration)
        outcome = certify(
            session, mfid, read_fields(fields), since, until,
            kind=kind, where=where, why=why, project=project, replaced=is_replacing,
        )  # fmt: skip
        certificates = [
            certificate
            for certificate in session.mirror.certificates(outcome.statement.project)
            if certificate.statement == outcome.statement.mfid
        ]
    before = "" if outcome.is_new else " (as before)"
    lines = [
        f"{mfid} is the {one.kind} of {one.scope} {', '.join(map(range_text, one.spans))}{before}"
        for one in certificates
    ]
    document = {**outcome.to_json(), "certificate": certificates[0].to_json() if certificates else None}
    print_result(document, [*lines, f"statement {outcome.statement.mfid}"])


@click.command("decertify")
@click.argument("calibration")
@click.option("--from", "since", default="", metavar="TIME", help="Start of the invalid period; by default, unlimited.")
@click.option("--until", default="", metavar="TIME", help="End of that period; by default, unlimited.")
@click.option("--for", "fields", multiple=True, metavar="FIELD=VALUE", help=f"Only for these data: a {FOR}.")
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
) -> None:
    """State that CALIBRATION is not valid in a period, and list the current results that used it then."""
    from crucible_lineage.certifying import decertify
    from crucible_lineage.queries.calibrations import used_in

    with open_session() as session:
        mfid = dataset_id(session, calibration)
        selected = read_fields(fields) if fields else None
        outcome = decertify(session, mfid, since, until, kind=kind, fields=selected, why=why, project=project)
        spans = [span for _, lost in outcome.lost for span in lost]
        used = used_in(session, outcome.stating.statement.project, mfid, spans)
    ended = [
        {"statement": one.statement, "from": start.isoformat(), "until": None if end == NO_END else end.isoformat()}
        for one, spans in outcome.lost for start, end in spans
    ]  # fmt: skip
    lines = [
        f"{mfid} is no longer the {one.kind} of {one.scope} {', '.join(map(range_text, lost))}"
        for one, lost in outcome.lost
    ]
    document = {**outcome.stating.to_json(), "lost": ended, "used": [use.to_json() for use in used]}
    print_result(document, [*lines, f"statement {outcome.stating.statement.mfid}", *_used_lines(used)])


def _used_lines(used: Sequence[CalibrationUse]) -> Iterator[str]:
    yield f"{amount(len(used), 'current result')} used it for data of that period" + (":" if used else "")
    lines = (f"  {use.mfid}  {use.name}" for use in used)
    yield from first_lines(lines, MOST_LISTED, "  and {} more (--json lists all)")


@click.group("calibration")
def calibration_command() -> None:
    """Show certified calibrations for data or for a project."""


@calibration_command.command("for")
@click.argument("dataset")
@KIND
@AS_OF
@crucible_options
@json_option
def calibration_for_command(dataset: str, kind: str, as_of: str) -> None:
    """Show the calibration certified for measured DATASET, why, the alternatives, and the results made with each.

    Exit code 1 if none is certified, or several contradict each other.
    """
    from crucible_lineage.queries.calibrations import calibrations_for

    with announced_session() as session:
        found = calibrations_for(session, dataset_id(session, dataset), kind, as_of)
    document = {"mfid": found.mfid, "name": found.name, "calibrations": [one.to_json() for one in found.kinds]}
    print_result(document, str(found).splitlines())
    sys.exit(0 if found.kinds and all(one.valid for one in found.kinds) else 1)


@calibration_command.command("list")
@click.option(
    "--project", default=None, metavar="P", help="Project of the certificates; optional if there is only one."
)
@KIND
@AS_OF
@crucible_options
@json_option
def calibration_list_command(project: str | None, kind: str, as_of: str) -> None:
    """List certificates by kind, data and time."""
    from crucible_lineage.certifying import certificates_as_of

    with announced_session() as session:
        found = certificates_as_of(session, chosen_project(session, project), kind or None, as_of)
    found = sorted((one for one in found if one.spans), key=lambda one: (one.key, one.spans))
    lines = [
        f"{one.kind}, {one.scope}: {one.dataset} {range_text(span)}, {one.attribution}"
        for one in found
        for span in one.spans
    ]
    print_result({"certificates": [one.to_json() for one in found]}, [*lines, amount(len(found), "certificate")])
