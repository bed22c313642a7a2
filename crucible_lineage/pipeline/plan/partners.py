"""Partners in time: among rows with equal values, the one measured nearest before, after, or on either side. Pure.

A row is a dataset or a group. For "before", the distance to a group is taken from its last member, for "after" from its
first. For "either", a group with members on both sides of another row is at distance zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from crucible_lineage.errors import shortened
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.records import value_of
from crucible_lineage.pipeline.declare.inputs import CalibrationInput
from crucible_lineage.pipeline.declare.parts import AFTER, BEFORE, EARLIEST, EITHER, NEAREST, NONE, TimeMatch
from crucible_lineage.statements.calibrations import (
    Calibrations,
    Certificate,
    CertificateMatch,
    Span,
    Timeline,
    Values,
    certificate_document,
    certified_text,
    range_text,
)
from crucible_lineage.text.times import moment_text, span_text

AROUND = "around"  # the side of a group whose members were measured before and after
NO_ID = "~"  # sorts after every MFID
MOST_NAMED = 3


@dataclass(frozen=True)
class RelationRow:
    """A dataset or group: its values of the compared fields, and the times of its first and last measurement.

    The key is the index of an input's item, or the name of a step's instance. `tie` orders rows of equal times. `fault`
    says which value is missing, or differs among members. `undated` names a member without a time of measurement; then
    there is no `span`. `size` is the number of members.
    """

    key: int | str
    label: str
    values: tuple[str, ...] = ()
    span: tuple[datetime, datetime] | None = None
    tie: str = NO_ID
    fault: str = ""
    undated: str = ""
    size: int = 1

    @property
    def first(self) -> datetime:
        """Time of measurement of the first member."""
        assert self.span is not None
        return self.span[0]

    @property
    def last(self) -> datetime:
        """Time of measurement of the last member."""
        assert self.span is not None
        return self.span[1]


Rows = Timeline[RelationRow]


@dataclass(frozen=True)
class Partner:
    """A chosen partner: its side in time, its distance, and the rule and certificate by which it was chosen.

    The key is that of its row; of a calibration its number, and the label is its dataset until that is looked up.
    """

    key: int | str
    label: str
    side: str
    seconds: float
    rule: str
    same: Mapping[str, str] = field(default_factory=dict)
    size: int = 1
    of_size: int = 1
    certificate: JsonMapping = field(default_factory=dict)

    def __str__(self) -> str:
        return chosen_text(self.to_json())

    @property
    def note(self) -> str:
        """Its distance for pictures: `2 h before`."""
        note = f"{span_text(self.seconds)} {self.side}" if self.seconds else self.side
        return note or certified_text(self.certificate)

    def to_json(self) -> JsonObject:
        """Return the entry in plans and records."""
        entry: JsonObject = {"rule": self.rule, "side": self.side, "seconds": self.seconds}
        entry |= {"members": self.size} if self.size > 1 else {}
        entry |= {"of_members": self.of_size} if self.of_size > 1 else {}
        return {**entry, "same": dict(self.same), **({"certificate": self.certificate} if self.certificate else {})}


@dataclass(frozen=True)
class Partners:
    """The partners of a row in the declared order, or the fault.

    `absent` is true if the role may stay empty: no candidate has equal values, or the declaration allows it.
    """

    chosen: tuple[Partner, ...] = ()
    fault: str = ""
    absent: bool = False


def _on(side: str, row: RelationRow, timeline: Rows, exclude: int | str | None = None) -> RelationRow | None:
    """Return the nearest row on a side; after the row, never the one with key `exclude`."""
    if side == BEFORE:
        part = timeline.before(row.last)
        return part[2] if part else None
    if side == AFTER:
        return next((other for _, _, other in timeline.after(row.first) if other.key != exclude), None)
    candidates = (_on(BEFORE, row, timeline), _around(row, timeline), _on(AFTER, row, timeline))
    return min(filter(None, candidates), key=lambda other: _distance(row, other)[1], default=None)


def _around(row: RelationRow, timeline: Rows) -> RelationRow | None:
    """Return, of the groups with members before and after the row, the one that began last."""
    return next((other for _, _, other in timeline.around(row.first, row.last)), None)


class Candidates:
    """Rows to choose partners from, by equal values of the fields `same`. Messages refer to them as `name`."""

    def __init__(self, name: str, rows: Iterable[RelationRow], same: Sequence[str], rule: TimeMatch) -> None:
        self.name = name
        self._same = same
        self._rule = rule
        self._equal: dict[tuple[str, ...], list[RelationRow]] = {}
        self._timelines: dict[tuple[str, ...], Rows] = {}
        for row in rows:
            if not row.fault:
                self._equal.setdefault(row.values, []).append(row)

    def equal(self, row: RelationRow) -> tuple[Sequence[RelationRow], Partners]:
        """Return the candidates with equal values, whatever their times, and the fault if there are none."""
        if row.fault:
            return (), Partners(fault=f"{row.label} cannot be matched with {self.name}: {row.fault}")
        found = self._equal.get(row.values, [])
        condition = f" with {_values_text(self._values(row))}, as {row.label} has" if self._same else ""
        return found, Partners(fault="" if found else f"{self.name} has no dataset{condition}", absent=not found)

    def choose(self, row: RelationRow) -> Partners:
        """Choose the partners of a row."""
        equal, none = self.equal(row)
        if not equal:
            return none
        if undated := [other.undated for other in equal if other.undated]:
            have = f"{shortened(undated, MOST_NAMED)} {'has' if len(undated) == 1 else 'have'}"
            fault = (
                f"{self.name} is chosen by time for {row.label}, and {have} no time of measurement (timestamp); set it"
            )
            return Partners(fault=fault)
        if row.values not in self._timelines:
            parts = ((other.span, other.tie, other) for other in equal if other.span)
            self._timelines[row.values] = Timeline(parts, begun=False)
        timeline = self._timelines[row.values]
        if row.undated:
            fault = f"{row.undated} has no time of measurement (timestamp), by which {self.name} is chosen; set it"
            return self._otherwise(row, timeline, fault)
        found: list[tuple[str, RelationRow]] = []
        for side in self._rule.sides:
            other = _on(side, row, timeline, found[0][1].key if found else None)
            if other is None or self._is_far(row, other, side):
                return self._otherwise(row, timeline, self._not_found(row, timeline, side))
            found.append((side, other))
        return Partners(tuple(self._chosen(row, other, side) for side, other in found))

    def _otherwise(self, row: RelationRow, timeline: Rows, fault: str) -> Partners:
        """Return the declared alternative for a row that nothing matches."""
        otherwise, instead = self._rule.otherwise, None
        if otherwise == EARLIEST:
            instead = timeline.by_begin[0][2] if timeline.by_begin else None
        elif otherwise == NEAREST and not row.undated:
            instead = _on(EITHER, row, timeline)
        if instead is None or (not row.undated and self._is_far(row, instead, EITHER)):
            return Partners(fault=fault, absent=otherwise == NONE)
        return Partners((self._chosen(row, instead, EITHER, f"else {otherwise}"),))

    def _chosen(self, row: RelationRow, other: RelationRow, side: str, rule: str = "") -> Partner:
        actual, seconds = ("", 0.0) if row.undated else _distance(row, other, side)
        rule = rule or (f"nearest {side}" if side != EITHER else "nearest on either side")
        return Partner(other.key, other.label, actual, seconds, rule, self._values(row), other.size, row.size)

    def _values(self, row: RelationRow) -> dict[str, str]:
        return dict(zip(self._same, row.values, strict=True))

    def _is_far(self, row: RelationRow, other: RelationRow, side: str) -> bool:
        return self._rule.within is not None and _distance(row, other, side)[1] > self._rule.within

    def _not_found(self, row: RelationRow, timeline: Rows, side: str) -> str:
        """Return the message that nothing matches on a side, with the nearest on both."""
        where = "before or after" if side == EITHER else side
        within = f" within {span_text(self._rule.within)}" if self._rule.within is not None else ""
        same = f" with {_values_text(self._values(row))}" if self._same else ""
        moment = row.first if side == AFTER else row.last
        message = f"{self.name} has nothing {where} {row.label} ({moment_text(moment)}){within}{same}"
        near = [_near(row, _on(other, row, timeline), other) for other in (BEFORE, AFTER)]
        if (around := _around(row, timeline)) is not None:
            near.append(f"{around.label} began before it and ended after it (`nearest: either` would take it)")
        return f"{message}: {', '.join(near)}; to accept another one, add `else: nearest`, `earliest` or `none`"


def chosen_text(chosen: JsonMapping) -> str:
    """Return a choice as text: `2 h 5 min before (nearest before, same instrument_name=A)`."""
    side, members, of_members = chosen["side"], chosen.get("members") or 1, chosen.get("of_members") or 1
    same = f", same {_values_text(chosen['same'])}" if chosen["same"] else ""
    if certificate := chosen.get("certificate"):
        far = f", {span_text(chosen['seconds'])} {side}" if side else ""
        named = f"certificate {certificate['statement']} by {certificate['by']}"
        reason = certificate["why"] or "no reason given"
        return f"{certified_text(certificate)}{far} ({chosen['rule']}{same}; {named}: {reason})"
    if side not in _END:
        return f"{'measured before and after it' if side else 'at an unknown time'} ({chosen['rule']}{same})"
    counted = f", counted from the {_END[side]} of its {members}" if members > 1 else ""
    counted += f" to the {_END[side]} of these {of_members}" if of_members > 1 else ""
    return f"{span_text(chosen['seconds'])} {side}{counted} ({chosen['rule']}{same})"


_END = {BEFORE: "last", AFTER: "first"}  # of the members of a group


def _near(row: RelationRow, other: RelationRow | None, side: str) -> str:
    if other is None:
        return f"none was found {side}"
    when = other.last if side == BEFORE else other.first
    distance = span_text(_distance(row, other, side)[1])
    return f"the nearest {side} is {other.label} ({moment_text(when)}, {distance} {side})"


def _distance(row: RelationRow, other: RelationRow, side: str = EITHER) -> tuple[str, float]:
    """Return the side of the row on which another one was measured, and its distance in seconds."""
    before, after = (row.last - other.last).total_seconds(), (other.first - row.first).total_seconds()
    if side != EITHER:
        return side, before if side == BEFORE else after
    if before < 0 and after < 0:
        return AROUND, 0.0
    if after < 0 or 0 <= before <= after:
        return BEFORE, before
    return AFTER, after


def _values_text(same: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in same.items())


VALID, FOLLOWING = "valid then", "valid next"


@dataclass(frozen=True)
class CalibrationChooser:
    """Chooses among certificates of one kind by the rules of one input; `hint` ends the message that there is none."""

    name: str
    declared: CalibrationInput
    calibrations: Calibrations
    as_of: str
    hint: str

    def choose(self, label: str, fields: Mapping[str, object], span: Span | None) -> Partners:
        """Choose the calibrations of a dataset by its fields and its time of measurement."""
        kind, absent = self.declared.calibration, self.declared.otherwise == NONE
        if span is None:
            fault = f"{label} has no time of measurement (timestamp), by which its {kind} is chosen; set it"
            return Partners(fault=fault, absent=absent)
        value = partial(value_of, fields)
        first = self._at(label, value, span[0])
        if not first.chosen or span[0] == span[1]:
            return first
        last = self._at(label, value, span[1])
        statements = [[partner.certificate["statement"] for partner in found.chosen] for found in (first, last)]
        if statements[0] != statements[1]:
            until = moment_text(span[1])
            fault = f"{label} was measured {range_text(span)}, and the certified {kind} changes before {until}"
            return Partners(fault=fault, absent=absent)
        return first

    def _at(self, label: str, value: Values, moment: datetime) -> Partners:
        kind, as_of = self.declared.calibration, f", as of {self.as_of}" if self.as_of else ""
        fitting = self.calibrations.fitting(kind, value, moment)
        fault = f"no {kind} is certified for {label} ({moment_text(moment)}){as_of}"
        found: list[Partner] = []
        for side in self.declared.sides:
            if side == BEFORE:
                if len({certificate.dataset for certificate in fitting.valid}) > 1:
                    both = "; ".join(
                        f"{found.dataset} of {found.scope} ({found.attribution})" for found in fitting.valid[:3]
                    )
                    conflict = f"{len(fitting.valid)} certificates fit {label} ({moment_text(moment)}): {both}"
                    remedy = "lift one of them, or state conditions that exclude one another"
                    return Partners(fault=f"{self.name}: {conflict}; {remedy}")
                if not fitting.valid:
                    return self._otherwise(fitting, moment, f"{fault}: {_nearest_text(fitting)}{self.hint}")
                found.append(self._chosen(fitting.valid[0], moment))
                continue
            following = fitting.after
            if following is None or self._is_far(following.seconds):
                fault = f"{fault} that becomes valid next: {_nearest_text(fitting)}"
                return self._otherwise(fitting, moment, fault)
            found.append(self._chosen(following.certificate, following.limit, FOLLOWING, "after", following.seconds))
        return Partners(tuple(found))

    def _otherwise(self, fitting: CertificateMatch, moment: datetime, fault: str) -> Partners:
        is_conflict = len({certificate.dataset for certificate in fitting.valid}) > 1
        takes_nearest = self.declared.otherwise == NEAREST and not is_conflict
        if fitting.valid and takes_nearest:  # the valid one is nearer than the next one
            return Partners((self._chosen(fitting.valid[0], moment),))
        nearest = fitting.nearest if takes_nearest else None
        if nearest is None or self._is_far(nearest.seconds):
            return Partners(fault=fault, absent=self.declared.otherwise == NONE and not is_conflict)
        span = next(span for span in nearest.certificate.spans if nearest.limit in span)
        chosen = self._chosen(nearest.certificate, span[0], "else nearest", nearest.side, nearest.seconds)
        return Partners((chosen,))

    def _chosen(
        self, certificate: Certificate, moment: datetime, rule: str = VALID, side: str = "", seconds: float = 0.0
    ) -> Partner:
        """Return a calibration by the range of its certificate that contains the moment."""
        document = certificate_document(certificate, certificate.span_at(moment) or certificate.declared, self.as_of)
        dataset, same = certificate.dataset, dict(certificate.fields)
        return Partner(0, dataset, side, seconds, rule, same, certificate=document)

    def _is_far(self, seconds: float) -> bool:
        return self.declared.within is not None and seconds > self.declared.within


def _nearest_text(fitting: CertificateMatch) -> str:
    """Describe the nearest calibrations before and after, and possible remedies."""
    parts = [
        f"{near.certificate.dataset} {'was valid until' if near is fitting.before else 'is valid from'} "
        f"{moment_text(near.limit)}, {span_text(near.seconds)} {near.side}"
        for near in filter(None, (fitting.before, fitting.after))
    ]
    return f"{' and '.join(parts) or 'none is valid at any time'}; certify one, or add `else: nearest` or `none`"
