"""The calibrations that are certified for a dataset, their status, and the results made with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from html import escape

from crucible_lineage.calibrations import Calibrations, Certificate, CertificateMatch, Span, range_text
from crucible_lineage.certifying import certificates_as_of
from crucible_lineage.core.slots import CURRENT
from crucible_lineage.core.tables import Summary
from crucible_lineage.errors import InputError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.records import given_metadata
from crucible_lineage.pipeline.declare.parts import value_of
from crucible_lineage.queries.catalogue.view import existing
from crucible_lineage.queries.graph.state import DatasetEntry, entries_of_copy, entry_of
from crucible_lineage.session import Session
from crucible_lineage.times import measured_at, moment_text, span_text, utc


@dataclass(frozen=True)
class CalibrationUse:
    """A current result that was made with a calibration."""

    mfid: str
    name: str
    step: str
    calibration: str

    def to_json(self) -> dict[str, str]:
        """Return the use for commands with --json."""
        return dict(vars(self))


@dataclass(frozen=True)
class CalibrationFor:
    """The certificates of one kind for a dataset. `names` and `statuses` are those of the calibrations, by id."""

    kind: str
    match: CertificateMatch
    uses: tuple[CalibrationUse, ...]
    names: Mapping[str, str]
    statuses: Mapping[str, str]
    moment: datetime

    @property
    def valid(self) -> Certificate | None:
        """The valid certificate; None if there is none, or several contradict each other."""
        datasets = {one.dataset for one in self.match.valid}
        return self.match.valid[0] if len(datasets) == 1 else None

    def label(self, mfid: str) -> str:
        """Return the id of a calibration, with its name if known."""
        return f"{mfid} ({self.names[mfid]})" if mfid in self.names else mfid

    def valid_range(self, certificate: Certificate) -> str:
        """Return the range in which a certificate is valid, in words."""
        return range_text(certificate.span_at(self.moment) or certificate.stated)

    def lines(self) -> Iterable[str]:
        """Yield lines: the valid calibration, why, the alternatives, and the results made with each."""
        valid, match = self.match.valid, self.match
        if not valid:
            yield f"{self.kind}: none is certified for {moment_text(self.moment)}"
        for certificate in valid:
            yield f"{self.kind}: {self.label(certificate.dataset)}"
            yield f"  valid {self.valid_range(certificate)}, for {certificate.scope}"
            yield f"  {certificate.attribution} (certificate {certificate.statement})"
            yield f"  it is {self.statuses.get(certificate.dataset, 'not visible to this key')}"
        if len({certificate.dataset for certificate in valid}) > 1:
            yield "  these contradict each other and are not used: decertify one"
        if match.before and match.ended:
            distance = span_text((self.moment - match.ended).total_seconds())
            yield f"  before: {self.label(match.before.dataset)}, until {moment_text(match.ended)} ({distance} before)"
        if match.after and match.begins:
            distance = span_text((match.begins - self.moment).total_seconds())
            yield f"  after: {self.label(match.after.dataset)}, from {moment_text(match.begins)} ({distance} after)"
        current = self.valid
        for use in self.uses:
            note = "" if current and use.calibration == current.dataset else ", which is not certified now"
            yield f"  used: {use.mfid} ({use.name}) was made with {self.label(use.calibration)}{note}"

    def to_json(self) -> JsonObject:
        """Return the entry for `calibration for --json`."""
        match = self.match
        return {
            "kind": self.kind,
            "taken": self.moment.isoformat(),
            "valid": [one.to_json() for one in match.valid],
            "before": match.before.to_json() if match.before else None,
            "after": match.after.to_json() if match.after else None,
            "standings": dict(self.statuses),
            "used": [use.to_json() for use in self.uses],
        }


@dataclass(frozen=True)
class CalibrationsFor:
    """The certificates for a dataset, by kind."""

    mfid: str
    name: str
    kinds: tuple[CalibrationFor, ...]

    def __str__(self) -> str:
        lines = [line for one in self.kinds for line in one.lines()]
        return "\n".join(lines) or f"no calibration is certified for {self.name}"

    def __repr__(self) -> str:
        return f"<calibrations of {self.mfid}: {', '.join(one.kind for one in self.kinds) or 'none'}>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def calibrations_for(session: Session, mfid: str, kind: str = "", as_of: str = "") -> CalibrationsFor:
    """Return the calibrations certified for measured data, of one kind or all, with the results made with them.

    Raises InputError if there is no such dataset, it has no time of measurement, or the kind is unknown in its project.
    """
    found = existing(session, mfid)
    record, project = found.model_dump(), found.project_id or ""
    fields = {**record, "metadata": given_metadata(record)}
    certificates = certificates_as_of(session, project, kind or None, as_of)
    calibrations = Calibrations(certificates)
    if kind and kind not in calibrations.kinds:
        known = sorted({one.kind for one in certificates_as_of(session, project, None, as_of)})
        raise InputError(f"no {kind} is certified in project {project}; certified: {', '.join(known) or 'nothing'}")
    moment = measured_at(record)
    if moment is None and calibrations.kinds:
        raise InputError(f"dataset {mfid} has no time of measurement (timestamp), which selects calibrations; set it")
    kinds = []
    for name in calibrations.kinds:
        assert moment is not None
        match = calibrations.fitting(name, partial(value_of, fields), moment)
        if match.valid or match.before or match.after or kind:
            datasets = {certificate.dataset for certificate in certificates if certificate.kind == name}
            uses = tuple(_uses(session, project, datasets, {mfid}))
            kinds.append(_calibration_for(session, name, match, uses, moment))
    return CalibrationsFor(mfid, found.dataset_name or mfid, tuple(kinds))


def _calibration_for(
    session: Session, kind: str, match: CertificateMatch, uses: tuple[CalibrationUse, ...], moment: datetime
) -> CalibrationFor:
    """Add the names and statuses of the matching calibrations, and the names of those that were used."""
    found = {one.dataset: _status(session, one.dataset) for one in match.valid}
    others = {one.dataset for one in (match.before, match.after) if one} | {use.calibration for use in uses}
    names = {dataset: summary.name for dataset, summary in session.mirror.summaries(others).items()}
    names |= {dataset: name for dataset, (name, _) in found.items()}
    statuses = {dataset: status for dataset, (_, status) in found.items()}
    return CalibrationFor(kind, match, uses, names, statuses, moment)


def used_in(session: Session, project: str, dataset: str, spans: Collection[Span]) -> list[CalibrationUse]:
    """Return the current results that were made with a calibration from data measured in these ranges.

    Data without a time of measurement are included.
    """
    summaries = session.mirror.snapshot(project).summaries
    cache: dict[str, frozenset[str]] = {}
    found = []
    for use in _uses(session, project, {dataset}, None):
        parents = [mfid for mfid in summaries[use.mfid].parents if mfid != dataset]
        moments = frozenset[str]().union(*(_measured_at(mfid, summaries, cache) for mfid in parents))
        if any(not text or any(since <= utc(text) < until for since, until in spans) for text in moments or {""}):
            found.append(use)
    return found


def _uses(
    session: Session, project: str, calibrations: Collection[str], data: Collection[str] | None
) -> Iterable[CalibrationUse]:
    """Yield the current results made with one of these calibrations, and from one of these data (None: from any)."""
    for entry in entries_of_copy(session.mirror.snapshot(project)).values():
        parents = entry.summary.parents
        own = [mfid for mfid in parents if mfid in calibrations]
        if own and entry.state == CURRENT and (data is None or any(mfid in data for mfid in parents)):
            yield CalibrationUse(entry.mfid, entry.summary.name, entry.summary.step, own[0])


def _measured_at(mfid: str, summaries: Mapping[str, Summary], cache: dict[str, frozenset[str]]) -> frozenset[str]:
    """Return the times of measurement of the data that a dataset comes from; empty text for an unknown one."""
    if mfid not in cache:
        cache[mfid] = frozenset()  # ends a cycle
        summary = summaries.get(mfid)
        if summary is None or not summary.parents:
            cache[mfid] = frozenset({summary.timestamp if summary else ""})
        else:
            times = (_measured_at(parent, summaries, cache) for parent in summary.parents)
            cache[mfid] = frozenset[str]().union(*times)
    return cache[mfid]


def _status(session: Session, mfid: str) -> tuple[str, str]:
    """Return the name of a calibration, and its status: state, doubts, checks, flags and numbers."""
    try:
        entry: DatasetEntry = entry_of(session, existing(session, mfid))
    except InputError:
        return mfid, "not visible to this key"
    parts = [entry.state]
    parts += [entry.doubt.message(mfid)] if entry.doubt else []
    failed = [name.rpartition("/")[2] for name, check in entry.checks.items() if not check.passed]
    passed = [name.rpartition("/")[2] for name, check in entry.checks.items() if check.passed]
    parts += [f"failed checks: {', '.join(failed)}"] if failed else []
    parts += [f"passed checks: {', '.join(passed)}"] if passed else []
    parts += [f"flags: {', '.join(entry.flags)}"] if entry.flags else []
    parts += [f"{name} = {value:.6g}" for name, value in entry.summary.numbers.items()]
    return entry.summary.name, "; ".join(parts)
