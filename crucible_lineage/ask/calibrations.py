"""The calibrations of a dataset: those it was made with, or those that are certified for measured data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from crucible_lineage.lineage.fields import fields_of, value_of
from crucible_lineage.lineage.model import IN_PLACE
from crucible_lineage.lineage.records import mapping, mappings, provenance
from crucible_lineage.session import Session
from crucible_lineage.standing.standings import Standing, standings
from crucible_lineage.statements.calibrations import (
    Calibrations,
    Certificate,
    CertificateMatch,
    certified_text,
    overlapping,
    range_text,
)
from crucible_lineage.text.amounts import amount
from crucible_lineage.text.times import measured_at, moment_text, span_text


@dataclass(frozen=True)
class CalibrationUse:
    """A calibration of a dataset: its role or kind, the calibrations that qualify, their certificates, and why."""

    kind: str
    datasets: tuple[str, ...]
    certificates: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        return f"{self.kind}: {', '.join(self.datasets) or 'none'}, {self.why}"


def calibrations_of(session: Session, record: Mapping[str, object]) -> tuple[CalibrationUse, ...]:
    """Return the calibrations that a result was made with by certificate, or those certified for measured data."""
    recorded = provenance(record)
    if recorded.get("recipe"):
        return tuple(_chosen(mappings(recorded.get("used"))))
    return tuple(_certified(session, record))


def _chosen(used: Iterable[Mapping[str, object]]) -> Iterator[CalibrationUse]:
    for entry in used:
        if certificate := mapping(mapping(entry.get("chosen")).get("certificate")):
            statement = str(certificate.get("statement"))
            why = f"{certified_text(certificate)} by {certificate.get('by')} (certificate {statement})"
            yield CalibrationUse(str(entry.get("role")), (str(entry.get("mfid")),), (statement,), why)


def _certified(session: Session, record: Mapping[str, object]) -> Iterator[CalibrationUse]:
    project, moment = str(record.get("project_id") or ""), measured_at(record)
    certificates = session.mirror.certificates(project)
    if moment is None or not certificates:
        return
    calibrations = Calibrations(certificates)
    value = partial(value_of, fields_of(record))
    for kind in calibrations.kinds:
        match = calibrations.fitting(kind, value, moment)
        if match.valid or match.before or match.after:
            datasets = tuple(dict.fromkeys(one.dataset for one in match.valid))
            statements = tuple(one.statement for one in match.valid)
            yield CalibrationUse(kind, datasets, statements, "; ".join(_reasons(match, moment)))


def _reasons(match: CertificateMatch, moment: datetime) -> Iterator[str]:
    for one in match.valid:
        valid = range_text(one.span_at(moment) or one.declared)
        yield f"{valid}, for {one.scope}, {one.attribution} (certificate {one.statement})"
    if len({one.dataset for one in match.valid}) > 1:
        yield "they contradict each other and are not used: lift one of the certificates"
    if not match.valid:
        yield f"as none is certified for {moment_text(moment)}"
        if nearest := match.nearest(moment):
            one, side, seconds = nearest
            yield f"{one.dataset} is valid {range_text(one.declared)}, {span_text(seconds)} {side}"


def after_lifting(session: Session, lifted: Certificate) -> Iterator[str]:
    """Yield what follows once a certificate is lifted: what is certified in its place, and what was made with it."""
    others = [one for one in session.mirror.certificates(lifted.project) if one.key == lifted.key]
    now = sorted({one.dataset for one in overlapping(lifted.declared, others)})
    yield f"{lifted.kind} of {lifted.scope} {range_text(lifted.declared)}: {', '.join(now) or 'none'} is certified now"
    made = made_with(session, lifted.project, lifted.dataset)
    yield f"{amount(len(made), 'current result')} made with {lifted.dataset}; the next runs choose again"


def made_with(session: Session, project: str, calibration: str) -> list[Standing]:
    """Return the current results of a project that were made with a calibration."""
    found = standings(session, project).values()
    return [one for one in found if one.state in IN_PLACE and calibration in one.summary.parents]
