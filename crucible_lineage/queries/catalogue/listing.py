"""What projects hold now: as a list with the state of each dataset, and in pages, by words and filters together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

from crucible_lineage.core.slots import CURRENT, RAW, SUPERSEDED
from crucible_lineage.core.summary import Summary
from crucible_lineage.core.tables import EVERYTHING, Snapshot
from crucible_lineage.errors import InputError, nearest
from crucible_lineage.queries.catalogue.columns import Column, as_json, facets, in_order
from crucible_lineage.queries.catalogue.reference import find_run
from crucible_lineage.queries.catalogue.runs import datasets_of_run, list_runs
from crucible_lineage.queries.graph.state import (
    CANDIDATE,
    DOUBTFUL,
    DatasetEntry,
    entries_of,
    entries_of_copy,
    stated_entries,
)
from crucible_lineage.session import Session

NO_FILTERS = {"limit", "sort", "direction", "anchor_mfid", "include_metadata", "include_links", "include_owner",
              "project_id"}  # fmt: skip


PER_PAGE = 50
MOST_HITS = 50  # that Crucible's search in metadata gives
MOST_NUMBERS = 4  # columns of numbers that a step returned

Item = TypeVar("Item")


@dataclass(frozen=True)
class Listing:
    """The datasets of a project that were asked for, measured data first; and how many others are in which state."""

    project: str
    entries: tuple[DatasetEntry, ...]
    others: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.entries)

    def to_json(self) -> dict[str, Any]:
        """Return the list for `list --json`."""
        return {"project": self.project, "datasets": as_json(self.entries), "not_listed": dict(self.others)}


def list_datasets(
    session: Session,
    project: str,
    *,
    step: str | None = None,
    pipeline: str | None = None,
    run: str | None = None,
    filters: Mapping[str, Any] | None = None,
    sort: str | None = None,
    results: bool = False,
    every: bool = False,
    doubtful: bool = False,
    refresh: bool = False,
) -> Listing:
    """List what is current in a project: results and measured data; with `results` only the former, with `doubtful`
    also what is on hold or comes from what is, with `every` all that there is.

    `filters` are those of Crucible's own list (`measurement`, `keyword`, `instrument_name`...), `run` is the id of a
    run or the beginning of it, `sort` a column, behind a minus the other way round. InputError if there is no
    such project, nothing in it is of that step, pipeline or run, or a filter is unknown.
    """
    copy = session.mirror.snapshot(project, refresh=refresh)
    summaries = [one for one in copy.summaries.values() if not one.tells_of_run or every]
    _require_known(project, summaries, pipeline, step)
    fitting = [one for one in summaries if step in (None, one.step) and pipeline in (None, one.pipeline)]
    if run is not None:
        members = _of_run(session, project, run, copy)
        fitting = [one for one in fitting if one.mfid in members]
    if filters:
        if asked := NO_FILTERS.intersection(filters):
            raise InputError(f"{min(asked)!r} is not a filter: all matches are listed, of `project` and by `sort`")
        found = {one.unique_id for one in session.client.datasets.iter(**{**filters, "project_id": project})}
        fitting = [one for one in fitting if one.mfid in found]
    fitting.sort(key=lambda one: (one.status.derived, one.created if one.status.derived else "", one.mfid))
    standing = {entry.mfid: entry for entry in entries_of(fitting, copy.summaries.values(), copy.promoted)}
    entries = list(stated_entries(session, standing, project, copy.summaries).values())
    holding = {CURRENT} | ({RAW} if not results else set()) | ({CANDIDATE, DOUBTFUL} if doubtful else set())
    shown = [entry for entry in entries if every or entry.state in holding]
    shown = in_order(shown, sort) if sort else shown
    others = Counter(entry.state for entry in entries) - Counter(entry.state for entry in shown)
    return Listing(project, tuple(shown), dict(others))


def _require_known(project: str, summaries: list[Summary], pipeline: str | None, step: str | None) -> None:
    for what, name, there in (
        ("pipeline", pipeline, {one.pipeline for one in summaries} - {""}),
        ("step", step, {one.step for one in summaries if pipeline in (None, one.pipeline)} - {""}),
    ):
        if name is not None and name not in there:
            instead = nearest(name, sorted(there)) if there else "no step has made any"
            raise InputError(f"list the datasets of project {project!r}: none is of a {what} {name!r}; {instead}")


def _of_run(session: Session, project: str, run: str, copy: Snapshot) -> set[str]:
    found = datasets_of_run(session, run, [copy])
    return found or datasets_of_run(
        session, find_run(run, (one.run_id for one in list_runs(session, [project]))), [copy]
    )


@dataclass(frozen=True)
class DatasetSearch:
    """What one looks for. `words` all stand in name, step or another field, or begin the MFID; `facets` are exact.

    `since` and `until` are dates of registration, both included; `service` are filters that only Crucible knows
    (`keyword`, `sample_mfid`). `sort` is a column, behind a minus the other way round; empty is the newest MFID first.
    `metadata` are words for Crucible's own search in metadata, which gives the fifty best.
    """

    words: str = ""
    facets: Mapping[str, str] = field(default_factory=dict)
    since: str = ""
    until: str = ""
    service: Mapping[str, Any] = field(default_factory=dict)
    sort: str = ""
    metadata: str = ""


@dataclass(frozen=True)
class SearchResult:
    """All that matches, in order, without and with what is superseded; facet values with counts; columns of numbers.

    The count of a facet's value is of what would match if that facet were not chosen. `folded` is what is superseded,
    unless a state was chosen: then it is empty, and `listed` has everything.
    """

    entries: tuple[DatasetEntry, ...]
    listed: tuple[DatasetEntry, ...]
    folded: tuple[DatasetEntry, ...]
    facets: Mapping[str, tuple[tuple[str, int], ...]]
    numbers: tuple[str, ...]


def page_of(found: Sequence[Item], number: int) -> tuple[Sequence[Item], int]:
    """Return the entries of a page, the first of which is 1, and how many pages there are, at least one.

    InputError if there is no such page.
    """
    pages = max(1, -(-len(found) // PER_PAGE))
    if not 1 <= number <= pages:
        raise InputError(f"there is no page {number}; there are {pages}")
    return found[(number - 1) * PER_PAGE : number * PER_PAGE], pages


def browse(session: Session, project: str, wanted: DatasetSearch) -> SearchResult:
    """Find what matches in a project, or in EVERYTHING. InputError for a facet or a column that there is not."""
    there = facets()
    for name in wanted.facets:
        if name not in there:
            raise InputError(f"there is no facet {name!r}; {nearest(name, there)}")
    copy = session.mirror.snapshot(project)
    entries: Iterable[DatasetEntry] = stated_entries(session, entries_of_copy(copy), project, copy.summaries).values()
    if wanted.since or wanted.until or wanted.words:
        entries = [entry for entry in entries if _fits(entry, wanted)]
    if wanted.service:
        where: dict[str, Any] = {} if project == EVERYTHING else {"project_id": project}
        listed = {one.unique_id for one in session.client.datasets.iter(**where, **wanted.service)}
        entries = [entry for entry in entries if entry.mfid in listed]
    if wanted.metadata:
        hits = session.client.datasets.search_scientific_metadata(wanted.metadata, limit=MOST_HITS)
        best = {hit.unique_id for hit in hits}
        entries = [entry for entry in entries if entry.mfid in best]
    chosen, counts = _chosen(entries, wanted.facets, there)
    found = sorted(chosen, key=lambda entry: entry.mfid, reverse=True)
    found = in_order(found, wanted.sort) if wanted.sort else found
    folded = tuple(entry for entry in found if entry.state == SUPERSEDED and "state" not in wanted.facets)
    unfolded = [entry for entry in found if entry.state != SUPERSEDED] if folded else found
    return SearchResult(tuple(found), tuple(unfolded), folded, counts, _numbers(chosen))


def _fits(entry: DatasetEntry, wanted: DatasetSearch) -> bool:
    one = entry.summary
    if (wanted.since and one.created[:10] < wanted.since) or (wanted.until and one.created[:10] > wanted.until):
        return False
    if not wanted.words:
        return True
    said = " ".join((one.name, one.step, one.pipeline, one.measurement, one.data_type, one.instrument)).casefold()
    # Within an MFID, which is random, a short word is found by chance.
    return all(word in said or one.mfid.startswith(word) for word in wanted.words.casefold().split())


def _chosen(
    entries: Iterable[DatasetEntry], chosen: Mapping[str, str], columns: Mapping[str, Column]
) -> tuple[list[DatasetEntry], dict[str, tuple[tuple[str, int], ...]]]:
    """Filter by all chosen values.

    Also returns, for each facet, the values of what matches the others, the commonest first.
    """
    fitting: list[DatasetEntry] = []
    beside: dict[str, list[DatasetEntry]] = {name: [] for name in chosen}  # what lacks the value of this one facet only
    for entry in entries:
        lacking = [name for name, value in chosen.items() if (columns[name].value(entry) or "") != value]
        if not lacking:
            fitting.append(entry)
        elif len(lacking) == 1:
            beside[lacking[0]].append(entry)
    return fitting, {name: _counted(column, fitting, beside.get(name, ())) for name, column in columns.items()}


def _counted(column: Column, *entries: Iterable[DatasetEntry]) -> tuple[tuple[str, int], ...]:
    counts = Counter(map(column.value, chain(*entries)))
    counts.pop("", None)
    return tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _numbers(entries: Sequence[DatasetEntry]) -> tuple[str, ...]:
    """The numbers that most of the results have, where all are of one step."""
    results = [entry for entry in entries if entry.summary.step]
    if not results or len({entry.summary.step for entry in results}) > 1:
        return ()
    counts = Counter(name for entry in results for name in entry.summary.numbers)
    return tuple(name for name, _ in counts.most_common(MOST_NUMBERS))
