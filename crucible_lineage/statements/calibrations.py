"""Calibrations and when they are valid: certificates, their remaining ranges, and which one fits an exposure. Pure.

A certificate is a statement: a dataset calibrates data of one kind, with given fields, from a moment (included) until
another one (excluded), in UTC. Certificates are never edited. A later one that names them in `over` cuts its own range
out of them, which splits, shortens or ends them; the order in which statements arrive does not matter. One that lasts
`until: next` ends where the next certificate of the same data begins.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import accumulate, islice
from typing import Any, Generic, NamedTuple, TypeVar

from crucible_lineage.condition import parse_condition
from crucible_lineage.errors import InputError
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.statements.statements import CERTIFY, ActiveStatements, Statement
from crucible_lineage.text.amounts import value_text
from crucible_lineage.text.times import moment_text, utc

T = TypeVar("T")
NEXT = "next"  # the end of a certificate that lasts until the next one begins
NO_END = datetime.max.replace(tzinfo=UTC)
Span = tuple[datetime, datetime]
Values = Callable[[str], Any]  # the value of a field, as `instrument_name` or `metadata.grating`
_Key = tuple[str, tuple[tuple[str, str], ...], str]
_Values = tuple[str, ...]  # as texts for comparison


@dataclass(frozen=True)
class Certificate:
    """A certificate in force: `dataset` is the calibration of this `kind` of the data with `fields` and `where`.

    `since` and `until` are as stated, `until` empty for no end; `spans` are the ranges that remain. `declared_by` is
    the pipeline and step that declared it, empty for a person.
    """

    statement: str
    project: str
    account: str
    dataset: str
    kind: str
    fields: tuple[tuple[str, Any], ...]
    where: str
    since: datetime
    until: str
    who: str
    when: str
    why: str
    declared_by: str = ""
    spans: tuple[Span, ...] = ()

    @property
    def key(self) -> _Key:
        """The data it is about: certificates with the same key must not overlap."""
        return self.kind, tuple((name, value_text(value)) for name, value in self.fields), self.where

    @property
    def declared(self) -> Span:
        """The range as stated, without an end if it lasts until the next one begins."""
        return self.since, _end(self.until)

    @property
    def scope(self) -> str:
        """The data that it calibrates, as messages show them."""
        parts = [f"{name}={value}" for name, value in self.fields]
        return ", ".join([*parts, *([self.where] if self.where else [])])

    @property
    def attribution(self) -> str:
        """Who stated it, when and why, as messages show it."""
        return f"certified by {self.who} on {self.when[:10]}" + (f": {self.why}" if self.why else "")

    def span_at(self, moment: datetime) -> Span | None:
        """Return the remaining range that contains a moment."""
        return next((span for span in self.spans if span[0] <= moment < span[1]), None)

    def overlaps(self, span: Span) -> bool:
        """Return whether it has a remaining range within `span`."""
        return any(begin < span[1] and span[0] < end for begin, end in self.spans)

    def to_json(self) -> JsonObject:
        """Return the JSON that commands print, with the remaining ranges."""
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
    """Return a range as messages show it, with the time of day unless it is midnight."""
    since, until = (_moment(limit) for limit in span)
    return f"from {since}" + (f" until {until}" if span[1] != NO_END else " on")


def certificate_document(certificate: Certificate, span: Span, as_of: str = "") -> JsonObject:
    """Return the entry in a result's record for the certificate by which its calibration was chosen."""
    validity = {"from": span[0].isoformat(), "until": _until(span[1])}
    author = {"by": certificate.who, "when": certificate.when, "why": certificate.why}
    return {"statement": certificate.statement, **validity, **author, **({"as_of": as_of} if as_of else {})}


def certified_text(document: JsonMapping) -> str:
    """Return the range in such an entry as messages show it; empty if there is none."""
    span = _span(document)
    return f"certified {range_text(span)}" if span else ""


def validity_text(statement: Statement, spans: Sequence[Span]) -> str:
    """Return the validity that a statement gives to a calibration, in words; empty for other statements.

    `spans` are its remaining ranges; without any, the declared one is returned.
    """
    certificate = certificate_in(statement)
    if certificate is None:
        return ""
    lasts = ", ".join(map(range_text, spans)) or range_text(certificate.declared)
    return f"{certificate.kind} of {certificate.scope} {lasts}, certified"


