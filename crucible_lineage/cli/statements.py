"""What people state of results: `hold`, `unhold`, `trust`, `sign`; and `statements`, the list of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crucible_lineage.amounts import amount
from crucible_lineage.cli.options import (
    announce,
    crucible_options,
    dataset_id,
    json_option,
    next_command,
    open_session,
    print_json,
)
from crucible_lineage.core.statement_effects import AppliedStatement
from crucible_lineage.errors import InputError
from crucible_lineage.ids import canonical_json
from crucible_lineage.lineage.labels import plain
from crucible_lineage.session import Session
from crucible_lineage.statements import FLAG, HOLD, TRUST, About
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
CODE = click.option("--code", metavar="FINGERPRINT", help="All that this code made or makes; its beginning is enough.")
WHY = click.option("--why", required=True, help="Why, in your own words.")
FLAG_NAME = click.option("--flag", metavar="NAME", help="A flag of this name: it warns, and stops nothing.")
PROJECT = click.option("--project", metavar="P", help="Project of the statement; by default, that of DATASETS.")


@click.command("hold")
@DATASETS
@INSTRUMENT
@FROM
@click.option(
    "--until",
    metavar="TIME",
    help="With --instrument: measured before that time. Else the day on which `status` begins to warn of the hold.",
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
    as_json: bool,
) -> None:
    """Put DATASETS on hold: nothing is made from them or their descendants until `unhold`.

    Existing descendants are doubtful. Nothing is deleted, and no id changes.
    """
    from crucible_lineage.stating import state

    with open_session() as session:
        about = _about(session, "hold", datasets, instrument, since, until, code)
        due = {"due": _moment("--until", until)[:10]} if until and not instrument else {}
        body = {**({"flag": flag} if flag else {}), **due}
        where = _project(session, "hold", about, project)
        done = state(session, where, FLAG if flag else HOLD, about, why=why, body=body)
    _print(done, as_json=as_json)


@click.command("unhold")
@DATASETS
@INSTRUMENT
@FROM
@click.option("--until", metavar="TIME", help="With --instrument: measured before that time.")
@CODE
@click.option("--why", default="", help="Why, in your own words.")
@click.option("--flag", metavar="NAME", default="", help="Take away the flag of this name instead.")
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
    as_json: bool,
) -> None:
    """Lift all holds on DATASETS, or on just this instrument and time, or code. Computes nothing."""
    from crucible_lineage.stating import lift

    with open_session() as session:
        about = _about(session, "unhold", datasets, instrument, since, until, code)
        where = _project(session, "unhold", about, project)
        lifted = lift(session, about, why, project=where, flag=flag)
    if as_json:
        print_json({"lifted": [one.to_json() for one in lifted]})
        return
    for one in lifted:
        click.echo(plain(f"{one.about}: the {one.verb} {one.attribution} is lifted"))


@click.command("trust")
@click.argument("whose", nargs=-1, required=True)
@click.option("--project", metavar="P", help="Project in which they count; optional if there is only one.")
@click.option("--why", default="", help="Why, in your own words.")
@crucible_options
@json_option
def trust_command(whose: tuple[str, ...], project: str | None, why: str, as_json: bool) -> None:
    """Let the statements of others count in a project: WHOSE are ids of projects or of accounts.

    Otherwise statements count for the datasets of their own project only.
    """
    from crucible_lineage.queries.catalogue.reference import find_project
    from crucible_lineage.stating import state

    with open_session() as session:
        where = find_project(session, project)
        done = state(session, where, TRUST, About(project=where), why=why, body={"whose": sorted(set(whose))})
    if as_json:
        print_json(done.to_json())
    else:
        click.echo(plain(f"{where}: statements of {', '.join(whose)} count"))


def _about(
    session: Session,
    what: str,
    datasets: tuple[str, ...],
    instrument: str | None,
    since: str | None,
    until: str | None,
    code: str | None,
) -> About:
    """Return what is meant. Raises InputError unless it is just one of datasets, instrument and code."""
    if sum(map(bool, (datasets, instrument, code))) != 1:
        raise InputError(f"{what}: name datasets, or one of --instrument and --code")
    if since and not instrument:
        raise InputError(f"{what} --from {since}: a time of measurement goes with --instrument")
    if instrument:
        first, last = (_moment(name, value) for name, value in (("--from", since), ("--until", until)))
        if first and last and utc(first) >= utc(last):
            raise InputError(f"{what}: --from {since} is not before --until {until}")
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


def _project(session: Session, what: str, about: About, project: str | None) -> str:
    if project or not about.datasets:
        from crucible_lineage.queries.catalogue.reference import find_project

        return find_project(session, project)
    from crucible_lineage.stating import project_of

    return project_of(session, about.datasets, what)


def _print(done: StatementOutcome, *, as_json: bool) -> None:
    one = done.statement
    if as_json:
        print_json(done.to_json())
        return
    what = f"has the flag {one.flag}" if one.flag else "is on hold"
    before = "" if done.is_new else " (as before)"
    click.echo(plain(f"{one.about} {what} {one.attribution}{before}"))
    click.echo(f"statement {one.mfid}; to take it back: {next_command(*_lifting(one.about, one.flag))}")


def _lifting(about: About, flag: str) -> list[str]:
    span: list[Any] = [
        *(["--from", about.since] if about.since else []),
        *(["--until", about.until] if about.until else []),
    ]
    named = (
        ["--instrument", about.instrument, *span] if about.instrument else ["--code", about.code] if about.code else []
    )
    return ["unhold", *about.datasets, *named, *(["--flag", flag] if flag else [])]


@click.command("sign")
@click.argument("datasets", nargs=-1, required=True)
@click.option("--why", default="", help="What you looked at, in your own words.")
@click.option("--project", metavar="P", help="Project of the statement; by default, that of DATASETS.")
@crucible_options
@json_option
def sign_command(datasets: tuple[str, ...], why: str, project: str | None, as_json: bool) -> None:
    """Sign DATASETS. A candidate with all its signatures is current.

    Suspended flow runs of Prefect are resumed, by `watch` if this machine has no Prefect.
    """
    from crucible_lineage.stating import sign

    with open_session() as session:
        mfids = [dataset_id(session, text) for text in datasets]
        done = sign(session, mfids, why, project=project or "")
    if as_json:
        print_json(done.to_json())
        with redirect_stdout(sys.stderr):
            _resume([mfid for mfid, lacking in done.missing.items() if not lacking])
        return
    one = done.stating.statement
    before = "" if done.stating.is_new else " (as before)"
    for mfid, lacking in done.missing.items():
        left = f"; {lacking} more {'signature' if lacking == 1 else 'signatures'} needed" if lacking else ""
        click.echo(plain(f"{mfid} is signed by {one.who or one.by}{before}{left}"))
    _resume([mfid for mfid, lacking in done.missing.items() if not lacking])


def print_resumed(mfids: Sequence[str]) -> None:
    """Resume the flow runs that wait for signatures of these results, and name them."""
    from crucible_lineage.flows.pipelines import resume_signed  # importing Prefect costs over a second

    for name in resume_signed(mfids):
        click.echo(f"resumed flow run {name}")


def _resume(mfids: Sequence[str]) -> None:
    from crucible_lineage.cli.runs.engines import prefect_is_configured  # with pydantic, which `hold` does without

    if not mfids or not prefect_is_configured():
        return
    try:
        print_resumed(mfids)
    except Exception as error:  # of the network, or Prefect's own: it is signed all the same
        click.echo(f"note: no flow run could be resumed: {error}; `watch` does, or the next run continues", err=True)


@click.command("statements")
@click.argument("dataset", required=False)
@click.option(
    "--project", metavar="P", help="Statements of this project; by default, all that are visible to this key."
)
@click.option(
    "--verify",
    "allowed",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Verify signatures by ssh keys: FILE is one of allowed signers, as ssh-keygen has it.",
)
@click.option("--all", "every", is_flag=True, help="Also statements that are no longer in force.")
@crucible_options
@json_option
def statements_command(
    dataset: str | None, project: str | None, allowed: Path | None, every: bool, as_json: bool
) -> None:
    """List statements about results, or about DATASET, oldest first: holds, flags, trust."""
    with open_session() as session:
        found = _found(session, dataset)
        if not as_json:
            announce(session)
    shown = [
        one
        for one in found
        if (every or one.in_force) and project in (None, one.statement.project) and (every or not one.statement.revokes)
    ]
    signers = {one.statement.mfid: _signer(one, allowed) for one in shown} if allowed else {}
    if as_json:
        told = ({"signer": signers[one.statement.mfid]} if allowed else {} for one in shown)
        print_json({"statements": [{**one.to_json(), **more} for one, more in zip(shown, told, strict=True)]})
    else:
        for one in shown:
            click.echo(plain(_line(one) + (_told(signers[one.statement.mfid]) if allowed else "")))
        left = f"; not listed: {len(found) - len(shown)} (--all)" if len(shown) < len(found) else ""
        click.echo(f"{amount(len(shown), 'statement')}{left}")
    if any(signer == "" for signer in signers.values()):
        sys.exit(1)


def _found(session: Session, dataset: str | None) -> Sequence[AppliedStatement]:
    """Return what is stated about a dataset, or all that this key may see."""
    session.mirror.sync_statements()
    if dataset is None:
        return session.stated.all(None)
    from crucible_lineage.queries.catalogue.view import show_dataset  # with pydantic, as --help need not have

    return show_dataset(session, dataset_id(session, dataset)).statements


def _signer(one: AppliedStatement, allowed: Path) -> str | None:
    """Return the signer: None without a signature, empty if the signer is not allowed."""
    statement = one.statement
    receipt, signature = statement.body.get("receipt"), statement.body.get("signature")
    if isinstance(receipt, Mapping) and signature and not signer_of(canonical_json(receipt), str(signature), allowed):
        return ""
    return signer_of(statement.signed_text, statement.signature, allowed) if statement.signature else None


def _told(signer: str | None) -> str:
    if signer is None:
        return "  (not signed)"
    return f"  (signed by {signer})" if signer else "  (INVALID SIGNATURE: SIGNER NOT ALLOWED, OR TEXT CHANGED)"


def _line(one: AppliedStatement) -> str:
    return f"{one.statement.mfid}  {str(one.statement.about) or ', '.join(one.statement.revokes)}  {one.text}"
