"""State of a dataset: current, superseded and by what, incomplete, or raw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from crucible_lineage.core.slots import CURRENT, RAW, Currency
from crucible_lineage.core.summary import Summary, summary_of
from crucible_lineage.core.tables import EVERYTHING, Snapshot
from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError
from crucible_lineage.lineage.model import CANDIDATE, DOUBTFUL, WITHDRAWN
from crucible_lineage.lineage.records import is_withdrawn
from crucible_lineage.marks import CORRECTIONS_KEY
from crucible_lineage.session import Session
from crucible_lineage.statements import CheckResult, Doubt, ReproductionCount

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
    """A dataset with its state. If it is superseded: what holds in its place, and since when.

    `doubt` says why it is doubtful, also of what is superseded; `flags` are the names of those in force on it,
    `checks` the verdicts of its checks, and `remade` says how often it was made again.
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
        """Its id."""
        return self.summary.mfid

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Return the verdicts of its checks, in words."""
        return tuple(_verdict_text(name, one) for name, one in self.checks.items())


def _verdict_text(name: str, one: CheckResult) -> str:
    values = ", ".join(f"{name} is {value}" for name, value in one.values.items())
    return f"check {name.rpartition('/')[2]} {'passed' if one.passed else 'failed'}: {one.that} ({values})"


def entries_of(
    wanted: Iterable[Summary], everything: Iterable[Summary], promoted: Mapping[str, str]
) -> list[DatasetEntry]:
    """Return the standing of these datasets among all of their projects, with these campaigns promoted."""
    currency = Currency((summary.status for summary in everything), promoted)
    return [_entry(summary, currency) for summary in wanted]


_entries: WeakKeyDictionary[Snapshot, dict[str, DatasetEntry]] = WeakKeyDictionary()


def entries_of_copy(copy: Snapshot) -> Mapping[str, DatasetEntry]:
    """Return the standing of all datasets of a copy, by id and in its order; computed once for the same copy."""
    found = _entries.get(copy)
    if found is None:
        worked_out = entries_of(copy.summaries.values(), copy.summaries.values(), copy.promoted)
        found = _entries[copy] = {entry.mfid: entry for entry in worked_out}
    return found


def stated_entries(
    session: Session, entries: Mapping[str, DatasetEntry], project: str, known: Mapping[str, Summary]
) -> Mapping[str, DatasetEntry]:
    """Return the entries with what statements say of them, as a project asks; the same while nothing is stated.

    Of EVERYTHING, each is as its own project sees it. `known` are summaries that were read already.
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
            _stated(entry, doubts.get(mfid), flags.get(mfid, ()), verdicts.get(mfid, {})),
            remade=remade.get(mfid, NEVER),
        )
        for mfid, entry in entries.items()
    }


def _stated(
    entry: DatasetEntry, doubt: Doubt | None, flags: tuple[str, ...], checks: Mapping[str, CheckResult]
) -> DatasetEntry:
    state = entry.state
    if doubt and state in (CURRENT, RAW):
        state = CANDIDATE if doubt.is_candidate and doubt.source == entry.mfid else DOUBTFUL
    return replace(entry, state=state, doubt=doubt, flags=flags, checks=checks)


def entry_of(session: Session, found: Dataset) -> DatasetEntry:
    """Return the standing of a dataset, read with its metadata and links."""
    return entries_now(session, [found])[0]


def entries_now(session: Session, found: Sequence[Dataset]) -> list[DatasetEntry]:
    """Return the standing of datasets, read with metadata and links, with what statements say of them."""
    session.mirror.sync_statements()
    entries = {entry.mfid: entry for entry in entries_in_projects(session, found)}
    known = {mfid: entry.summary for mfid, entry in entries.items()}
    return list(stated_entries(session, entries, EVERYTHING, known).values())


def may_be_replaced(record: Mapping[str, Any]) -> bool:
    """Return whether another dataset may hold in place of this one: of a result, and of what notes corrections."""
    return summary_of(record).status.derived or CORRECTIONS_KEY in (record.get("scientific_metadata") or {})


def entries_in_projects(session: Session, found: Sequence[Dataset]) -> list[DatasetEntry]:
    """Return the standing of datasets, read with their metadata.

    What holds in place of one may be any other of its project.
    """
    records = {dataset.unique_id: dataset.model_dump() for dataset in found}
    wanted = {mfid: summary_of(record) for mfid, record in records.items() if not is_withdrawn(record)}
    copies: list[Snapshot] = []
    asked = (record["project_id"] for record in records.values() if may_be_replaced(record))
    for project in dict.fromkeys(filter(None, asked)):
        # It may be that the dataset is this key's to see, and its project is not.
        with suppress(ForbiddenError, InputError, NotFoundError):
            copies.append(session.mirror.snapshot(project))
    known = {mfid: entry for copy in copies for mfid in wanted if (entry := entries_of_copy(copy).get(mfid))}
    if all(mfid in known and known[mfid].summary.status == one.status for mfid, one in wanted.items()):
        entries = {mfid: replace(known[mfid], summary=one) for mfid, one in wanted.items()}
    else:
        everything = {mfid: one for copy in copies for mfid, one in copy.summaries.items()}
        among = {**everything, **wanted}.values()
        entries = {one.mfid: one for one in entries_of(wanted.values(), among, session.mirror.promoted())}
    return [entries.get(mfid) or DatasetEntry(summary_of(record), WITHDRAWN) for mfid, record in records.items()]


def _entry(summary: Summary, currency: Currency) -> DatasetEntry:
    by = currency.superseded_by(summary.mfid)
    shared = (currency.slots(other).get(key) for other in by for key in summary.status.slots)
    return DatasetEntry(
        summary, currency.state(summary.mfid), by, max((one.since for one in shared if one), default="")
    )
