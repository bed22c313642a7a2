"""Plan of a copy from one Crucible to another: everything is compared before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from crucible_lineage.amounts import amount
from crucible_lineage.core.datasets import fetch_datasets, in_threads
from crucible_lineage.core.store import CopiedDataset
from crucible_lineage.errors import InputError
from crucible_lineage.exchange.compare import compare, compare_sample, missing_parents
from crucible_lineage.exchange.model import (
    Conflict,
    CopyComparison,
    HeldDataset,
    MissingParts,
    derived_parents,
    linked,
    read_held,
    read_samples,
)
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.registration.read import recipe_keyword
from crucible_lineage.registration.trust import lies_elsewhere
from crucible_lineage.service import DERIVED_IDS
from crucible_lineage.session import Session
from crucible_lineage.traffic import Tell


@dataclass(frozen=True)
class ItemToCopy:
    """A dataset or sample to copy: its record at the source, what the target lacks, and what must be copied first."""

    mfid: str
    name: str
    record: JsonMapping
    missing: MissingParts
    parents: frozenset[str] = frozenset()

    @property
    def is_sample(self) -> bool:
        """Whether it is a sample."""
        return bool(self.record.get("resource_type") == "sample")

    @property
    def bytes(self) -> int:
        """The size of its files if the target lacks everything, else 0."""
        return int(self.record.get("size") or 0) if self.missing.everything else 0

    def to_json(self) -> JsonObject:
        """Return the JSON that commands print."""
        kind = "sample" if self.is_sample else "dataset"
        return {"mfid": self.mfid, "name": self.name, "kind": kind, "lacking": self.missing.in_words}


Pair = tuple[ItemToCopy, CopyComparison]


@dataclass(frozen=True)
class CopyPlan:
    """Items to copy, parents first; the number of equal datasets; and the conflicts.

    `skipped` items are not copied, for the given reasons; `differs` are reported, and stay unchanged at the target.
    `ids` maps datasets that have other ids there, `brought` has notes of equal ones, and `instruments` the short names
    of instruments that the target knows under the same names.
    """

    items: tuple[ItemToCopy, ...]
    equal: int
    conflicts: tuple[Conflict, ...] = ()
    skipped: tuple[Conflict, ...] = ()
    differs: tuple[Conflict, ...] = ()
    ids: Mapping[str, str] = field(default_factory=dict)
    brought: tuple[CopiedDataset, ...] = ()
    instruments: frozenset[str] = frozenset()

    def without_conflicts(self) -> CopyPlan:
        """Return the plan without conflicting items and their descendants."""
        excluded = {one.mfid: one for one in self.conflicts}
        skipped, items = list(self.skipped), []
        for item in self.items:  # parents first
            if item.mfid in excluded:
                continue
            if (parent := next((one for one in sorted(item.parents) if one in excluded), None)) is not None:
                reason = f"it was made from {parent}, which conflicts with the target"
                excluded[item.mfid] = Conflict(item.mfid, item.name, reason)
                skipped.append(excluded[item.mfid])
            else:
                items.append(item)
        return replace(self, items=tuple(items), skipped=tuple(skipped), conflicts=())


def plan_project(source: Session, target: Session, project: str, tell: Tell) -> CopyPlan:
    """Plan the copy of a project. Raises InputError if either side lacks it."""
    tell(f"reading project {project} at the source", 0)
    ours = {**source.mirror.snapshot(project).records, **source.mirror.records_beside(project)}
    project_id = next((str(one["project_id"]) for one in ours.values()), project)
    target.require_project(project_id)
    tell(f"reading project {project} at the target", 0)
    theirs = {**target.mirror.snapshot(project_id).records, **target.mirror.records_beside(project_id)}
    samples = [sample.unique_id for sample in source.client.samples.iter(project_id=project_id)]
    return _plan(source, target, ours, theirs, samples, tell, absent_parents=False)


def plan_named(source: Session, target: Session, mfids: Iterable[str], tell: Tell) -> CopyPlan:
    """Plan the copy of these datasets, with their source and environment.

    Parents are linked if the target has them. Raises InputError if a dataset is missing or not readable.
    """
    requested = list(dict.fromkeys(mfids))
    fetched = fetch_datasets(source.client, requested, include_links=True)
    if missing := [mfid for mfid in requested if mfid not in fetched.found]:
        where = source.settings.describe()
        raise InputError(f"there is no dataset {', '.join(missing)} that this key may read ({where})")
    for project in sorted({str(one["project_id"]) for one in fetched.found.values() if one.get("project_id")}):
        target.require_project(project)
    more = {mfid for one in fetched.found.values() for mfid in _support_of(one)} - fetched.found.keys()
    records = fetched.found | (fetch_datasets(source.client, sorted(more), include_links=True).found if more else {})
    return _plan(source, target, records, {}, (), tell, absent_parents=True)


def _support_of(dataset: JsonMapping) -> Iterator[str]:
    """Yield the datasets with the source and the environment of a result, which are needed to reproduce it."""
    record = HeldDataset(dataset).record
    step = record.as_step if record is not None else None
    if step is not None:
        yield from (kept.mfid for kept in (step.activity.code.archive, step.software.environment) if kept)


def _plan(
    source: Session,
    target: Session,
    ours: Mapping[str, JsonMapping],
    theirs: Mapping[str, JsonMapping],
    samples: Iterable[str],
    tell: Tell,
    *,
    absent_parents: bool,
) -> CopyPlan:
    noted = {copy.mfid: copy for copy in target.store.brought(source.store.instance)}
    ids = {mfid: copy.there for mfid, copy in noted.items() if copy.there != mfid}
    skipped, finished = _finished(ours, {mfid for mfid in ours if _is_complete(theirs.get(ids.get(mfid, mfid)))})
    tell(f"comparing {amount(len(finished), 'dataset')}", 0)
    theirs, ids = _counterparts(target, finished, ours, theirs, ids)

    def renamed(mfid: str) -> str:
        return ids.get(mfid, mfid)

    def compared(mfid: str) -> Pair:
        comparison = _compared(source, target, ours[mfid], theirs.get(renamed(mfid)), noted.get(mfid), renamed)
        return _item(ours[mfid], comparison.missing, ours), comparison

    datasets = list(in_threads(compared, finished))
    own_samples = {*samples, *(one for mfid in finished for one in linked(ours[mfid], "sample"))}
    of_samples = list(_samples(source, target, own_samples, renamed))
    absent = _absent_parents(target, [ours[mfid] for mfid in finished], ours.keys(), theirs, renamed)
    conflicts = [fault for _, comparison in (*of_samples, *datasets) for fault in comparison.conflicts]
    if absent_parents:
        datasets = [(_with_parents(item, absent), comparison) for item, comparison in datasets]
    else:
        conflicts += _without_parents(datasets, absent)
    blocked = {fault.mfid for fault in conflicts}
    order = _parents_first([item for item, _ in (*of_samples, *datasets) if item.missing or item.mfid in blocked])
    equal = [item.mfid for item, _ in datasets if not item.missing and item.mfid not in blocked]
    brought = tuple(_copied(ours[mfid], theirs[renamed(mfid)]) for mfid in equal)
    instruments = _instruments(target, order)
    differs = (*_differing(datasets), *_without_instrument(order, instruments))
    return CopyPlan(order, len(equal), tuple(conflicts), tuple(skipped), differs, ids, brought, instruments)


def _counterparts(
    target: Session,
    finished: Sequence[str],
    ours: Mapping[str, JsonMapping],
    theirs: Mapping[str, JsonMapping],
    ids: Mapping[str, str],
) -> tuple[dict[str, JsonMapping], dict[str, str]]:
    """Complete the target's records and the ids there by those of datasets that its list does not have.

    They are absent, lie elsewhere, are marked for deletion, or have got another id.
    """
    unlisted = {ids.get(mfid, mfid) for mfid in finished} - theirs.keys()
    known = {**theirs, **fetch_datasets(target.client, unlisted, include_links=True).found}
    assigned = _assigned(target, [mfid for mfid in finished if ids.get(mfid, mfid) not in known], ours)
    known |= {str(one["unique_id"]): one for one in assigned.values()}
    return known, {**ids, **{mfid: str(one["unique_id"]) for mfid, one in assigned.items()}}


def _absent_parents(
    target: Session,
    datasets: Sequence[JsonMapping],
    ours: Collection[str],
    theirs: Mapping[str, JsonMapping],
    renamed: Callable[[str], str],
) -> set[str]:
    """Return the parents that are not copied, and that the target lacks or does not show."""
    outside = {parent for one in datasets for parent in derived_parents(one)} - set(ours)
    fetched = fetch_datasets(target.client, {renamed(one) for one in outside} - theirs.keys())
    return {one for one in outside if renamed(one) in fetched.absent | fetched.hidden}


def _copied(ours: JsonMapping, theirs: JsonMapping) -> CopiedDataset:
    ids = str(ours["unique_id"]), str(theirs["unique_id"])
    return CopiedDataset(*ids, ours["modification_time"], theirs["modification_time"])


def _compared(
    source: Session,
    target: Session,
    ours: JsonMapping,
    theirs: JsonMapping | None,
    noted: CopiedDataset | None,
    renamed: Callable[[str], str],
) -> CopyComparison:
    """Compare a dataset with the target's. Of one that was copied and has not changed since, only links may lack."""
    if theirs is None:
        return compare(HeldDataset(ours), None, renamed)
    times = (ours["modification_time"], theirs["modification_time"])
    if noted and (noted.here, noted.modified) == times and theirs.get("deletion_request") is None:
        return CopyComparison(MissingParts(parents=missing_parents(ours, theirs, renamed)))
    copy = read_held(target.client, theirs)
    if copy.record is None and copy.files:  # started since it was listed: its record came before its files
        mfid = str(theirs["unique_id"])
        current = target.client.datasets.get(mfid, include_metadata=True, include_links=True)
        copy = read_held(target.client, current.model_dump())
    return compare(read_held(source.client, ours), copy, renamed)


