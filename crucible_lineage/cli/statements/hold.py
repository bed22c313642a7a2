"""`hold`, `unhold`, `trust`: stop what would be made of a dataset, and let it go on; whose statements count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from crucible_lineage.cli.options import (
    crucible_options,
    dataset_id,
    json_option,
    next_command,
    open_session,
    print_json,
)
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.labels import plain
from crucible_lineage.statements import FLAG, HOLD, TRUST, About
from crucible_lineage.times import utc

if TYPE_CHECKING:
    from crucible_lineage.session import Session
    from crucible_lineage.stating import Stating

__all__ = ["hold_command", "trust_command", "unhold_command"]

DATASETS = click.argument("datasets", nargs=-1)
INSTRUMENT = click.option(
    "--instrument", metavar="NAME", help="All that this instrument measured, instead of DATASETS."
)
FROM = click.option("--from", "since", metavar="TIME", help="With --instrument: measured at that time or later.")
CODE = click.option("--code", metavar="FINGERPRINT", help="All that this code made or makes; its beginning is enough.")
WHY = click.option("--why", required=True, help="Why, in your own words.")
FLAG_NAME = click.option("--flag", metavar="NAME", help="A flag of this name: it warns, and stops nothing.")
PROJECT = click.option(
    "--project", metavar="P", help="The project in which it is stated; that of DATASETS may be left out."
)


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
    """Put DATASETS on hold: nothing is made of them any more, nor of what was made of them, until `unhold`.

    What was made before is doubtful meanwhile. Nothing is deleted, and no id changes.
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
        click.echo(plain(f"{one.about}: the {one.verb} {one.said} is lifted"))


@click.command("trust")
@click.argument("whose", nargs=-1, required=True)
@click.option("--project", metavar="P", help="Where they are to count; may be left out where there is only one.")
@click.option("--why", default="", help="Why, in your own words.")
@crucible_options
@json_option
def trust_command(whose: tuple[str, ...], project: str | None, why: str, as_json: bool) -> None:
    """Let the statements of others count in a project: WHOSE are ids of projects or of accounts.

    Without it, statements count for the datasets of the project in which they are made; those of others are shown.
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


def _print(done: Stating, *, as_json: bool) -> None:
    one = done.statement
    if as_json:
        print_json(done.to_json())
        return
    what = f"has the flag {one.flag}" if one.flag else "is on hold"
    before = "" if done.is_new else " (as before)"
    click.echo(plain(f"{one.about} {what} {one.said}{before}"))
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
