"""Certifying and decertifying calibrations: one statement each, refused if it contradicts another one."""

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
    compared,
    overlapping,
    range_text,
)
from crucible_lineage.condition import parse_condition
from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError
from crucible_lineage.session import Session
from crucible_lineage.statements import CERTIFY, DECERTIFY, About, ActiveStatements, Statement, in_force
from crucible_lineage.stating import StatementOutcome, known_statements, state
from crucible_lineage.times import utc

METADATA_PREFIX = "metadata."
SHORT = {"instrument": "instrument_name"}


@dataclass(frozen=True)
class Decertification:
    """A decertification: its statement, and the certificates with the ranges that they lost."""

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
    declared_by: str = "",
) -> StatementOutcome:
    """State that a dataset is a valid calibration of the data with these fields from one moment until another one.

    `until` is empty for no end, or `next`: until the next certificate of the same data begins. An overlap with another
    certificate is refused, unless that is `replaced`: True for all, or the ids of their statements. `declared_by` is
    the pipeline and step that declares it. Raises InputError for invalid arguments, and if the dataset does not exist.
    """
    stated = validity(fields, since, until, where)
    measurement, own_project = _dataset(session, dataset)
    kind, project = kind or measurement, project or own_project
    if not kind:
        raise InputError(f"certify {dataset}: it has no measurement; name the kind of calibration with --kind")
    active = known_statements(session)[1]
    body = {"kind": kind, **stated, **({"place": declared_by} if declared_by else {})}
    new = Statement("", project, CERTIFY, About((dataset,)), "", datetime.now(UTC).isoformat(), body=body)
    (own,), others = _with(active, new, project)
    same = [one for one in others if one.key == own.key]
    for one in same:
        if (one.dataset, one.since, one.until, one.spans) == (own.dataset, own.since, own.until, own.spans):
            return StatementOutcome(active.statements[one.statement], is_new=False)
    conflicts = [one for one in same if any(overlapping(span, [one]) for span in own.spans)]
    if replaced is not True and (left := [one for one in conflicts if one.statement not in (replaced or ())]):
        raise InputError(_refusal(own, left))
    _require_counting(session, active, "certify", project, conflicts)
    before = [one for one in same if (one.dataset, one.since, one.until) == (own.dataset, own.since, own.until)]
    if over := sorted({one.statement for one in (*conflicts, *before)}):
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
    """State that a calibration is not valid in a range after all, by default at any time.

    `kind` and `fields` limit that to a calibration of such data. Raises InputError if it is not certified in that
    range.
    """
    _, own_project = _dataset(session, dataset)
    project = project or own_project
    named = compared({_named(name): value for name, value in (fields or {}).items()})
    active = known_statements(session)[1]
    mine = [
        one
        for one in certificates_of(active)
        if one.dataset == dataset and kind in ("", one.kind) and (not named or compared(dict(one.fields)) == named)
    ]
    first = utc(moment("--from", since)) if since else min((one.since for one in mine), default=NO_END)
    span = first, utc(moment("--until", until)) if until else NO_END
    if since and until and span[0] >= span[1]:
        raise InputError(f"decertify {dataset}: --from {since} is not before --until {until}")
    cut = overlapping(span, mine)
    if not cut:
        raise _not_certified(dataset, mine, span if since else None)
    _require_counting(session, active, "decertify", project, cut)
    body = {"from": span[0].isoformat(), "over": sorted(one.statement for one in cut)}
    body |= {"until": span[1].isoformat()} if until else {}
    stating = state(session, project, DECERTIFY, About((dataset,)), why=why, body=body)
    return Decertification(stating, tuple((one, _common(one, span)) for one in cut))


def _not_certified(dataset: str, mine: Sequence[Certificate], span: Span | None) -> InputError:
    """Return the error for a calibration that is not certified in a range, with the ranges in which it is."""
    requested = f" in the time {range_text(span)}" if span else ""
    valid = "; ".join(range_text(part) for one in mine for part in one.spans)
    return InputError(f"decertify {dataset}: it is not certified{requested}" + (f"; it is {valid}" if valid else ""))