def _differing(chosen: Sequence[Pair]) -> Iterator[Conflict]:
    for item, comparison in chosen:
        yield from (Conflict(item.mfid, item.name, reason) for reason in comparison.differs)


def _finished(ours: Mapping[str, JsonMapping], complete_there: Collection[str]) -> tuple[list[Conflict], list[str]]:
    """Split unfinished datasets, unless the target has them complete, from the ids of the finished ones."""
    skipped, finished = [], []
    for mfid, dataset in sorted(ours.items()):
        held = HeldDataset(dataset)
        if held.record is None or held.record.is_complete:
            finished.append(mfid)
        elif mfid not in complete_there:
            skipped.append(Conflict(mfid, held.name, "it is unfinished in the source"))
    return skipped, finished


def _is_complete(dataset: JsonMapping | None) -> bool:
    record = HeldDataset(dataset).record if dataset is not None else None
    return record is not None and record.is_complete


def _assigned(target: Session, mfids: Sequence[str], ours: Mapping[str, JsonMapping]) -> dict[str, JsonMapping]:
    """Return, by id, the target's records of datasets to which it has assigned other ids."""
    if not mfids or target.mirror.service.holds(DERIVED_IDS) is not False:
        return {}

    def find(mfid: str) -> JsonMapping | None:
        listed = target.client.datasets.list(keyword=recipe_keyword(mfid), include_metadata=True, include_links=True)
        project = str(ours[mfid].get("project_id") or "")
        own = (one.model_dump() for one in listed if not lies_elsewhere(one, project))  # anybody may add such a keyword
        return min(own, key=lambda one: str(one["creation_time"]), default=None)

    return {mfid: one for mfid, one in zip(mfids, in_threads(find, mfids), strict=True) if one is not None}


