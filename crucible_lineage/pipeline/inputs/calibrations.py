"""Choice of certified calibrations for measured data, by time of measurement, with the reason if none is valid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

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
from crucible_lineage.pipeline.spec.declared import BEFORE, NEAREST, NONE, value_of
from crucible_lineage.pipeline.spec.inputs import CalibrationInput
from crucible_lineage.session import Session
from crucible_lineage.times import moment_text, span_text

Data = tuple[str, Mapping[str, object], Span | None]  # label, fields of the record, time of measurement
MOST_KINDS = 6  # that a message names
VALID, FOLLOWING = "valid then", "valid next"


@dataclass(frozen=True)
class ChosenCertificate:
    """A chosen certificate, the span of its validity that applies, and that span's side and distance from the data."""

    certificate: Certificate
    span: Span
    rule: str = VALID
    side: str = ""
    seconds: float = 0.0
    as_of: str = ""

    def document(self) -> dict[str, object]:
        """Return the entry for plans and records."""
        return certificate_document(self.certificate, self.span, self.as_of)


@dataclass(frozen=True)
class CalibrationSelection:
    """The calibrations of a dataset in the declared order, or the fault; `absent` if the role may stay empty."""

    chosen: tuple[ChosenCertificate, ...] = ()
    fault: str = ""
    absent: bool = False


def choose_calibrations(
    name: str,
    declared: CalibrationInput,
    data: Sequence[Data],
    project: str,
    session: Session,
    as_of: str = "",
    campaign: str = "",
) -> list[CalibrationSelection]:
    """Choose calibrations for each dataset by the certificates of a project, now or `as_of` a moment.

    With `campaign`, as if that campaign were promoted.
    """
    from crucible_lineage.certifying import certificates_as_of  # few pipelines choose calibrations

    certificates = certificates_as_of(session, project, declared.calibration, as_of, campaign) if data else []
    others: list[str] = []
    if data and not certificates:
        others = sorted({other.kind for other in certificates_as_of(session, project, None, as_of, campaign)})
    chooser = _Chooser(name, declared, certificates, as_of, others)
    return [chooser.select(*item) for item in data]


class _Chooser:
    """Chooses among certificates of one kind by the rules of one input."""

    def __init__(
        self,
        name: str,
        declared: CalibrationInput,
        certificates: Sequence[Certificate],
        as_of: str,
        others: Sequence[str],
    ) -> None:
        self._others = f"; other kinds that exist: {shortened(others, MOST_KINDS)}" if others else ""
        self._name = name
        self._declared = declared
        self._calibrations = Calibrations(certificates)
        self._as_of = as_of

    def select(self, label: str, fields: Mapping[str, object], span: Span | None) -> CalibrationSelection:
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
        if [choice.certificate for choice in first.chosen] != [choice.certificate for choice in last.chosen]:
            until = moment_text(span[1])
            fault = f"{label} was measured {range_text(span)}, and the certified {kind} changes before {until}"
            return CalibrationSelection(fault=fault, absent=absent)
        return first

    def _at(self, label: str, value: Values, moment: datetime) -> CalibrationSelection:
        fitting = self._calibrations.fitting(self._declared.calibration, value, moment)
        found: list[ChosenCertificate] = []
        for side in self._declared.take:
            find = self._valid if side == BEFORE else self._next
            choice, fault = find(label, fitting, moment)
            if choice is None:
                return self._otherwise(fitting, moment, fault)
            found.append(choice)
        return CalibrationSelection(tuple(found))

    def _valid(self, label: str, fitting: CertificateMatch, moment: datetime) -> tuple[ChosenCertificate | None, str]:
        if len({one.dataset for one in fitting.valid}) > 1:
            both = "; ".join(f"{one.dataset} of {one.scope} ({one.attribution})" for one in fitting.valid[:3])
            conflict = f"{self._name}: {len(fitting.valid)} certificates fit {label} ({moment_text(moment)}): {both}"
            return None, f"{conflict}; decertify one of them, or state conditions that exclude one another"
        if not fitting.valid:
            return None, f"{self._nothing(label, moment)}: {_nearest_text(fitting, moment)}{self._others}"
        certificate = fitting.valid[0]
        return ChosenCertificate(certificate, _span(certificate, moment), as_of=self._as_of), ""

    def _next(self, label: str, fitting: CertificateMatch, moment: datetime) -> tuple[ChosenCertificate | None, str]:
        certificate, begins = fitting.after, fitting.begins
        if certificate is None or begins is None or self._is_far((begins - moment).total_seconds()):
            return None, f"{self._nothing(label, moment)} that becomes valid next: {_nearest_text(fitting, moment)}"
        seconds = (begins - moment).total_seconds()
        return ChosenCertificate(certificate, _span(certificate, begins), FOLLOWING, "after", seconds, self._as_of), ""

    def _otherwise(self, fitting: CertificateMatch, moment: datetime, fault: str) -> CalibrationSelection:
        is_conflict = len({certificate.dataset for certificate in fitting.valid}) > 1
        nearest = fitting.nearest(moment) if self._declared.otherwise == NEAREST and not is_conflict else None
        if fitting.valid and nearest and not is_conflict:  # the valid one is nearer than the next one
            valid = fitting.valid[0]
            return CalibrationSelection((ChosenCertificate(valid, _span(valid, moment), as_of=self._as_of),))
        if nearest is None or self._is_far(nearest[2]):
            return CalibrationSelection(fault=fault, absent=self._declared.otherwise == NONE and not is_conflict)
        certificate, side, seconds = nearest
        at = fitting.begins if side == "after" else fitting.ended
        span = next(span for span in certificate.spans if at in span)
        return CalibrationSelection((ChosenCertificate(certificate, span, "else nearest", side, seconds, self._as_of),))

    def _is_far(self, seconds: float) -> bool:
        return self._declared.within is not None and seconds > self._declared.within

    def _nothing(self, label: str, moment: datetime) -> str:
        as_of = f", as of {self._as_of}" if self._as_of else ""
        return f"no {self._declared.calibration} is certified for {label} ({moment_text(moment)}){as_of}"


def _span(certificate: Certificate, moment: datetime) -> Span:
    span = certificate.span_at(moment)
    assert span is not None
    return span


def _nearest_text(fitting: CertificateMatch, moment: datetime) -> str:
    """Describe the nearest calibrations before and after, and possible remedies."""
    parts = []
    if fitting.before and fitting.ended:
        away = span_text((moment - fitting.ended).total_seconds())
        parts.append(f"{fitting.before.dataset} was valid until {moment_text(fitting.ended)}, {away} before")
    if fitting.after and fitting.begins:
        away = span_text((fitting.begins - moment).total_seconds())
        parts.append(f"{fitting.after.dataset} is valid from {moment_text(fitting.begins)}, {away} after")
    return f"{' and '.join(parts) or 'none is valid at any time'}; certify one, or add `else: nearest` or `none`"
