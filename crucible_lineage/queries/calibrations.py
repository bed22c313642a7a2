"""Which calibrations are certified for a dataset, whether they are good, and what was made with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from html import escape
from typing import Any

from crucible_lineage.calibrations import Calibrations, Certificate, CertificateMatch, Span, range_text
from crucible_lineage.certifying import certificates_as_of
from crucible_lineage.core.slots import CURRENT
from crucible_lineage.core.summary import Summary
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.records import OWN_KEYS
from crucible_lineage.queries.catalogue.view import existing
from crucible_lineage.queries.graph.state import DatasetEntry, entries_of_copy, entry_of
from crucible_lineage.session import Session
from crucible_lineage.times import measured_at, moment_text, span_text, utc


@dataclass(frozen=True)
class CalibrationUse:
    """A current result that was made of data with a calibration."""

    mfid: str
    name: str
    step: str
    calibration: str

    def to_json(self) -> dict[str, str]:
        """Return it as commands print it."""
        return dict(vars(self))


@dataclass(frozen=True)
class CalibrationFor:
    """What is certified for a dataset, of one kind; `names` and `standings` are of the calibrations, by id."""

    kind: str
    fitting: CertificateMatch
    uses: tuple[CalibrationUse, ...]
    names: Mapping[str, str]
    standings: Mapping[str, str]
    moment: datetime

    @property
    def valid(self) -> Certificate | None:
        """The certificate that holds; None if there is none, or several contradict each other."""
        datasets = {one.dataset for one in self.fitting.valid}
        return self.fitting.valid[0] if len(datasets) == 1 else None

    def named(self, mfid: str) -> str:
        """Return the id of a calibration, with its name where that is known."""
        return f"{mfid} ({self.names[mfid]})" if mfid in self.names else mfid

    def range_of(self, one: Certificate) -> str:
        """Return in which range a valid certificate is valid, in words."""
        return range_text(one.span_at(self.moment) or one.stated)

    def lines(self) -> Iterable[str]:
        """Yield it in lines: which, why, what else there is, and what was made with it."""
        valid, fitting = self.fitting.valid, self.fitting
        if not valid:
            yield f"{self.kind}: none is certified for {moment_text(self.moment)}"
        for one in valid:
            yield f"{self.kind}: {self.named(one.dataset)}"
            yield f"  valid {self.range_of(one)}, for {one.scope}"
            yield f"  {one.attribution} (certificate {one.statement})"
            yield f"  it is {self.standings.get(one.dataset, 'not visible to this key')}"
        if len({one.dataset for one in valid}) > 1:
            yield "  these contradict each other and are not used: decertify one"
        if fitting.before and fitting.ended:
            away = span_text((self.moment - fitting.ended).total_seconds())
            yield f"  before: {self.named(fitting.before.dataset)}, until {moment_text(fitting.ended)} ({away} before)"
        if fitting.after and fitting.begins:
            away = span_text((fitting.begins - self.moment).total_seconds())
            yield f"  after: {self.named(fitting.after.dataset)}, from {moment_text(fitting.begins)} ({away} after)"
        own = self.valid
        for use in self.uses:
            same = "" if own and use.calibration == own.dataset else ", which is not certified now"
            yield f"  used: {use.mfid} ({use.name}) was made with {self.named(use.calibration)}{same}"

    def to_json(self) -> dict[str, Any]:
        """Return it for `calibration for --json`."""
        fitting = self.fitting
        return {
            "kind": self.kind,
            "taken": self.moment.isoformat(),
            "valid": [one.to_json() for one in fitting.valid],
            "before": fitting.before.to_json() if fitting.before else None,
            "after": fitting.after.to_json() if fitting.after else None,
            "standings": dict(self.standings),
            "used": [use.to_json() for use in self.uses],
        }


@dataclass(frozen=True)
class CalibrationsFor:
    """What is certified for a dataset, kind by kind."""

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
    """Return the calibrations that are certified for measured data, of one kind or all, with what was made with them.

    Raises InputError if there is no such dataset, nobody said when it was measured, or the kind is not known there.
    """
    found = existing(session, mfid)
    record, project = found.model_dump(), found.project_id or ""
    certificates = certificates_as_of(session, project, kind or None, as_of)
    calibrations = Calibrations(certificates)
    if kind and kind not in calibrations.kinds:
        known = sorted({one.kind for one in certificates_as_of(session, project, None, as_of)})
        raise InputError(f"no {kind} is certified in project {project}; there is {', '.join(known) or 'nothing'}")
    moment = measured_at(record)
    if moment is None and calibrations.kinds:
        raise InputError(f"dataset {mfid} has no time of measurement (timestamp), by which calibrations are chosen")
    kinds = []
    for one in calibrations.kinds:
        assert moment is not None
        fitting = calibrations.fitting(one, partial(_value, record), moment)
        if fitting.valid or fitting.before or fitting.after or kind:
            datasets = {certificate.dataset for certificate in certificates if certificate.kind == one}
            uses = tuple(_uses(session, project, datasets, {mfid}))
            kinds.append(_calibration_for(session, one, fitting, uses, moment))
    return CalibrationsFor(mfid, found.dataset_name or mfid, tuple(kinds))


def _value(record: Mapping[str, Any], name: str) -> object:
    """Return a field of a record by its dotted name; None if it has none."""
    own = record.get("scientific_metadata") or {}
    part: Any = {**record, "metadata": {key: value for key, value in own.items() if key not in OWN_KEYS}}
    for key in name.split("."):
        part = part.get(key) if isinstance(part, Mapping) else None
    return part


def _calibration_for(
    session: Session, kind: str, fitting: CertificateMatch, uses: tuple[CalibrationUse, ...], moment: datetime
) -> CalibrationFor:
    """Add the names and standings of the calibrations that fit, and of those that were used."""
    standings = {one.dataset: _standing(session, one.dataset) for one in fitting.valid}
    others = {one.dataset for one in (fitting.before, fitting.after) if one} | {use.calibration for use in uses}
    names = {dataset: summary.name for dataset, summary in session.mirror.summaries(others).items()}
    names |= {dataset: name for dataset, (name, _) in standings.items()}
    good = {dataset: told for dataset, (_, told) in standings.items()}
    return CalibrationFor(kind, fitting, uses, names, good, moment)


def used_in(session: Session, project: str, dataset: str, spans: Collection[Span]) -> list[CalibrationUse]:
    """Return the current results that were made with a calibration, of data that were measured in these ranges.

    Those of data without a time count, too.
    """
    summaries = session.mirror.snapshot(project).summaries
    cache: dict[str, frozenset[str]] = {}
    found = []
    for use in _uses(session, project, {dataset}, None):
        parents = [mfid for mfid in summaries[use.mfid].parents if mfid != dataset]
        moments = frozenset[str]().union(*(_taken(mfid, summaries, cache) for mfid in parents))
        if any(not text or any(since <= utc(text) < until for since, until in spans) for text in moments or {""}):
            found.append(use)
    return found


def _uses(
    session: Session, project: str, calibrations: Collection[str], data: Collection[str] | None
) -> Iterable[CalibrationUse]:
    """Yield the current results made of one of these calibrations, and of one of these data (None: of any)."""
    for entry in entries_of_copy(session.mirror.snapshot(project)).values():
        parents = entry.summary.parents
        own = [mfid for mfid in parents if mfid in calibrations]
        if own and entry.state == CURRENT and (data is None or any(mfid in data for mfid in parents)):
            yield CalibrationUse(entry.mfid, entry.summary.name, entry.summary.step, own[0])


def _taken(mfid: str, summaries: Mapping[str, Summary], cache: dict[str, frozenset[str]]) -> frozenset[str]:
    """The times of measurement of what a dataset comes from; an empty text where one is not known."""
    if mfid not in cache:
        cache[mfid] = frozenset()  # while it is looked at
        one = summaries.get(mfid)
        if one is None or not one.parents:
            cache[mfid] = frozenset({one.timestamp if one else ""})
        else:
            cache[mfid] = frozenset[str]().union(*(_taken(parent, summaries, cache) for parent in one.parents))
    return cache[mfid]


def _standing(session: Session, mfid: str) -> tuple[str, str]:
    """Return the name of a calibration, and whether it is good: its state, doubts, checks, flags and numbers."""
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