def _samples(source: Session, target: Session, mfids: Iterable[str], renamed: Callable[[str], str]) -> Iterator[Pair]:
    ours = read_samples(source, mfids)
    theirs = read_samples(target, {renamed(mfid) for mfid in ours})
    for mfid, sample in sorted(ours.items()):
        comparison = compare_sample(sample, theirs.get(renamed(mfid)), renamed)
        parents = frozenset(linked(sample, "sample").keys() & ours.keys())
        yield ItemToCopy(mfid, str(sample.get("sample_name") or mfid), sample, comparison.missing, parents), comparison


def _item(dataset: JsonMapping, missing: MissingParts, ours: Collection[str]) -> ItemToCopy:
    parents = {*(derived_parents(dataset) & set(ours)), *linked(dataset, "sample")}
    held = HeldDataset(dataset)
    return ItemToCopy(held.mfid, held.name, dataset, missing, frozenset(parents))


def _without_parents(chosen: Sequence[Pair], absent: set[str]) -> Iterator[Conflict]:
    for item, comparison in chosen:
        for parent in sorted(derived_parents(item.record) & absent if comparison.missing else ()):
            reason = f"it was made of {parent}, of another project, which the target lacks; push that project first"
            yield Conflict(item.mfid, item.name, reason)


def _with_parents(item: ItemToCopy, absent: set[str]) -> ItemToCopy:
    """Return the item without links to absent parents."""
    record = item.record
    if not linked(record, "dataset").keys() & absent:
        return item
    links = [link for link in record.get("links") or () if link["unique_id"] not in absent]
    missing = replace(item.missing, parents={p: r for p, r in item.missing.parents.items() if p not in absent})
    return replace(item, record={**record, "links": links}, missing=missing)


def _instruments(target: Session, items: Iterable[ItemToCopy]) -> frozenset[str]:
    """Return the short names of the datasets' instruments that the target knows under the same names."""
    named = {str(item.record["instrument_id"]): item.record.get("instrument_name") for item in items
             if item.missing.everything and item.record.get("instrument_id")}  # fmt: skip
    known = {name: target.client.instruments.find(name) for name in sorted(named)}
    return frozenset(name for name, one in known.items() if one is not None and one.instrument_name == named[name])


def _without_instrument(items: Iterable[ItemToCopy], known: Collection[str]) -> Iterator[Conflict]:
    for item in items:
        name = item.record.get("instrument_id")
        if item.missing.everything and name and name not in known:
            label = item.record.get("instrument_name")
            reason = f"its instrument {name} ({label}) is not registered at the target; only its name is kept"
            yield Conflict(item.mfid, item.name, reason)


def _parents_first(items: Sequence[ItemToCopy]) -> tuple[ItemToCopy, ...]:
    from graphlib import TopologicalSorter  # not needed by questions

    by_id = {item.mfid: item for item in items}
    sorter = TopologicalSorter({item.mfid: sorted(item.parents & by_id.keys()) for item in items})
    return tuple(by_id[mfid] for mfid in sorter.static_order())