def _moment(moment: datetime) -> str:
    at = moment.astimezone(UTC)
    return f"{at:%Y-%m-%d}" if (at.hour, at.minute, at.second, at.microsecond) == (0, 0, 0, 0) else moment_text(at)


def _until(until: datetime) -> str | None:
    return None if until == NO_END else until.isoformat()


def certificates_of(active: ActiveStatements) -> list[Certificate]:
    """Return the certificates in force with their remaining ranges, the earliest first."""
    certificates = [*filter(None, map(certificate_in, active.statements.values()))]
    begins: dict[tuple[str, _Key], list[datetime]] = {}
    for certificate in sorted(certificates, key=lambda certificate: certificate.since):
        begins.setdefault((certificate.project.casefold(), certificate.key), []).append(certificate.since)
    by_statement = {certificate.statement: certificate for certificate in certificates}
    cuts: dict[Certificate, list[Span]] = {}  # by others of the same data that count in their projects
    for ending in certificates:
        over = active.statements[ending.statement].body.get("over")
        for mfid in over if isinstance(over, list | tuple) else ():
            ended = by_statement.get(str(mfid))
            if ended and ended.key == ending.key and active.counts(ending, ended.project):
                cuts.setdefault(ended, []).append(ending.declared)
    remaining = []
    for certificate in certificates:
        since, until = certificate.declared
        if certificate.until == NEXT:
            moments = begins[certificate.project.casefold(), certificate.key]
            at = bisect_right(moments, since)
            until = moments[at] if at < len(moments) else NO_END
        left = [(since, until)] if since < until else []
        for cut_since, cut_until in cuts.get(certificate, ()):
            parts = [((begin, min(end, cut_since)), (max(begin, cut_until), end)) for begin, end in left]
            left = [part for pair in parts for part in pair if part[0] < part[1]]
        remaining.append(replace(certificate, spans=tuple(sorted(set(left)))))
    return sorted(remaining, key=lambda certificate: (certificate.since, certificate.statement))


def certificate_in(statement: Statement) -> Certificate | None:
    """Return the certificate in a statement; None for other statements, and for unreadable ones."""
    body, datasets = statement.body, statement.about.datasets
    fields = body.get("for")
    if statement.verb != CERTIFY or len(datasets) != 1 or not isinstance(fields, Mapping) or not body.get("kind"):
        return None
    if not all(isinstance(value, str | int | float) for value in fields.values()):
        return None
    where, span = str(body.get("where") or ""), _span(body)
    if span is None:
        return None
    try:
        if where:
            parse_condition(where)
    except InputError:
        return None
    return Certificate(
        statement=statement.mfid,
        project=statement.project,
        account=statement.account,
        dataset=datasets[0],
        kind=str(body["kind"]),
        fields=tuple((str(name), fields[name]) for name in sorted(fields)),
        where=where,
        since=span[0],
        until=str(body.get("until") or ""),
        who=statement.who or statement.by,
        when=statement.when,
        why=statement.why,
        declared_by=str(body.get("place") or ""),
    )


def _span(body: JsonMapping) -> Span | None:
    """Return the range in the body of a statement, or in a record's entry; None if it is unreadable."""
    try:
        return utc(str(body.get("from"))), _end(str(body.get("until") or ""))
    except ValueError:
        return None


def _end(until: str) -> datetime:
    return NO_END if until in ("", NEXT) else utc(until)


def counting_certificates(active: ActiveStatements, project: str, kind: str | None = None) -> list[Certificate]:
    """Return the certificates in force that count in a project, of one kind or of all, the earliest first."""
    known = (found for found in certificates_of(active) if kind in (None, found.kind))
    return [certificate for certificate in known if active.counts(certificate, project)]


class Neighbour(NamedTuple):
    """A certificate whose range ends before a moment or begins after it: that `limit`, and its distance."""

    certificate: Certificate
    limit: datetime
    side: str
    seconds: float


