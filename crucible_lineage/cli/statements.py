"""Statements of people about results: `hold`, `unhold`, `sign`; and `statements`, which lists them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crucible_lineage.amounts import amount
from crucible_lineage.cli.options import (
    announce,
    chosen_project,
    crucible_options,
    dataset_id,
    json_option,
    next_command,
    open_session,
    print_result,
)
from crucible_lineage.core.statement_effects import AppliedStatement
from crucible_lineage.errors import InputError
from crucible_lineage.ids import canonical_json
from crucible_lineage.session import Session
from crucible_lineage.statements import About
from crucible_lineage.stating import signer_of
from crucible_lineage.times import utc

if TYPE_CHECKING:
    from crucible_lineage.session import Session
    from crucible_lineage.stating import StatementOutcome

DATASETS = click.argument("datasets", nargs=-1)
INSTRUMENT = click.option(
    "--instrument", metavar="NAME", help="All that this instrument measured, instead of DATASETS."
)
FROM = click.option("--from", "since", metavar="TIME", help="With --instrument: measured at that time or later.")
CODE = click.option(
    "--code",
    metavar="FINGERPRINT",
    help="All that this code made or makes; the beginning of the fingerprint is enough.",
)
WHY = click.option("--why", required=True, help="Why, in your own words.")
FLAG_NAME = click.option("--flag", metavar="NAME", help="Set a flag of this name instead: it warns, but stops nothing.")
PROJECT = click.option("--project", metavar="P", help="Project of the statement; by default, that of DATASETS.")


@click.command("hold")
@DATASETS
@INSTRUMENT
@FROM
@click.option(
    "--until",
    metavar="TIME",
    help="With --instrument: measured before that time. Otherwise the day from which `status` warns about the hold.",
)
@CODE
@WHY
@FLAG_NAME
@PROJECT
@crucible_options
@json_option
def hold_command(
    datasets: tuple[str, ...],
    instrument: str | None,
    since: str | None,
    until: str | None,
    code: str | None,
    why: str,
    flag: str | None,
    project: str | None,
) -> None:
    """Put DATASETS on hold: nothing is made from them or their descendants until `unhold`.

    Existing descendants are doubtful. Nothing is deleted, and no id changes.
    """
    from crucible_lineage.stating import put_on_hold

    with open_session() as session:
        about = _about(session, "hold", datasets, instrument, since, until, code)
        due = "" if instrument else _moment("--until", until)[:10]
        target = _project(session, "hold", about, project)
        outcome = put_on_hold(session, about, why, project=target, flag=flag or "", due=due)
    _print(outcome)


@click.command("unhold")
@DATASETS
@INSTRUMENT
@FROM
@click.option("--until", metavar="TIME", help="With --instrument: measured before that time.")
@CODE
@click.option("--why", default="", help="Why, in your own words.")
@click.option("--flag", metavar="NAME", default="", help="Remove the flag of this name instead.")
@PROJECT
@crucible_options
@json_option
def unhold_command(
    datasets: tuple[str, ...],
    instrument: str | None,
    since: str | None,
    until: str | None,
    code: str | None,
    why: str,
    flag: str,
    project: str | None,
) -> None:
    """Lift all holds on DATASETS, or on exactly this instrument and time, or code. Computes nothing."""
    from crucible_lineage.stating import lift

    with open_session() as session:
        about = _about(session, "unhold", datasets, instrument, since, until, code)
        target = _project(session, "unhold", about, project)
        lifted = lift(session, about, why, project=target, flag=flag)
    lines = (f"{one.about}: the {one.verb} {one.attribution} is lifted" for one in lifted)
    print_result({"lifted": [one.to_json() for one in lifted]}, lines)


def _about(
    session: Session,
    command: str,
    datasets: tuple[str, ...],
    instrument: str | None,
    since: str | None,
    until: str | None,
    code: str | None,
) -> About:
    """Return the subject of a statement. InputError unless it is exactly one of datasets, instrument and code."""
    if sum(map(bool, (datasets, instrument, code))) != 1:
        raise InputError(f"{command}: name datasets, or one of --instrument and --code")
    if since and not instrument:
        raise InputError(f"{command} --from {since}: a time of measurement goes with --instrument")
    if instrument:
        first, last = (_moment(name, value) for name, value in (("--from", since), ("--until", until)))
        if first and last and utc(first) >= utc(last):
            raise InputError(f"{command}: --from {since} is not before --until {until}")
        return About(instrument=instrument, since=first, until=last)
    if code:
        return About(code=code)
    return About(datasets=tuple(dict.fromkeys(dataset_id(session, text) for text in datasets)))


def _moment(option: str, value: str | None) -> str:
    if not value:
        return ""
    try:
        return utc(value).isoformat()
    except ValueError as error:
        raise InputError(f"{option} {value}: write it as in 2024-05-10 or 2024-05-10T12:00:00Z") from error


def _project(session: Session, command: str, about: About, project: str | None) -> str:
    if project or not about.datasets:
        return chosen_project(session, project)
    from crucible_lineage.stating import project_of

    return project_of(session, about.datasets, command)


def _print(outcome: StatementOutcome) -> None:
    statement = outcome.statement
    status = f"has the flag {statement.flag}" if statement.flag else "is on hold"
    before = "" if outcome.is_new else " (as before)"
    undo = next_command(*_unhold(statement.about, statement.flag))
    stated = f"{statement.about} {status} {statement.attribution}{before}"
    print_result(outcome.to_json(), [stated, f"statement {statement.mfid}; to lift it: {undo}"])


def _unhold(about: About, flag: str) -> list[str]:
    span: list[object] = [
        *(["--from", about.since] if about.since else []),
        *(["--until", about.until] if about.until else []),
    ]
    subject = (
        ["--instrument", about.instrument, *span] if about.instrument else ["--code", about.code] if about.code else []
    )
    return ["unhold", *about.datasets, *subject, *(["--flag", flag] if flag else [])]


@click.command("sign")
@click.argument("datasets", nargs=-1, required=True)
@click.option("--why", default="", help="What you checked, in your own words.")
@click.option("--project", metavar="P", help="Project of the statement; by default, that of DATASETS.")
@crucible_options
@json_option
def sign_command(datasets: tuple[str, ...], why: str, project: str | None) -> None:
    """Sign DATASETS. A candidate with all its signatures becomes current.

    Suspended Prefect flow runs are resumed; if this machine has no Prefect, `watch` resumes them.
    """
    from crucible_lineage.stating import sign

    with open_session() as session:
        mfids = [dataset_id(session, text) for text in datasets]
        outcome = sign(session, mfids, why, project=project or "")
    statement = outcome.stating.statement
    signed = f"is signed by {statement.who or statement.by}{'' if outcome.stating.is_new else ' (as before)'}"
    left = {n: f"; {amount(n, 'more signature')} needed" if n else "" for n in outcome.missing.values()}
    print_result(outcome.to_json(), (f"{mfid} {signed}{left[missing]}" for mfid, missing in outcome.missing.items()))


@click.command("statements")
@click.argument("dataset", required=False)
@click.option("--project", metavar="P", help="Statements of this project; by default, all that this key can see.")
@click.option(
    "--verify",
    "allowed",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Verify ssh signatures against FILE, an allowed signers file of ssh-keygen.",
)
@click.option("--all", "every", is_flag=True, help="Include statements that are no longer in force.")
@crucible_options
@json_option
def statements_command(dataset: str | None, project: str | None, allowed: Path | None, every: bool) -> None:
    """List statements about results, or about DATASET, oldest first: holds, flags, trust."""
    with open_session() as session:
        known = _statements(session, dataset)
        announce(session)
    found = [one for one in known if project is None or one.statement.project.casefold() == project.casefold()]
    shown = [one for one in found if every or (one.in_force and not one.statement.revokes)]
    signers = {applied.statement.mfid: _signer(applied, allowed) for applied in shown} if allowed else {}
    listed = [(one, one.statement.mfid) for one in shown]
    stated = [{**one.to_json(), **({"signer": signers[mfid]} if allowed else {})} for one, mfid in listed]
    lines = [_line(one) + (_signature_text(signers[mfid]) if allowed else "") for one, mfid in listed]
    left = f"; not listed: {len(found) - len(shown)} (--all)" if len(shown) < len(found) else ""
    print_result({"statements": stated}, [*lines, f"{amount(len(shown), 'statement')}{left}"])
    if any(signer == "" for signer in signers.values()):
        sys.exit(1)


def _statements(session: Session, dataset: str | None) -> Sequence[AppliedStatement]:
    """Return the statements about a dataset, or all that this key can see."""
    session.mirror.sync_statements()
    if dataset is None:
        return session.stated.all(None)
    from crucible_lineage.queries.catalogue.view import show_dataset  # imports pydantic, which --help does not need

    return show_dataset(session, dataset_id(session, dataset)).statements


def _signer(applied: AppliedStatement, allowed: Path) -> str | None:
    """Return the signer: None without a signature, empty if the signer is not allowed."""
    statement = applied.statement
    receipt, signature = statement.body.get("receipt"), statement.body.get("signature")
    if isinstance(receipt, Mapping) and signature and not signer_of(canonical_json(receipt), str(signature), allowed):
        return ""
    return signer_of(statement.signed_text, statement.signature, allowed) if statement.signature else None


def _signature_text(signer: str | None) -> str:
    if signer is None:
        return "  (not signed)"
    return f"  (signed by {signer})" if signer else "  (INVALID SIGNATURE: SIGNER NOT ALLOWED, OR TEXT CHANGED)"


def _line(applied: AppliedStatement) -> str:
    statement = applied.statement
    return f"{statement.mfid}  {str(statement.about) or ', '.join(statement.revokes)}  {applied.text}"
