"""Calibrations and when they are valid: certificates, what is left of them, and which one fits an exposure. Pure.

A certificate is a statement: a dataset calibrates data of one kind, with given fields, from a moment (included) until
another one (excluded), in UTC. Certificates are never edited. What a later statement names in `over` is cut out of
them, by the range of that statement: so a certificate is split, shortened or ended, and the order in which statements
arrive does not matter. One that lasts `until: next` ends where the next certificate of the same data begins.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

from crucible_lineage.amounts import value_text
from crucible_lineage.condition import Condition, parse_condition
from crucible_lineage.errors import InputError
from crucible_lineage.statements import CERTIFY, DECERTIFY, PROMOTE, About, ActiveStatements, Statement, promoted_in
from crucible_lineage.times import moment_text, utc

FIELDS = ("instrument_name", "measurement", "data_type", "session_name", "dataset_name")  # beside metadata.NAME
NEXT = "next"  # the end of a certificate that lasts until the next one begins
NO_END = datetime.max.replace(tzinfo=UTC)
Span = tuple[datetime, datetime]
Values = Callable[[str], Any]  # the value of a field, as `instrument_name` or `metadata.grating`
_Key = tuple[str, tuple[tuple[str, str], ...], str]


@dataclass(frozen=True)
class Certificate:
    """A certificate in force. `fields` and `where` say of which data the `dataset` is a calibration of this `kind`.

    `place` is the pipeline and step that declared it, empty where a person did.

    `since` and `until` are as they were stated, `until` empty for no end; `spans` are what is left of that.
    """

    statement: str
    project: str
    account: str
    dataset: str
    kind: str
    fields: tuple[tuple[str, str], ...]
    where: str
    since: datetime
    until: str
    who: str
    when: str
    why: str
    place: str = ""
    spans: tuple[Span, ...] = ()

    @property
    def key(self) -> _Key:
        """Which data it is about: certificates with the same key must not overlap."""
        return self.kind, tuple((name, _compared(name, value)) for name, value in self.fields), self.where

    @property
    def stated(self) -> Span:
        """The range as it was stated; one that lasts until the next begins has no end of its own."""
        return self.since, utc(self.until) if self.until not in ("", NEXT) else NO_END

    @property
    def of(self) -> str:
        """Of which data it is a calibration, in words."""
        parts = [f"{name}={value}" for name, value in self.fields]
        return ", ".join([*parts, *([self.where] if self.where else [])])

    @property
    def said(self) -> str:
        """By whom, when and why it was stated."""
        return f"certified by {self.who} on {self.when[:10]}" + (f": {self.why}" if self.why else "")

    def span_at(self, moment: datetime) -> Span | None:
        """Return the part of its validity that a moment lies in."""
        return next((span for span in self.spans if span[0] <= moment < span[1]), None)

    def to_json(self) -> dict[str, Any]:
        """Return it as commands print it, with the ranges in which it is valid."""
        return {
            "statement": self.statement,
            "dataset": self.dataset,
            "kind": self.kind,
            "for": dict(self.fields),
            "where": self.where or None,
            "valid": [{"from": since.isoformat(), "until": _until(until)} for since, until in self.spans],
            "by": self.who,
            "when": self.when,
            "why": self.why,
        }


def range_text(span: Span) -> str:
    """Return a range as messages give it, with the time of day only where it is not midnight."""
    since, until = (_moment(one) for one in span)
    return f"from {since}" + (f" until {until}" if span[1] != NO_END else " on")


def certificate_document(one: Certificate, span: Span, as_of: str = "") -> dict[str, Any]:
    """Return what the record of a result says of the certificate by which a calibration was chosen for it."""
    validity = {"from": span[0].isoformat(), "until": _until(span[1])}
    said = {"by": one.who, "when": one.when, "why": one.why}
    return {"statement": one.statement, **validity, **said, **({"as_of": as_of} if as_of else {})}


def certified_text(said: Mapping[str, Any]) -> str:
    """Return what such a document says, in words; empty for one that says nothing."""
    try:
        span = utc(str(said.get("from"))), utc(str(said["until"])) if said.get("until") else NO_END
    except ValueError:
        return ""
    return f"certified {range_text(span)}"


def validity_text(stated: Statement) -> str:
    """Return what a statement says of the validity of a calibration, in words; empty for other statements."""
    body = stated.body
    if stated.verb not in (CERTIFY, DECERTIFY):
        return ""
    try:
        since, until = utc(str(body.get("from"))), str(body.get("until") or "")
        ends = NO_END if until in ("", NEXT) else utc(until)
    except ValueError:
        return ""
    lasts = range_text((since, ends)).removesuffix(" on") + (" until the next one" if until == NEXT else "")
    lasts += " on" if not until else ""
    if stated.verb == DECERTIFY:
        return f"not valid {lasts}, decertified"
    one = _certificate(stated)
    return f"{one.kind} of {one.of} {lasts}, certified" if one else ""


def _moment(one: datetime) -> str:
    at = one.astimezone(UTC)
    return f"{at:%Y-%m-%d}" if (at.hour, at.minute, at.second, at.microsecond) == (0, 0, 0, 0) else moment_text(at)


def _until(until: datetime) -> str | None:
    return None if until == NO_END else until.isoformat()


def certificates_of(found: ActiveStatements, campaign: str = "") -> list[Certificate]:
    """Return the certificates in force, the earliest first, with what is left of the time that each was stated for.

    Those of a campaign are among them once it is promoted. With `campaign`, those of that one are as well, and end all
    others of the same data for their time, as they would if it were promoted.
    """
    certificates = [one for stated in found.statements.values() if (one := _certificate(stated))]
    promoted = promoted_in(found)
    for mfid in {*promoted, campaign} & found.statements.keys():
        certificates += _of_campaign(found.statements[mfid], promoted.get(mfid, ""))
    begins: dict[tuple[str, _Key], list[datetime]] = {}
    for one in certificates:
        begins.setdefault((one.project.casefold(), one.key), []).append(one.since)
    for moments in begins.values():
        moments.sort()
    cuts = _cuts(found, certificates)
    for one in certificates if campaign else ():
        cuts.setdefault(one, []).extend(
            draft.stated for draft in certificates
            if draft.statement == campaign != one.statement and draft.key == one.key
        )  # fmt: skip
    left = []
    for one in certificates:
        since, until = one.stated
        if one.until == NEXT:
            moments = begins[one.project.casefold(), one.key]
            at = bisect_right(moments, since)
            until = moments[at] if at < len(moments) else NO_END
        left.append(replace(one, spans=_without((since, until), cuts.get(one, ()))))
    return sorted(left, key=lambda one: (one.since, one.statement))


def _certificate(stated: Statement) -> Certificate | None:
    """Read the certificate that a statement is; None for other statements, and for what is not understood."""
    body, datasets = stated.body, stated.about.datasets
    fields = body.get("for")
    if stated.verb != CERTIFY or len(datasets) != 1 or not isinstance(fields, Mapping) or not body.get("kind"):
        return None
    where, until = str(body.get("where") or ""), str(body.get("until") or "")
    try:
        since = utc(str(body.get("from")))
        if until not in ("", NEXT):
            utc(until)
        if where:
            parse_condition(where)
    except (ValueError, InputError):
        return None
    return Certificate(
        statement=stated.mfid,
        project=stated.project,
        account=stated.account,
        dataset=datasets[0],
        kind=str(body["kind"]),
        fields=tuple(sorted((str(name), str(value)) for name, value in fields.items())),
        where=where,
        since=since,
        until=until,
        who=stated.who or stated.by,
        when=stated.when,
        why=stated.why,
        place=str(body.get("place") or ""),
    )


def _of_campaign(stated: Statement, since: str) -> list[Certificate]:
    """Return the certificates of a campaign, which is promoted since that moment, or is taken to be."""
    listed = stated.body.get("certificates")
    found = []
    for body in listed if isinstance(listed, list | tuple) else ():
        about = About((str(body.get("dataset")),))
        when, why = since or stated.when, stated.why or f"campaign {stated.body.get('name')}"
        if one := _certificate(replace(stated, verb=CERTIFY, about=about, body=body, when=when, why=why)):
            found.append(one)
    return found


def _cuts(found: ActiveStatements, certificates: Sequence[Certificate]) -> dict[Certificate, list[Span]]:
    """Return what is cut out of certificates by statements that count where these lie.

    A certificate ends others of the same data, a decertification those of its dataset, the promotion of a campaign
    those of the same data as one of its certificates.
    """
    known: dict[str, list[Certificate]] = {}
    for one in certificates:
        known.setdefault(one.statement, []).append(one)
    cuts: dict[Certificate, list[Span]] = {}
    for stated in found.statements.values():
        over = stated.body.get("over") if stated.verb in (CERTIFY, DECERTIFY, PROMOTE) else None
        if not isinstance(over, list | tuple):
            continue
        named = [one for mfid in over for one in known.get(str(mfid), ()) if found.counts(stated, one.project)]
        ending = known.get(str(stated.body.get("campaign")) if stated.verb == PROMOTE else stated.mfid, [])
        for one in named:
            if stated.verb == DECERTIFY:
                spans = [_stated_span(stated)] if one.dataset in stated.about.datasets else []
            else:
                spans = [other.stated for other in ending if other.key == one.key and other is not one]
            cuts.setdefault(one, []).extend(filter(None, spans))
    return cuts


def _stated_span(stated: Statement) -> Span | None:
    try:
        since, until = utc(str(stated.body.get("from"))), str(stated.body.get("until") or "")
        return since, utc(until) if until not in ("", NEXT) else NO_END
    except ValueError:
        return None


def _without(span: Span, cuts: Iterable[Span]) -> tuple[Span, ...]:
    """Return what is left of a range."""
    left = [span] if span[0] < span[1] else []
    for since, until in cuts:
        parts = [((begin, min(end, since)), (max(begin, until), end)) for begin, end in left]
        left = [part for pair in parts for part in pair if part[0] < part[1]]
    return tuple(sorted(set(left)))


def certificates_to_json(found: ActiveStatements) -> Any:
    """Return the certificates in force as JSON, for `counting_certificates`."""
    rows = []
    for one in certificates_of(found):
        spans = [[since.isoformat(), _until(until)] for since, until in one.spans]
        own = (one.statement, one.project, one.account, one.dataset, one.kind, one.fields, one.where)
        rows.append([*own, one.since.isoformat(), one.until, one.who, one.when, one.why, one.place, spans])
    return [rows, {project: sorted(whose) for project, whose in found.trusted.items()}]


def counting_certificates(found: Any, project: str, kind: str | None = None) -> list[Certificate]:
    """Return those of the certificates in such JSON that count in a project, of one kind or of all."""
    rows, trusted = found
    trusting = ActiveStatements({}, {name: frozenset(whose) for name, whose in trusted.items()})
    read = (_from_row(row) for row in rows if kind is None or row[4] == kind)
    return [one for one in read if trusting.counts(one, project)]


def _from_row(row: Sequence[Any]) -> Certificate:
    statement, project, account, dataset, kind, fields, where, since, until, who, when, why, place, spans = row
    named = tuple((name, value) for name, value in fields)
    left = tuple(
        (datetime.fromisoformat(begin), datetime.fromisoformat(end) if end else NO_END) for begin, end in spans
    )
    begun = datetime.fromisoformat(since)
    return Certificate(
        statement, project, account, dataset, kind, named, where, begun, until, who, when, why, place, left
    )


@dataclass(frozen=True)
class CertificateMatch:
    """The certificates of which the data are, at a moment: those valid then, and the nearest that ended and begin."""

    valid: tuple[Certificate, ...] = ()
    before: Certificate | None = None
    after: Certificate | None = None
    ended: datetime | None = None
    begins: datetime | None = None

    def nearest(self, moment: datetime) -> tuple[Certificate, str, float] | None:
        """Return the nearer one of those that ended before and begin after, its side, and its distance in seconds."""
        sides = []
        if self.before and self.ended:
            sides.append(((moment - self.ended).total_seconds(), "before", self.before))
        if self.after and self.begins:
            sides.append(((self.begins - moment).total_seconds(), "after", self.after))
        if not sides:
            return None
        seconds, side, one = min(sides, key=lambda found: (found[0], found[1] != "before"))
        return one, side, seconds


class _Timeline:
    """What is left of the certificates of just the same data, sorted for both sides."""

    def __init__(self, parts: Iterable[tuple[Span, Certificate]]) -> None:
        self.by_begin = sorted(parts, key=lambda part: (part[0], part[1].statement))
        self.by_end = sorted(self.by_begin, key=lambda part: (part[0][1], part[1].statement))
        self._begins = [span[0] for span, _ in self.by_begin]
        self._ends = [span[1] for span, _ in self.by_end]
        self._latest = list(accumulate((span[1] for span, _ in self.by_begin), max))

    def at(self, moment: datetime) -> Iterator[Certificate]:
        index = bisect_right(self._begins, moment) - 1
        while index >= 0 and self._latest[index] > moment:
            (_, until), one = self.by_begin[index]
            if until > moment:
                yield one
            index -= 1

    def before(self, moment: datetime) -> tuple[datetime, Certificate] | None:
        index = bisect_right(self._ends, moment)
        return (self._ends[index - 1], self.by_end[index - 1][1]) if index else None

    def after(self, moment: datetime) -> tuple[datetime, Certificate] | None:
        index = bisect_right(self._begins, moment)
        return (self._begins[index], self.by_begin[index][1]) if index < len(self._begins) else None


class Calibrations:
    """Certificates, by kind and by what data must say for them."""

    def __init__(self, certificates: Iterable[Certificate]) -> None:
        grouped: dict[
            str, dict[tuple[tuple[str, ...], str], dict[tuple[str, ...], list[tuple[Span, Certificate]]]]
        ] = {}
        for one in certificates:
            names = tuple(name for name, _ in one.fields)
            values = tuple(value for _, value in one.key[1])
            parts = grouped.setdefault(one.kind, {}).setdefault((names, one.where), {}).setdefault(values, [])
            parts += [(span, one) for span in one.spans]
        self._timelines = {
            kind: {
                (names, parse_condition(where) if where else None): {
                    values: _Timeline(parts) for values, parts in by_values.items()
                }
                for (names, where), by_values in groups.items()
            }
            for kind, groups in grouped.items()
        }

    @property
    def kinds(self) -> list[str]:
        """The kinds of calibrations that there are."""
        return sorted(self._timelines)

    def fitting(self, kind: str, value_of: Values, moment: datetime) -> CertificateMatch:
        """Return the certificates of a kind that data with these fields have, as of the moment they were measured."""
        timelines = list(self._of(kind, value_of))
        valid = [one for timeline in timelines for one in timeline.at(moment)]
        before = [found for timeline in timelines if (found := timeline.before(moment))]
        after = [found for timeline in timelines if (found := timeline.after(moment))]
        ended, earlier = max(before, key=_place, default=(None, None))
        begins, later = min(after, key=_place, default=(None, None))
        return CertificateMatch(tuple(sorted(valid, key=lambda one: one.statement)), earlier, later, ended, begins)

    def _of(self, kind: str, value_of: Values) -> Iterator[_Timeline]:
        for (names, condition), by_values in self._timelines.get(kind, {}).items():
            values = tuple(
                _compared(name, value_text(found)) for name in names if (found := value_of(name)) is not None
            )
            timeline = by_values.get(values)
            if timeline is not None and (condition is None or _holds(condition, value_of)):
                yield timeline


def _holds(condition: Condition, value_of: Values) -> bool:
    """Whether a condition holds; what cannot be compared does not."""
    try:
        return condition.holds(value_of, "the data")
    except InputError:
        return False


def _place(found: tuple[datetime, Certificate]) -> tuple[datetime, str]:
    return found[0], found[1].statement


def _compared(name: str, value: str) -> str:
    """A value as it is compared: instruments are called the same in capitals and small letters."""
    return value.casefold() if name == "instrument_name" else value


def overlapping(span: Span, others: Iterable[Certificate]) -> list[Certificate]:
    """Return the certificates of which some part is left in a range."""
    return [one for one in others if any(begin < span[1] and span[0] < end for begin, end in one.spans)]
