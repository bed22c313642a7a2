"""Which calibrations are certified for measured data, by their time of measurement; where none is valid, why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crucible_lineage.calibrations import (
    Calibrations,
    Certificate,
    CertificateMatch,
    Span,
    Values,
    certificate_document,
    range_text,
)
from crucible_lineage.errors import shortened
from crucible_lineage.pipeline.spec.declared import BEFORE, NEAREST, NONE
from crucible_lineage.pipeline.spec.inputs import CalibrationInput, value_of
from crucible_lineage.session import Session
from crucible_lineage.times import moment_text, span_text

Data = tuple[str, Mapping[str, Any], Span | None]  # label, fields of the record, and when it was measured
MOST_KINDS = 6  # that a message names
VALID, FOLLOWING = "valid then", "valid next"


@dataclass(frozen=True)
class ChosenCertificate:
    """A certificate, the part of its validity that counts, and how far from the data that is, on which side."""

    certificate: Certificate
    span: Span
    rule: str = VALID
    side: str = ""
    seconds: float = 0.0
    as_of: str = ""

    def document(self) -> dict[str, Any]:
        """Return what plans and records say of it."""
        return certificate_document(self.certificate, self.span, self.as_of)


@dataclass(frozen=True)
class CalibrationSelection:
    """The calibrations of data, in the order asked for; or why there are none. The role may stay `absent`."""

    chosen: tuple[ChosenCertificate, ...] = ()
    fault: str = ""
    absent: bool = False


def calibrated(
    name: str,
    declared: CalibrationInput,
    data: Sequence[Data],
    project: str,
    session: Session,
    as_of: str = "",
    campaign: str = "",
) -> list[CalibrationSelection]:
    """Choose calibrations for each of these data, by what counts in a project, stated now or `as_of` a moment.

    With `campaign`, as if that one were promoted.
    """
    from crucible_lineage.certifying import certificates_as_of  # few pipelines choose calibrations

    certificates = certificates_as_of(session, project, declared.calibration, as_of, campaign) if data else []
    others: list[str] = []
    if data and not certificates:
        others = sorted({one.kind for one in certificates_as_of(session, project, None, as_of, campaign)})
    choose = _Chooser(name, declared, certificates, as_of, others)
    return [choose.of(*one) for one in data]


class _Chooser:
    """Chooses by the certificates of one kind, as one input asks for it."""

    def __init__(
        self,
        name: str,
        declared: CalibrationInput,
        certificates: Sequence[Certificate],
        as_of: str,
        others: Sequence[str],
    ) -> None:
        self._others = f"; of other kinds there are: {shortened(others, MOST_KINDS)}" if others else ""
        self._name = name
        self._declared = declared
        self._calibrations = Calibrations(certificates)
        self._as_of = as_of

    def of(self, label: str, fields: Mapping[str, Any], span: Span | None) -> CalibrationSelection:
        kind, absent = self._declared.calibration, self._declared.otherwise == NONE
        if span is None:
            fault = f"{label} has no time of measurement (timestamp), by which its {kind} is chosen; set it"
            return CalibrationSelection(fault=fault, absent=absent)

        def value(field: str) -> object:
            return value_of(fields, field)

        first = self._at(label, value, span[0])
        if not first.chosen or span[0] == span[1]:
            return first
        last = self._at(label, value, span[1])
        if [one.certificate for one in first.chosen] != [one.certificate for one in last.chosen]:
            until = moment_text(span[1])
            fault = f"{label} was measured {range_text(span)}, and the {kind} that is certified changes before {until}"
            return CalibrationSelection(fault=fault, absent=absent)
        return first

    def _at(self, label: str, value: Values, moment: datetime) -> CalibrationSelection:
        fitting = self._calibrations.fitting(self._declared.calibration, value, moment)
        found: list[ChosenCertificate] = []
        for side in self._declared.take:
            one, fault = self._valid(label, fitting, moment) if side == BEFORE else self._next(label, fitting, moment)
            if one is None:
                return self._otherwise(fitting, moment, fault)
            found.append(one)
        return CalibrationSelection(tuple(found))

    def _valid(self, label: str, fitting: CertificateMatch, moment: datetime) -> tuple[ChosenCertificate | None, str]:
        if len({one.dataset for one in fitting.valid}) > 1:
            both = "; ".join(f"{one.dataset} of {one.scope} ({one.attribution})" for one in fitting.valid[:3])
            told = f"{self._name}: {len(fitting.valid)} certificates fit {label} ({moment_text(moment)}): {both}"
            return None, f"{told}; decertify one of them, or state conditions that exclude one another"
        if not fitting.valid:
            return None, f"{self._nothing(label, moment)}: {_near(fitting, moment)}{self._others}"
        one = fitting.valid[0]
        return ChosenCertificate(one, _span(one, moment), as_of=self._as_of), ""

    def _next(self, label: str, fitting: CertificateMatch, moment: datetime) -> tuple[ChosenCertificate | None, str]:
        one, begins = fitting.after, fitting.begins
        if one is None or begins is None or self._is_far((begins - moment).total_seconds()):
            return None, f"{self._nothing(label, moment)} that becomes valid next: {_near(fitting, moment)}"
        seconds = (begins - moment).total_seconds()
        return ChosenCertificate(one, _span(one, begins), FOLLOWING, "after", seconds, self._as_of), ""

    def _otherwise(self, fitting: CertificateMatch, moment: datetime, fault: str) -> CalibrationSelection:
        is_conflict = len({one.dataset for one in fitting.valid}) > 1
        nearest = fitting.nearest(moment) if self._declared.otherwise == NEAREST and not is_conflict else None
        if fitting.valid and nearest and not is_conflict:  # what is valid is nearer than what becomes valid next
            one = fitting.valid[0]
            return CalibrationSelection((ChosenCertificate(one, _span(one, moment), as_of=self._as_of),))
        if nearest is None or self._is_far(nearest[2]):
            return CalibrationSelection(fault=fault, absent=self._declared.otherwise == NONE and not is_conflict)
        one, side, seconds = nearest
        at = fitting.begins if side == "after" else fitting.ended
        span = next(span for span in one.spans if at in span)
        return CalibrationSelection((ChosenCertificate(one, span, "else nearest", side, seconds, self._as_of),))

    def _is_far(self, seconds: float) -> bool:
        return self._declared.within is not None and seconds > self._declared.within

    def _nothing(self, label: str, moment: datetime) -> str:
        as_of = f", as of {self._as_of}" if self._as_of else ""
        return f"no {self._declared.calibration} is certified for {label} ({moment_text(moment)}){as_of}"


def _span(one: Certificate, moment: datetime) -> Span:
    found = one.span_at(moment)
    assert found is not None
    return found


def _near(fitting: CertificateMatch, moment: datetime) -> str:
    """Name the nearest calibrations before and after, and the ways out."""
    said = []
    if fitting.before and fitting.ended:
        away = span_text((moment - fitting.ended).total_seconds())
        said.append(f"{fitting.before.dataset} was until {moment_text(fitting.ended)}, {away} before")
    if fitting.after and fitting.begins:
        away = span_text((fitting.begins - moment).total_seconds())
        said.append(f"{fitting.after.dataset} is from {moment_text(fitting.begins)}, {away} after")
    return f"{' and '.join(said) or 'none is at any time'}; certify one, or say `else: nearest` or `none`"
