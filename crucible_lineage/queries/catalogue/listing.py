"""List the datasets of projects with their states, and search them by words and filters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from crucible_lineage.core.slots import CURRENT, RAW, SUPERSEDED
from crucible_lineage.core.summary import Summary
from crucible_lineage.core.tables import EVERYTHING
from crucible_lineage.errors import InputError, nearest
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.queries.catalogue.columns import Column, as_json, facets, in_order
from crucible_lineage.queries.catalogue.runs import find_run
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
MOST_HITS = 50  # results of Crucible's search in metadata
MOST_NUMBERS = 4  # columns of numbers that a step returned

Item = TypeVar("Item")


@dataclass(frozen=True)
class Listing:
    """The selected datasets of a project, measured data first, and counts of the others by state."""

    project: str
    entries: tuple[DatasetEntry, ...]
    others: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.entries)

    def to_json(self) -> JsonObject:
        """Return the list for `list --json`."""
        return {"project": self.project, "datasets": as_json(self.entries), "not_listed": dict(self.others)}


def list_datasets(
    session: Session,
    project: str,
    *,
    step: str | None = None,
    pipeline: str | None = None,
    run: str | None = None,
    filters: JsonMapping | None = None,
    sort: str | None = None,
    results: bool = False,
    every: bool = False,
    doubtful: bool = False,
    refresh: bool = False,
) -> Listing:
    """List the current results and measured data of a project; with `results` no measured data, with `doubtful` also
    datasets on hold and their descendants, with `every` all datasets.

    `filters` are those of Crucible's own list (`measurement`, `keyword`, `instrument_name`...), `run` is an id as for
    `find_run`, `sort` a column, after a minus in descending order. Raises InputError if there is no such
    project, it has nothing of that step, pipeline or run, or a filter is unknown.
    """
    copy = session.mirror.snapshot(project, refresh=refresh)
    summaries = list(copy.summaries.values())
    _require_known(project, summaries, pipeline, step)
    matching = [one for one in summaries if step in (None, one.step) and pipeline in (None, one.pipeline)]
    if run is not None:
        found_run = find_run(session, run, {project: copy})
        matching = [one for one in matching if one.mfid in found_run.datasets]
    if filters:
        if refused := NO_FILTERS.intersection(filters):
            raise InputError(f"{min(refused)!r} is not a filter: all matches are listed, of `project` and by `sort`")
        found = {one.unique_id for one in session.client.datasets.iter(**{**filters, "project_id": project})}
        matching = [one for one in matching if one.mfid in found]
    matching.sort(key=lambda one: (one.status.derived, one.created if one.status.derived else "", one.mfid))
    found_entries = {entry.mfid: entry for entry in entries_of(matching, copy.summaries.values(), copy.promoted)}
    entries = list(stated_entries(session, found_entries, project, copy.summaries).values())
    states = {CURRENT} | ({RAW} if not results else set()) | ({CANDIDATE, DOUBTFUL} if doubtful else set())
    shown = [entry for entry in entries if every or entry.state in states]
    shown = in_order(shown, sort) if sort else shown
    others = Counter(entry.state for entry in entries) - Counter(entry.state for entry in shown)
    return Listing(project, tuple(shown), dict(others))


def _require_known(project: str, summaries: list[Summary], pipeline: str | None, step: str | None) -> None:
    for kind, name, known in (
        ("pipeline", pipeline, {one.pipeline for one in summaries} - {""}),
        ("step", step, {one.step for one in summaries if pipeline in (None, one.pipeline)} - {""}),
    ):
        if name is not None and name not in known:
            instead = nearest(name, sorted(known)) if known else "no step has made any"
            raise InputError(f"list the datasets of project {project!r}: none has the {kind} {name!r}; {instead}")


@dataclass(frozen=True)
class DatasetSearch:
    """A search. All `words` must be in the name, step or another field, or begin the MFID; `facets` are exact values.

    `since` and `until` are dates of registration, inclusive; `service` are filters that only Crucible applies
    (`keyword`, `sample_mfid`). `sort` is a column, after a minus in descending order; by default the newest MFID comes
    first. `metadata` are words for Crucible's own search in metadata, which returns the fifty best matches.
    """

    words: str = ""
    facets: Mapping[str, str] = field(default_factory=dict)
    since: str = ""
    until: str = ""
    service: JsonMapping = field(default_factory=dict)
    sort: str = ""
    metadata: str = ""


@dataclass(frozen=True)
class SearchResult:
    """All matches in order; those listed and the superseded ones; facet values with counts; columns of numbers.

    The count of a facet's value is the number of matches without a choice for that facet. `folded` are the superseded
    ones, unless a state was chosen: then it is empty, and `listed` has everything.
    """

    entries: tuple[DatasetEntry, ...]
    listed: tuple[DatasetEntry, ...]
    folded: tuple[DatasetEntry, ...]
    facets: Mapping[str, tuple[tuple[str, int], ...]]
    numbers: tuple[str, ...]


def page_of(found: Sequence[Item], number: int) -> tuple[Sequence[Item], int]:
    """Return the entries of a page, numbered from 1, and the number of pages, at least one.

    Raises InputError if there is no such page.
    """
    pages = max(1, -(-len(found) // PER_PAGE))
    if not 1 <= number <= pages:
        raise InputError(f"there is no page {number}; there are {pages}")
    return found[(number - 1) * PER_PAGE : number * PER_PAGE], pages


def browse(session: Session, project: str, search: DatasetSearch) -> SearchResult:
    """Search a project, or EVERYTHING. Raises InputError for an unknown facet or column."""
    columns = facets()
    for name in search.facets:
        if name not in columns:
            raise InputError(f"there is no facet {name!r}; {nearest(name, columns)}")
    copy = session.mirror.snapshot(project)
    entries: Iterable[DatasetEntry] = stated_entries(session, entries_of_copy(copy), project, copy.summaries).values()
    if search.since or search.until or search.words:
        entries = [entry for entry in entries if _matches(entry, search)]
    if search.service:
        scope: JsonObject = {} if project == EVERYTHING else {"project_id": project}
        listed = {one.unique_id for one in session.client.datasets.iter(**scope, **search.service)}
        entries = [entry for entry in entries if entry.mfid in listed]
    if search.metadata:
        hits = session.client.datasets.search_scientific_metadata(search.metadata, limit=MOST_HITS)
        best = {hit.unique_id for hit in hits}
        entries = [entry for entry in entries if entry.mfid in best]
    chosen, counts = _filter(entries, search.facets, columns)
    ordered = sorted(chosen, key=lambda entry: entry.mfid, reverse=True)
    ordered = in_order(ordered, search.sort) if search.sort else ordered
    folded = tuple(entry for entry in ordered if entry.state == SUPERSEDED and "state" not in search.facets)
    unfolded = [entry for entry in ordered if entry.state != SUPERSEDED] if folded else ordered
    return SearchResult(tuple(ordered), tuple(unfolded), folded, counts, _numbers(chosen))


def _matches(entry: DatasetEntry, search: DatasetSearch) -> bool:
    summary = entry.summary
    if (search.since and summary.created[:10] < search.since) or (search.until and summary.created[:10] > search.until):
        return False
    if not search.words:
        return True
    text = " ".join(
        (summary.name, summary.step, summary.pipeline, summary.measurement, summary.data_type, summary.instrument)
    ).casefold()
    # Only the beginning of an MFID counts: a short word occurs within a random id by chance.
    return all(word in text or summary.mfid.startswith(word) for word in search.words.casefold().split())


def _filter(
    entries: Iterable[DatasetEntry], chosen: Mapping[str, str], columns: Mapping[str, Column]
) -> tuple[list[DatasetEntry], dict[str, tuple[tuple[str, int], ...]]]:
    """Filter by all chosen values.

    Also returns, for each facet, the values of the entries that match the other facets, the most frequent first.
    """
    matching: list[DatasetEntry] = []
    near: dict[str, list[DatasetEntry]] = {name: [] for name in chosen}  # entries that fail only this facet
    for entry in entries:
        failing = [name for name, value in chosen.items() if (columns[name].value(entry) or "") != value]
        if not failing:
            matching.append(entry)
        elif len(failing) == 1:
            near[failing[0]].append(entry)
    return matching, {name: _counted(column, matching, near.get(name, ())) for name, column in columns.items()}


def _counted(column: Column, *entries: Iterable[DatasetEntry]) -> tuple[tuple[str, int], ...]:
    counts = Counter(map(column.value, chain(*entries)))
    counts.pop("", None)
    return tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _numbers(entries: Sequence[DatasetEntry]) -> tuple[str, ...]:
    """Return the numbers that most of the results have, if all are from one step."""
    results = [entry for entry in entries if entry.summary.step]
    if not results or len({entry.summary.step for entry in results}) > 1:
        return ()
    counts = Counter(name for entry in results for name in entry.summary.numbers)
    return tuple(name for name, _ in counts.most_common(MOST_NUMBERS))
