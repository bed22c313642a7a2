"""Statements of people about results: `hold`, `sign`, `certify`, `promote`, `lift`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from crucible_lineage.amounts import amount
from crucible_lineage.ask.answer import next_command
from crucible_lineage.cli.options import (
    chosen_project,
    crucible_options,
    dataset_id,
    json_option,
    open_session,
    print_result,
    read_fields,
)
from crucible_lineage.errors import InputError
from crucible_lineage.statements.calibrations import certificate_in, range_text
from crucible_lineage.statements.statements import HOLD, PROMOTE, REVOKE, SIGN, About
from crucible_lineage.statements.stating import LIFTED, moment
from crucible_lineage.times import utc

if TYPE_CHECKING:
    from crucible_lineage.session import Session
    from crucible_lineage.statements.statements import Statement

WHY = click.option("--why", required=True, help="Why, in your own words.")
NO_WHY = click.option("--why", default="", help="Why, in your own words.")
PROJECT = click.option("--project", metavar="P", help="Project of the statement; by default, that of DATASETS.")


@click.command("hold")
@click.argument("datasets", nargs=-1)
@click.option("--instrument", metavar="NAME", help="All that this instrument measured, instead of DATASETS.")
@click.option("--from", "since", metavar="TIME", help="With --instrument: measured at that time or later.")
@click.option(
    "--until",
    metavar="TIME",
    help="With --instrument: measured before that time. Otherwise the day from which `status` warns about the hold.",
)
@click.option(
    "--code",
    metavar="FINGERPRINT",
    help="All that this code made or makes; the beginning of the fingerprint is enough.",
)
@WHY
@click.option(
    "--flag", default="", metavar="NAME", help="Set a flag of this name instead: it warns, but stops nothing."
)
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
    flag: str,
    project: str | None,
) -> None:
    """Put DATASETS on hold: nothing is made from them or their descendants until `lift`.

    Existing descendants are doubtful. Nothing is deleted, and no id changes.
    """
    from crucible_lineage.statements.stating import put_on_hold

    if sum(map(bool, (datasets, instrument, code))) != 1:
        raise InputError("hold: name datasets, or one of --instrument and --code")
    if since and not instrument:
        raise InputError(f"hold --from {since}: a time of measurement goes with --instrument")
    first = moment("--from", since) if since else ""
    last = moment("--until", until) if until else ""
    if instrument and first and last and utc(first) >= utc(last):
        raise InputError(f"hold: --from {since} is not before --until {until}")
    with open_session() as session:
        if instrument:
            about, due = About(instrument=instrument, since=first, until=last), ""
        else:
            ids = dict.fromkeys(dataset_id(session, text) for text in datasets)
            about, due = About(tuple(ids), code=code or ""), last[:10]
        target = project or ("" if about.datasets else chosen_project(session, None))
        outcome = put_on_hold(session, about, why, project=target, flag=flag, due=due)
    one = outcome.statement
    stated = f"{one.about} {f'has the flag {one.flag}' if one.flag else 'is on hold'} {one.attribution}"
    print_result(outcome.to_json(), [f"{stated}{'' if outcome.is_new else ' (as before)'}", _undo(one)])


def _undo(statement: Statement) -> str:
    return f"statement {statement.mfid}; to lift it: {next_command('lift', statement.mfid)}"


@click.command("sign")
@click.argument("datasets", nargs=-1, required=True)
@NO_WHY
@PROJECT
@crucible_options
@json_option
def sign_command(datasets: tuple[str, ...], why: str, project: str | None) -> None:
    """Sign DATASETS. A candidate with all its signatures becomes current; the next run makes what waits for it."""
    from crucible_lineage.statements.stating import sign

    with open_session() as session:
        mfids = [dataset_id(session, text) for text in datasets]
        outcome = sign(session, mfids, why, project=project or "")
    statement = outcome.stating.statement
    signed = f"is signed by {statement.who or statement.by}{'' if outcome.stating.is_new else ' (as before)'}"
    lines = [
        f"{mfid} {signed}" + (f"; {amount(n, 'more signature')} needed, of {outcome.whose[mfid]}" if n else "")
        for mfid, n in outcome.missing.items()
    ]
    print_result(outcome.to_json(), [*lines, _undo(statement)])


@click.command("certify")
@click.argument("calibration")
@click.option(
    "--for", "fields", multiple=True, required=True, metavar="FIELD=VALUE",
    help="For which data, as in instrument='Raman 1' or metadata.grating=1800; repeatable.",
)  # fmt: skip
@click.option("--where", default="", metavar="CONDITION", help="Only for data that meet this condition.")
@click.option("--from", "since", required=True, metavar="TIME", help="For data measured at that time or later (UTC).")
@click.option(
    "--until", default="", metavar="TIME", help="For data measured before; `next`: until the next one starts."
)
@click.option("--kind", default="", help="The kind of calibration; by default, what was measured in it.")
@WHY
@click.option("--replace", "is_replacing", is_flag=True, help="End, for that time, others for the same data.")
@click.option("--try", "trial", default="", metavar="NAME", help="Only for `run --try NAME`, until it is promoted.")
@click.option("--project", default="", metavar="P", help="Project of the statement; by default, the calibration's.")
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
    trial: str,
    project: str,
) -> None:
    """State when CALIBRATION is valid, and for which data. Pipelines select calibrations by this.

    A second calibration for the same data and time is refused, unless it replaces the first.
    """
    from crucible_lineage.statements.stating import certificates_as_of, certify

    with open_session() as session:
        mfid = dataset_id(session, calibration)
        outcome = certify(
            session, mfid, read_fields(fields), since, until, kind=kind, where=where, why=why, project=project,
            replaced=is_replacing, trial=trial,
        )  # fmt: skip
        known = certificates_as_of(session, outcome.statement.project, trial=trial)
        (one,) = (one for one in known if one.statement == outcome.statement.mfid)
    valid = ", ".join(map(range_text, one.spans)) + (f" in try {trial}" if trial else "")
    line = f"{mfid} is the {one.kind} of {one.scope} {valid}{'' if outcome.is_new else ' (as before)'}"
    print_result({**outcome.to_json(), "certificate": one.to_json()}, [line, _undo(outcome.statement)])


@click.command("promote")
@click.argument("name")
@WHY
@click.option("--project", metavar="P", help="Project of the try; optional if there is only one.")
@crucible_options
@json_option
def promote_command(name: str, why: str, project: str | None) -> None:
    """Make the candidates of try NAME (`run --try NAME`) current, and its certificates valid. Computes nothing."""
    from crucible_lineage.statements.stating import promote

    with open_session() as session:
        stating, candidates = promote(session, chosen_project(session, project), name, why)
    lines = [
        f"try {name} is promoted: {amount(len(candidates), 'candidate')} current, unless a later run replaced it",
        "write what you tried into the pipeline: a run as declared before makes the earlier results current again",
        _undo(stating.statement),
    ]
    print_result({**stating.to_json(), "candidates": list(candidates)}, lines)


@click.command("lift")
@click.argument("targets", nargs=-1, required=True, metavar="STATEMENT|DATASET...")
@click.option("--kind", type=click.Choice(LIFTED), help="Which of the statements about a DATASET.")
@NO_WHY
@crucible_options
@json_option
def lift_command(targets: tuple[str, ...], kind: str | None, why: str) -> None:
    """Lift a hold, flag, signature, certificate, promotion or other statement, and say what follows.

    A DATASET stands for all statements of one kind about it. Nothing is computed; the statement is kept, as lifted.
    """
    from crucible_lineage.statements.stating import lift

    with open_session() as session:
        mfids = [dataset_id(session, text) for text in targets]
        lifted = lift(session, mfids, why, kind=kind or "")
        done = [f"{one}: the {one.kind} {one.attribution} is lifted" for one in lifted]
        follows = [line for one in lifted for line in _follows(session, one)]
    print_result({"lifted": [one.to_json() for one in lifted], "follows": follows}, [*done, *follows])


def _follows(session: Session, lifted: Statement) -> Iterator[str]:
    """Yield what follows from lifting a statement."""
    if lifted.verb in (HOLD, SIGN):
        doubts = session.stated.doubts(lifted.about.datasets, lifted.project)
        for mfid in lifted.about.datasets:
            yield doubts[mfid].message(mfid) if mfid in doubts else f"{mfid} is not on hold"
    if lifted.verb == PROMOTE:
        yield f"the results from before the promotion of try {lifted.trial} are current again"
    if lifted.verb == REVOKE:
        for one in session.mirror.statements(lifted.revokes).values():
            yield f"{one}: the {one.kind} {one.attribution} counts again"
    if certificate := certificate_in(lifted):
        from crucible_lineage.ask.calibrations import after_lifting  # imports pydantic, which --help does not need

        yield from after_lifting(session, certificate)
