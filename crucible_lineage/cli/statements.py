"""Statements of people about results: `hold`, `sign`, `certify`, `lift`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from crucible_lineage.ask.answer import Done, next_command
from crucible_lineage.ask.names import find_mfid, find_project
from crucible_lineage.ask.question import argument, option, read_pair
from crucible_lineage.ask.view import after_lifting
from crucible_lineage.cli.asking import act
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.plan.corrections import read_value
from crucible_lineage.session import Session
from crucible_lineage.statements.calibrations import certificate_in, range_text
from crucible_lineage.statements.statements import HOLD, REVOKE, SIGN, About, Statement
from crucible_lineage.statements.stating import (
    LIFTED,
    certificates_as_of,
    certify,
    lift,
    moment,
    put_on_hold,
    sign,
)
from crucible_lineage.text.amounts import amount
from crucible_lineage.text.times import utc

Why = Annotated[str, option("Why, in your own words.")]
Of = Annotated[str | None, option("Project of the statement; by default, that of DATASETS.", metavar="P")]


@act("hold")
def hold_command(
    session: Session, datasets: Annotated[Sequence[str], argument()] = (), *,
    instrument: Annotated[
        str | None, option("All that this instrument measured, instead of DATASETS.", metavar="NAME")
    ] = None,
    since: Annotated[
        str | None, option(
            "With --instrument: measured at that time or later.", "--from", metavar="TIME", needs="instrument"
        )
    ] = None,
    until: Annotated[
        str | None, option(
            "With --instrument: measured before that time. Otherwise the day from which `status` warns about the hold.",
            metavar="TIME",
        )
    ] = None,
    code: Annotated[
        str | None, option(
            "All that this code made or makes; the beginning of the fingerprint is enough.", metavar="FINGERPRINT"
        )
    ] = None,
    why: Why,
    flag: Annotated[
        str, option("Set a flag of this name instead: it warns, but stops nothing.", metavar="NAME")
    ] = "",
    project: Of = None,
) -> Done:  # fmt: skip
    """Put DATASETS on hold: nothing is made from them or their descendants until `lift`.

    Existing descendants are doubtful. Nothing is deleted, and no id changes.
    """
    if sum(map(bool, (datasets, instrument, code))) != 1:
        raise InputError("hold: name datasets, or one of --instrument and --code")
    first = moment("--from", since) if since else ""
    last = moment("--until", until) if until else ""
    if instrument and first and last and utc(first) >= utc(last):
        raise InputError(f"hold: --from {since} is not before --until {until}")
    if instrument:
        about, due = About(instrument=instrument, since=first, until=last), ""
    else:
        ids = dict.fromkeys(find_mfid(session, text) for text in datasets)
        about, due = About(tuple(ids), code=code or ""), last[:10]
    target = project or ("" if about.datasets else find_project(session, None))
    outcome = put_on_hold(session, about, why, project=target, flag=flag, due=due)
    statement = outcome.statement
    state = f"has the flag {statement.flag}" if statement.flag else "is on hold"
    text = f"{statement.about} {state} {statement.attribution}"
    return Done(outcome, [f"{text}{'' if outcome.is_new else ' (as before)'}", _undo(statement)])


def _undo(statement: Statement) -> str:
    return f"statement {statement.mfid}; to lift it: {next_command('lift', statement.mfid)}"


@act("sign")
def sign_command(
    session: Session, datasets: Annotated[Sequence[str], argument()], *, why: Why = "", project: Of = None
) -> Done:
    """Sign DATASETS. A candidate with all its signatures becomes current; the next run makes what waits for it."""
    outcome = sign(session, [find_mfid(session, text) for text in datasets], why, project=project or "")
    statement = outcome.statement
    signed = f"is signed by {statement.who or statement.by}{'' if outcome.is_new else ' (as before)'}"
    lines = [
        f"{mfid} {signed}" + (f"; {amount(n, 'more signature')} needed, of {outcome.whose[mfid]}" if n else "")
        for mfid, n in outcome.missing.items()
    ]
    return Done(outcome, [*lines, _undo(statement)])


@act("certify")
def certify_command(
    session: Session, calibration: Annotated[str, argument()], *,
    fields: Annotated[
        Sequence[str], option(
            "For which data, as in instrument='Raman 1' or metadata.grating=1800; repeatable.", "--for",
            metavar="FIELD=VALUE",
        )
    ],
    where: Annotated[str, option("Only for data that meet this condition.", metavar="CONDITION")] = "",
    since: Annotated[str, option("For data measured at that time or later (UTC).", "--from", metavar="TIME")],
    until: Annotated[
        str, option("For data measured before; `next`: until the next one starts.", metavar="TIME")
    ] = "",
    kind: Annotated[str, option("The kind of calibration; by default, what was measured in it.")] = "",
    why: Why,
    replaced: Annotated[bool, option("End, for that time, others for the same data.", "--replace")] = False,
    project: Annotated[
        str, option("Project of the statement; by default, the calibration's.", metavar="P")
    ] = "",
) -> Done:  # fmt: skip
    """State when CALIBRATION is valid, and for which data. Pipelines select calibrations by this.

    A second calibration for the same data and time is refused, unless it replaces the first.
    """
    mfid = find_mfid(session, calibration)
    pairs = (read_pair("--for", text, "FIELD=VALUE, as in --for instrument='Raman 1'") for text in fields)
    values = {name: read_value(name, value.strip()) for name, value in pairs}
    outcome = certify(
        session, mfid, values, since, until, kind=kind, where=where, why=why, project=project, replaced=replaced,
    )  # fmt: skip
    known = certificates_as_of(session, outcome.statement.project)
    (certificate,) = (certificate for certificate in known if certificate.statement == outcome.statement.mfid)
    valid = ", ".join(map(range_text, certificate.spans))
    line = f"{mfid} is the {certificate.kind} of {certificate.scope} {valid}{'' if outcome.is_new else ' (as before)'}"
    return Done({**outcome.to_json(), "certificate": certificate}, [line, _undo(outcome.statement)])


@act("lift")
def lift_command(
    session: Session, targets: Annotated[Sequence[str], argument("STATEMENT|DATASET...")], *,
    kind: Annotated[str | None, option("Which of the statements about a DATASET.", choices=LIFTED)] = None,
    why: Why = "",
) -> Done:  # fmt: skip
    """Lift a hold, flag, signature, certificate or other statement, and say what follows.

    A DATASET stands for all statements of one kind about it. Nothing is computed; the statement is kept, as lifted.
    """
    lifted = lift(session, [find_mfid(session, text) for text in targets], why, kind=kind or "")
    done = [f"{statement}: the {statement.kind} {statement.attribution} is lifted" for statement in lifted]
    follows = [line for statement in lifted for line in _follows(session, statement)]
    return Done({"lifted": lifted, "follows": follows}, [*done, *follows])


def _follows(session: Session, lifted: Statement) -> Iterator[str]:
    """Yield what follows from lifting a statement."""
    if lifted.verb in (HOLD, SIGN):
        doubts = session.effects.doubts(lifted.about.datasets, lifted.project)
        for mfid in lifted.about.datasets:
            yield doubts[mfid].message(mfid) if mfid in doubts else f"{mfid} is not on hold"
    if lifted.verb == REVOKE:
        for statement in session.mirror.statements(lifted.revokes).values():
            yield f"{statement}: the {statement.kind} {statement.attribution} counts again"
    if certificate := certificate_in(lifted):
        yield from after_lifting(session, certificate)
