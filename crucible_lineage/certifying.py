"""Certifying calibrations, and taking that back: one statement each, refused where it would contradict another one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from crucible_lineage.amounts import amount
from crucible_lineage.calibrations import (
    FIELDS,
    NEXT,
    NO_END,
    Certificate,
    Span,
    certificates_of,
    overlapping,
    range_text,
)
from crucible_lineage.condition import parse_condition
from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError
from crucible_lineage.session import Session
from crucible_lineage.statements import CERTIFY, DECERTIFY, About, ActiveStatements, Statement, in_force
from crucible_lineage.stating import StatementOutcome, known_statements, state
from crucible_lineage.times import utc

OF_METADATA = "metadata."
SHORT = {"instrument": "instrument_name"}


@dataclass(frozen=True)
class Decertification:
    """What was taken back: the statement, and the certificates with the ranges that they have lost."""

    stating: StatementOutcome
    lost: tuple[tuple[Certificate, tuple[Span, ...]], ...]


def certify(
    session: Session,
    dataset: str,
    fields: Mapping[str, str],
    since: str,
    until: str = "",
    *,
    kind: str = "",
    where: str = "",
    why: str = "",
    project: str = "",
    replaced: bool | Collection[str] = False,
    place: str = "",
) -> StatementOutcome:
    """State that a dataset is a valid calibration of the data with these fields from one moment until another one.

    `until` is empty for no end, or `next`: until the next certificate of the same data begins. Where another
    certificate is valid in that time, it is refused, unless it is `replaced`: True, or ids of statements, for which
    the same holds. `place` is the pipeline and step that declares it. Raises InputError for what is not understood,
    and where there is no such dataset.
    """
    said = validity(fields, since, until, where)
    found = _dataset(session, dataset)
    kind, project = kind or found[0], project or found[1]
    if not kind:
        raise InputError(f"certify {dataset}: it has no measurement; name the kind of calibration with --kind")
    standing = known_statements(session)[1]
    body = {"kind": kind, **said, **({"place": place} if place else {})}
    new = Statement("", project, CERTIFY, About((dataset,)), "", datetime.now(UTC).isoformat(), body=body)
    (own,), others = _with(standing, new, project)
    same = [one for one in others if one.key == own.key]
    for one in same:
        if (one.dataset, one.since, one.until, one.spans) == (own.dataset, own.since, own.until, own.spans):
            return StatementOutcome(standing.statements[one.statement], is_new=False)
    against = [one for one in same if any(overlapping(span, [one]) for span in own.spans)]
    if replaced is not True and (left := [one for one in against if one.statement not in (replaced or ())]):
        raise InputError(_refusal(own, left))
    _require_counting(session, standing, "certify", project, against)
    before = [one for one in same if (one.dataset, one.since, one.until) == (own.dataset, own.since, own.until)]
    if over := sorted({one.statement for one in (*against, *before)}):
        body["over"] = over
    return state(session, project, CERTIFY, About((dataset,)), why=why, body=body)


def decertify(
    session: Session,
    dataset: str,
    since: str = "",
    until: str = "",
    *,
    kind: str = "",
    fields: Mapping[str, str] | None = None,
    why: str = "",
    project: str = "",
) -> Decertification:
    """State that a calibration is not valid in a time after all: by default in all of it.

    With `kind` and `fields` only as a calibration of these. Raises InputError if it is not certified in that time.
    """
    _, lies_in = _dataset(session, dataset)
    project = project or lies_in
    wanted = {_named(name): value for name, value in (fields or {}).items()}
    standing = known_statements(session)[1]
    mine = [
        one
        for one in certificates_of(standing)
        if one.dataset == dataset and kind in ("", one.kind) and (not wanted or dict(one.fields) == wanted)
    ]
    first = utc(moment("--from", since)) if since else min((one.since for one in mine), default=NO_END)
    span = first, utc(moment("--until", until)) if until else NO_END
    if since and until and span[0] >= span[1]:
        raise InputError(f"decertify {dataset}: --from {since} is not before --until {until}")
    cut = overlapping(span, mine)
    if not cut:
        raise _not_certified(dataset, mine, span if since else None)
    _require_counting(session, standing, "decertify", project, cut)
    body = {"from": span[0].isoformat(), "over": sorted(one.statement for one in cut)}
    body |= {"until": span[1].isoformat()} if until else {}
    stating = state(session, project, DECERTIFY, About((dataset,)), why=why, body=body)
    return Decertification(stating, tuple((one, _common(one, span)) for one in cut))


def _not_certified(dataset: str, mine: Sequence[Certificate], span: Span | None) -> InputError:
    """Return the error of a calibration that is not certified in a time, or at all, with when it is."""
    said = f" in the time {range_text(span)}" if span else ""
    valid = "; ".join(range_text(part) for one in mine for part in one.spans)
    return InputError(f"decertify {dataset}: it is not certified{said}" + (f"; it is {valid}" if valid else ""))


def _common(certificate: Certificate, span: Span) -> tuple[Span, ...]:
    """Return the parts of a certificate's time that lie in `span`."""
    first, end = span
    return tuple((max(a, first), min(b, end)) for a, b in certificate.spans if a < end and first < b)