def _common(certificate: Certificate, span: Span) -> tuple[Span, ...]:
    """Return the parts of a certificate's ranges that lie in `span`."""
    first, end = span
    return tuple((max(a, first), min(b, end)) for a, b in certificate.spans if a < end and first < b)


def certificates_as_of(
    session: Session, project: str, kind: str | None = None, as_of: str = "", campaign: str = ""
) -> list[Certificate]:
    """Return the certificates that count in a project, with `as_of` by the statements made until then.

    With `campaign`, return them as if that campaign were promoted.
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
    """Return the moment until which statements count: of a date, the end of that day in UTC."""
    parsed = utc(moment("--as-of", text))
    try:
        date.fromisoformat(text.strip())
    except ValueError:
        return parsed
    return parsed + timedelta(days=1)


def moment(option: str, text: str) -> str:
    """Return a moment in ISO 8601, in UTC. Raises InputError that names the option if the text is not one."""
    try:
        return utc(text).astimezone(UTC).isoformat()
    except ValueError as error:
        raise InputError(f"{option} {text}: write it as in 2024-05-10 or 2024-05-10T12:00:00Z") from error


def validity(fields: Mapping[str, str], since: str, until: str, where: str = "") -> dict[str, object]:
    """Return the part of a certificate's body that gives its data and its range, checked."""
    named = {_named(name): str(value) for name, value in fields.items()}
    if not named:
        raise InputError("certify: name the data, as in --for instrument='Raman 1'")
    body: dict[str, object] = {"for": dict(sorted(named.items())), "from": moment("--from", since)}
    if where:
        for name in parse_condition(where).names:
            _named(name)
        body["where"] = where.strip()
    if until:
        body["until"] = until if until == NEXT else moment("--until", until)
        if until != NEXT and utc(str(body["from"])) >= utc(str(body["until"])):
            raise InputError(f"certify: --from {since} is not before --until {until}")
    return body


def _named(name: str) -> str:
    full = SHORT.get(name.strip(), name.strip())
    if full not in FIELDS and not (full.startswith(METADATA_PREFIX) and full != METADATA_PREFIX):
        raise InputError(
            f"certify: data have no field {name!r}; use one of {', '.join((*SHORT, *FIELDS))} or metadata.NAME"
        )
    return full


def _dataset(session: Session, mfid: str) -> tuple[str, str]:
    """Return a dataset's measurement and its project."""
    try:
        record = session.client.datasets.get(mfid)
    except (ForbiddenError, NotFoundError) as error:
        raise InputError(f"dataset {mfid} does not exist, or is not visible to this key") from error
    if not record.project_id:
        raise InputError(f"dataset {mfid} belongs to no project")
    return record.measurement or "", record.project_id


def _with(active: ActiveStatements, new: Statement, project: str) -> tuple[list[Certificate], list[Certificate]]:
    """Return the new certificate, and the others of the project, as they would be once it is stated."""
    both = ActiveStatements({**active.statements, new.mfid: new}, active.trusted)
    counting = [one for one in certificates_of(both) if both.counts(one, project)]
    return [one for one in counting if not one.statement], [one for one in counting if one.statement]


def _require_counting(
    session: Session, active: ActiveStatements, act: str, project: str, ended: Iterable[Certificate]
) -> None:
    """Raise InputError unless statements in `project` count in the projects of all certificates that would end."""
    by = str(session.agent.get("unique_id") or "")
    own = Statement("", project, DECERTIFY, About(), by, "")
    for one in ended:
        if not active.counts(own, one.project):
            raise InputError(
                f"{act} in project {project}: {one.dataset} is certified in project {one.project}, where statements of "
                f"{project} do not count. Nothing was stated; state it there, with --project {one.project}"
            )


def _refusal(own: Certificate, conflicts: list[Certificate]) -> str:
    named = "; ".join(
        f"{one.dataset} is {', '.join(map(range_text, one.spans))} ({one.attribution})" for one in conflicts[:3]
    )
    more = f"; and {amount(len(conflicts) - 3, 'certificate')} more" if len(conflicts) > 3 else ""
    return (
        f"certify {own.dataset} {range_text(own.stated)}: another {own.kind} of {own.scope} is certified in that time: "
        f"{named}{more}. Nothing was stated; --replace ends the others for that time, --until shortens this one"
    )
