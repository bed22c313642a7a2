"""The state of a dataset: current, superseded (and by what), incomplete, or raw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from crucible_lineage.core.slots import Currency
from crucible_lineage.core.tables import EVERYTHING, Snapshot, Summary, summary_of
from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.model import CANDIDATE, DOUBTFUL, WITHDRAWN, state_in_doubt
from crucible_lineage.lineage.records import is_withdrawn
from crucible_lineage.marks import CORRECTIONS_KEY
from crucible_lineage.session import Session
from crucible_lineage.statements.statements import CheckResult, Doubt, ReproductionCount

if TYPE_CHECKING:
    from crucible_lineage.client.models import Dataset

__all__ = [
    "CANDIDATE",
    "DOUBTFUL",
    "DatasetEntry",
    "entries_in_projects",
    "entries_now",
    "entries_of",
    "entries_of_copy",
    "entry_of",
    "may_be_replaced",
    "stated_entries",
]


NEVER = ReproductionCount()


@dataclass(frozen=True)
class DatasetEntry:
    """A dataset with its state. If it is superseded, also its successors and the time.

    `doubt` is the reason for doubt, even if superseded; `flags` are the names of flags in force, `checks` the verdicts
    of its checks, and `remade` counts its reproductions.
    """

    summary: Summary
    state: str
    superseded_by: tuple[str, ...] = ()
    since: str = ""
    doubt: Doubt | None = None
    flags: tuple[str, ...] = ()
    checks: Mapping[str, CheckResult] = field(default_factory=dict)
    remade: ReproductionCount = NEVER

    @property
    def mfid(self) -> str:
        """The id of the dataset."""
        return self.summary.mfid

    @property
    def origin(self) -> str:
        """The pipeline and step that made it, else its measurement."""
        return "/".join(filter(None, (self.summary.pipeline, self.summary.step))) or self.summary.measurement

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The verdicts of its checks, in words."""
        return tuple(_verdict_text(name, one) for name, one in self.checks.items())


def _verdict_text(name: str, check: CheckResult) -> str:
    values = ", ".join(f"{name} is {value}" for name, value in check.values.items())
    return f"check {name.rpartition('/')[2]} {'passed' if check.passed else 'failed'}: {check.that} ({values})"


def entries_of(
    selected: Iterable[Summary], everything: Iterable[Summary], promoted: Mapping[str, str]
) -> list[DatasetEntry]:
    """Return the entries of the selected datasets among all of their projects, with these tries promoted."""
    currency = Currency((summary.status for summary in everything), promoted)
    return [_entry(summary, currency) for summary in selected]


_entries: WeakKeyDictionary[Snapshot, dict[str, DatasetEntry]] = WeakKeyDictionary()


def entries_of_copy(copy: Snapshot) -> Mapping[str, DatasetEntry]:
    """Return the entries of all datasets of a copy by id, in its order. They are computed once for a copy."""
    entries = _entries.get(copy)
    if entries is None:
        computed = entries_of(copy.summaries.values(), copy.summaries.values(), copy.promoted)
        entries = _entries[copy] = {entry.mfid: entry for entry in computed}
    return entries


def stated_entries(
    session: Session, entries: Mapping[str, DatasetEntry], project: str, known: Mapping[str, Summary]
) -> Mapping[str, DatasetEntry]:
    """Return the entries with the effects of statements as a project sees them; unchanged while nothing is stated.

    For EVERYTHING, each is as its own project sees it. `known` are summaries that were read already.
    """
    stated = session.stated
    verdicts = session.mirror.verdicts()
    remade = session.mirror.remade()
    if not stated.says_any and not verdicts and not remade:
        return entries
    viewers: dict[str, list[str]] = {}
    for mfid, entry in entries.items():
        viewers.setdefault(project or entry.summary.status.project, []).append(mfid)
    doubts: dict[str, Doubt] = {}
    flags: dict[str, tuple[str, ...]] = {}
    for viewer, mfids in viewers.items():
        doubts |= stated.doubts(mfids, viewer, known)
        flags |= stated.flags(mfids, viewer, known)
    return {
        mfid: replace(
            entry,
            state=state_in_doubt(mfid, entry.state, doubts.get(mfid)),
            doubt=doubts.get(mfid),
            flags=flags.get(mfid, ()),
            checks=verdicts.get(mfid, {}),
            remade=remade.get(mfid, NEVER),
        )
        for mfid, entry in entries.items()
    }


def entry_of(session: Session, found: Dataset) -> DatasetEntry:
    """Return the entry of a dataset that was read with its metadata and links."""
    return entries_now(session, [found])[0]


def entries_now(session: Session, found: Sequence[Dataset]) -> list[DatasetEntry]:
    """Return the entries of datasets that were read with metadata and links, with the effects of statements."""
    session.mirror.sync_statements()
    entries = {entry.mfid: entry for entry in entries_in_projects(session, found)}
    known = {mfid: entry.summary for mfid, entry in entries.items()}
    return list(stated_entries(session, entries, EVERYTHING, known).values())


def visible_copies(session: Session, projects: Iterable[str]) -> list[Snapshot]:
    """Return copies of the projects, without those of which this key can only see single datasets."""
    copies = []
    for project in projects:
        with suppress(ForbiddenError, InputError, NotFoundError):
            copies.append(session.mirror.snapshot(project))
    return copies


def may_be_replaced(record: JsonMapping) -> bool:
    """Return whether another dataset may replace this one: it is a result, or its metadata note corrections."""
    return summary_of(record).status.derived or CORRECTIONS_KEY in (record.get("scientific_metadata") or {})


def entries_in_projects(session: Session, found: Sequence[Dataset]) -> list[DatasetEntry]:
    """Return the entries of datasets that were read with their metadata.

    Any other dataset of its project may have replaced one.
    """
    records = {dataset.unique_id: dataset.model_dump() for dataset in found}
    summaries = {mfid: summary_of(record) for mfid, record in records.items() if not is_withdrawn(record)}
    projects = (record["project_id"] for record in records.values() if may_be_replaced(record))
    copies = visible_copies(session, dict.fromkeys(filter(None, projects)))
    known = {mfid: entry for copy in copies for mfid in summaries if (entry := entries_of_copy(copy).get(mfid))}
    if all(mfid in known and known[mfid].summary.status == one.status for mfid, one in summaries.items()):
        entries = {mfid: replace(known[mfid], summary=one) for mfid, one in summaries.items()}
    else:
        everything = {mfid: one for copy in copies for mfid, one in copy.summaries.items()}
        candidates = {**everything, **summaries}.values()
        entries = {one.mfid: one for one in entries_of(summaries.values(), candidates, session.mirror.promoted())}
    return [entries.get(mfid) or DatasetEntry(summary_of(record), WITHDRAWN) for mfid, record in records.items()]


def _entry(summary: Summary, currency: Currency) -> DatasetEntry:
    by = currency.superseded_by(summary.mfid)
    shared = (currency.slots(other).get(key) for other in by for key in summary.status.slots)
    return DatasetEntry(
        summary, currency.state(summary.mfid), by, max((one.since for one in shared if one), default="")
    )