def certificates_as_of(
    session: Session, project: str, kind: str | None = None, as_of: str = "", campaign: str = ""
) -> list[Certificate]:
    """Return the certificates that count in a project; with `as_of`, going by what was stated until then.

    With `campaign`, as they would be if that one were promoted.
    """
    if not session.is_away:
        session.mirror.sync_statements()
    if not as_of and not campaign:
        return session.mirror.certificates(project, kind)
    until = as_of_moment(as_of) if as_of else NO_END
    stated = in_force(one for one in session.mirror.statements().values() if utc(one.when) < until)
    return [
        one for one in certificates_of(stated, campaign) if kind in (None, one.kind) and stated.counts(one, project)
    ]


def as_of_moment(text: str) -> datetime:
    """Return the moment up to which statements are meant: of a date, the end of that day in UTC."""
    found = utc(moment("--as-of", text))
    try:
        date.fromisoformat(text.strip())
    except ValueError:
        return found
    return found + timedelta(days=1)


def moment(option: str, text: str) -> str:
    """Return a moment in ISO 8601, in UTC. Raises InputError, naming the option, if it is none."""
    try:
        return utc(text).astimezone(UTC).isoformat()
    except ValueError as error:
        raise InputError(f"{option} {text}: write it as in 2024-05-10 or 2024-05-10T12:00:00Z") from error


def validity(fields: Mapping[str, str], since: str, until: str, where: str = "") -> dict[str, object]:
    """Return what of a certificate says for which data and when, checked."""
    named = {_named(name): str(value) for name, value in fields.items()}
    if not named:
        raise InputError("certify: say of which data, as in --for instrument='Raman 1'")
    said: dict[str, object] = {"for": dict(sorted(named.items())), "from": moment("--from", since)}
    if where:
        for name in parse_condition(where).names:
            _named(name)
        said["where"] = where.strip()
    if until:
        said["until"] = until if until == NEXT else moment("--until", until)
        if until != NEXT and utc(str(said["from"])) >= utc(str(said["until"])):
            raise InputError(f"certify: --from {since} is not before --until {until}")
    return said


def _named(name: str) -> str:
    full = SHORT.get(name.strip(), name.strip())
    if full not in FIELDS and not (full.startswith(OF_METADATA) and full != OF_METADATA):
        raise InputError(
            f"certify: data have no field {name!r}; it is one of {', '.join((*SHORT, *FIELDS))} or metadata.NAME"
        )
    return full


def _dataset(session: Session, mfid: str) -> tuple[str, str]:
    """Return what was measured in a dataset, and the project that it lies in."""
    try:
        found = session.client.datasets.get(mfid)
    except (ForbiddenError, NotFoundError) as error:
        raise InputError(f"dataset {mfid} does not exist, or is not visible to this key") from error
    if not found.project_id:
        raise InputError(f"dataset {mfid} belongs to no project")
    return found.measurement or "", found.project_id


def _with(standing: ActiveStatements, new: Statement, project: str) -> tuple[list[Certificate], list[Certificate]]:
    """Return what a new certificate would be, and what the others in the project would be beside it."""
    both = ActiveStatements({**standing.statements, new.mfid: new}, standing.trusted)
    found = [one for one in certificates_of(both) if both.counts(one, project)]
    return [one for one in found if not one.statement], [one for one in found if one.statement]


def _require_counting(
    session: Session, standing: ActiveStatements, act: str, project: str, ended: Iterable[Certificate]
) -> None:
    """Raise InputError if a statement in a project would not end one of these certificates, which lie in others."""
    by = str(session.agent.get("unique_id") or "")
    own = Statement("", project, DECERTIFY, About(), by, "")
    for one in ended:
        if not standing.counts(own, one.project):
            raise InputError(
                f"{act} in project {project}: {one.dataset} is certified in project {one.project}, where statements of "
                f"{project} do not count. Nothing was stated; state it there, with --project {one.project}"
            )


def _refusal(own: Certificate, against: list[Certificate]) -> str:
    named = "; ".join(f"{one.dataset} is {', '.join(map(range_text, one.spans))} ({one.said})" for one in against[:3])
    more = f"; and {amount(len(against) - 3, 'certificate')} more" if len(against) > 3 else ""
    return (
        f"certify {own.dataset} {range_text(own.stated)}: another {own.kind} of {own.of} is certified in that time: "
        f"{named}{more}. Nothing was stated; --replace ends the others for that time, --until shortens this one"
    )