@dataclass(frozen=True)
class CertificateMatch:
    """Certificates for some data at a moment: those valid then, and the nearest ones before and after."""

    valid: tuple[Certificate, ...] = ()
    before: Neighbour | None = None
    after: Neighbour | None = None

    @property
    def nearest(self) -> Neighbour | None:
        """The nearer one of `before` and `after`; of two at the same distance, `before`."""
        return min(filter(None, (self.before, self.after)), key=lambda near: near.seconds, default=None)


class Timeline(Generic[T]):
    """Ranges of time, each with a text that orders equal ones, and what it is of.

    `begun` says whether a range counts as begun at its first moment, or as following it.
    """

    def __init__(self, parts: Iterable[tuple[Span, str, T]], *, begun: bool) -> None:
        self.by_begin = sorted(parts, key=lambda part: (part[0][0], part[1]))
        self._by_end = sorted(self.by_begin, key=lambda part: (part[0][1], part[1]))
        self._begins = [span[0] for span, _, _ in self.by_begin]
        self._ends = [span[1] for span, _, _ in self._by_end]
        self._latest = list(accumulate((span[1] for span, _, _ in self.by_begin), max))
        self._at = bisect_right if begun else bisect_left

    def around(self, begin: datetime, end: datetime) -> Iterator[tuple[Span, str, T]]:
        """Yield the ranges that begin before `begin` and end after `end`, the latest begin first."""
        index = self._at(self._begins, begin) - 1
        while index >= 0 and self._latest[index] > end:
            if self.by_begin[index][0][1] > end:
                yield self.by_begin[index]
            index -= 1

    def before(self, moment: datetime) -> tuple[Span, str, T] | None:
        """Return the range that ended last, at this moment or earlier."""
        index = bisect_right(self._ends, moment)
        return self._by_end[index - 1] if index else None

    def after(self, moment: datetime) -> Iterator[tuple[Span, str, T]]:
        """Yield the ranges that follow this moment, the next one first."""
        return islice(self.by_begin, self._at(self._begins, moment), None)


class Calibrations:
    """Certificates, by kind and by the fields that data need."""

    def __init__(self, certificates: Iterable[Certificate]) -> None:
        parts: dict[_Key, list[tuple[Span, str, Certificate]]] = {}
        for certificate in certificates:
            ranges = ((span, certificate.statement, certificate) for span in certificate.spans)
            parts.setdefault(certificate.key, []).extend(ranges)
        self._timelines: dict[str, dict[tuple[tuple[str, ...], str], dict[_Values, Timeline[Certificate]]]] = {}
        for (kind, fields, where), found in parts.items():
            names, values = tuple(name for name, _ in fields), tuple(value for _, value in fields)
            by_values = self._timelines.setdefault(kind, {}).setdefault((names, where), {})
            by_values[values] = Timeline(found, begun=True)
        self._conditions = {where: parse_condition(where) for _, _, where in parts if where}

    @property
    def kinds(self) -> list[str]:
        """The kinds of calibrations."""
        return sorted(self._timelines)

    def fitting(self, kind: str, value_of: Values, moment: datetime) -> CertificateMatch:
        """Return the certificates of a kind for data with these fields, measured at `moment`."""
        timelines = list(self._matching(kind, value_of))
        valid = sorted(part for timeline in timelines for part in timeline.around(moment, moment))
        ended = filter(None, (timeline.before(moment) for timeline in timelines))
        following = filter(None, (next(timeline.after(moment), None) for timeline in timelines))
        before = max(((span[1], name, it) for span, name, it in ended), default=None)
        after = min(((span[0], name, it) for span, name, it in following), default=None)
        return CertificateMatch(
            tuple(certificate for _, _, certificate in valid),
            before and Neighbour(before[2], before[0], "before", (moment - before[0]).total_seconds()),
            after and Neighbour(after[2], after[0], "after", (after[0] - moment).total_seconds()),
        )

    def _matching(self, kind: str, value_of: Values) -> Iterator[Timeline[Certificate]]:
        for (names, where), by_values in self._timelines.get(kind, {}).items():
            values = tuple(value_text(value) for name in names if (value := value_of(name)) is not None)
            timeline = by_values.get(values)
            with suppress(InputError):  # values that cannot be compared meet no condition
                if timeline is not None and (not where or self._conditions[where].is_met(value_of, "the data")):
                    yield timeline
