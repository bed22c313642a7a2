"""What would be brought from one Crucible to another: everything is compared before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from crucible_lineage.amounts import amount
from crucible_lineage.core.datasets import fetch_datasets, in_threads
from crucible_lineage.core.store import CopiedDataset
from crucible_lineage.errors import InputError
from crucible_lineage.exchange.compare import compare, compare_sample
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
from crucible_lineage.provenance.record import read_record
from crucible_lineage.registration.read import recipe_keyword
from crucible_lineage.registration.trust import lies_elsewhere
from crucible_lineage.service import DERIVED_IDS
from crucible_lineage.session import Session
from crucible_lineage.traffic import Tell

Record = Mapping[str, Any]


@dataclass(frozen=True)
class ItemToCopy:
    """A dataset or sample to be brought: as it is here, what it lacks there, and what has to be there before it."""

    mfid: str
    name: str
    record: Record
    lacking: MissingParts
    parents: frozenset[str] = frozenset()

    @property
    def is_sample(self) -> bool:
        """True if it is a sample."""
        return bool(self.record.get("resource_type") == "sample")

    @property
    def bytes(self) -> int:
        """Return the size of its files, if all of it is lacking."""
        return int(self.record.get("size") or 0) if self.lacking.whole else 0

    def to_json(self) -> dict[str, Any]:
        """The form that is printed."""
        kind = "sample" if self.is_sample else "dataset"
        return {"mfid": self.mfid, "name": self.name, "kind": kind, "lacking": self.lacking.in_words}


@dataclass(frozen=True)
class CopyPlan:
    """What is to be brought, parents first; how many are there as they are here; and what stands in the way.

    `left` are not to be brought, each with the reason; `differs` are told, and stay as they are there. `ids` are those
    under which datasets are there that have other ids than here, `brought` what was noted of those that are equal,
    `instruments` the short names of those that are known there under the name that they have here.
    """

    items: tuple[ItemToCopy, ...]
    equal: int
    conflicts: tuple[Conflict, ...] = ()
    left: tuple[Conflict, ...] = ()
    differs: tuple[Conflict, ...] = ()
    ids: Mapping[str, str] = field(default_factory=dict)
    brought: tuple[CopiedDataset, ...] = ()
    instruments: frozenset[str] = frozenset()

    def without_conflicts(self) -> CopyPlan:
        """The same, in which what contradicts stays here, and all that was made of it."""
        stays = {one.mfid: one for one in self.conflicts}
        left, items = list(self.left), []
        for item in self.items:  # parents first
            if item.mfid in stays:
                continue
            if (parent := next((one for one in sorted(item.parents) if one in stays), None)) is not None:
                reason = f"it was made from {parent}, which conflicts with the target"
                stays[item.mfid] = Conflict(item.mfid, item.name, reason)
                left.append(stays[item.mfid])
            else:
                items.append(item)
        return replace(self, items=tuple(items), left=tuple(left), conflicts=())


def plan_project(source: Session, target: Session, project: str, tell: Tell) -> CopyPlan:
    """Plan the copy of a project. InputError if there is no such project at either end."""
    tell(f"reading what is in project {project} here", 0)
    here = {**source.mirror.snapshot(project).records, **source.mirror.records_beside(project)}
    project_id = next((str(one["project_id"]) for one in here.values()), project)
    target.require_project(project_id)
    tell(f"reading what is in project {project} there", 0)
    there = {**target.mirror.snapshot(project_id).records, **target.mirror.records_beside(project_id)}
    samples = [sample.unique_id for sample in source.client.samples.iter(project_id=project_id)]
    return _plan(source, target, here, there, samples, tell, absent_parents=False)


def plan_named(source: Session, target: Session, mfids: Iterable[str], tell: Tell) -> CopyPlan:
    """Plan the copy of these datasets, with the source and environment that they rest on.

    What they were made of is linked as far as it is there. InputError if one of them is not to be had.
    """
    wanted = list(dict.fromkeys(mfids))
    fetched = fetch_datasets(source.client, wanted, include_links=True)
    if missing := [mfid for mfid in wanted if mfid not in fetched.found]:
        where = source.settings.describe()
        raise InputError(f"there is no dataset {', '.join(missing)} that this key may read ({where})")
    for project in sorted({str(one["project_id"]) for one in fetched.found.values() if one.get("project_id")}):
        target.require_project(project)
    rest = {mfid for one in fetched.found.values() for mfid in _rests_on(one)} - fetched.found.keys()
    found = fetched.found | (fetch_datasets(source.client, sorted(rest), include_links=True).found if rest else {})
    return _plan(source, target, found, {}, (), tell, absent_parents=True)


def _rests_on(dataset: Record) -> Iterator[str]:
    """Yield the datasets that hold the source and the environment of a result, without which nobody makes it again."""
    record = read_record(dataset.get("scientific_metadata"))
    step = record.as_step if record is not None else None
    if step is not None:
        yield from (kept.mfid for kept in (step.activity.code.archive, step.software.environment) if kept)


def known_names(source: Session, target: Session) -> dict[str, CopiedDataset]:
    """Return the copies recorded here of datasets that are at both, by the id here."""
    return {one.mfid: one for one in target.store.brought(source.store.instance)}


def _plan(
    source: Session,
    target: Session,
    here: Mapping[str, Record],
    there: dict[str, Record],
    samples: Iterable[str],
    tell: Tell,
    *,
    absent_parents: bool,
) -> CopyPlan:
    noted = known_names(source, target)
    ids = {mfid: one.there for mfid, one in noted.items() if one.there != mfid}
    left, wanted = _finished(here, {mfid for mfid in here if _is_complete(there.get(ids.get(mfid, mfid)))})
    tell(f"comparing {amount(len(wanted), 'dataset')}", 0)
    there |= _elsewhere(target, {ids.get(mfid, mfid) for mfid in wanted} - there.keys())
    ids |= _assigned(target, [mfid for mfid in wanted if ids.get(mfid, mfid) not in there], here, there)

    def renamed(mfid: str) -> str:
        return ids.get(mfid, mfid)

    def compared(mfid: str) -> CopyComparison:
        return _compared(source, target, here[mfid], there.get(renamed(mfid)), noted.get(mfid), renamed)

    found = dict(zip(wanted, in_threads(compared, wanted), strict=True))
    own_samples = {*samples, *(one for mfid in wanted for one in linked(here[mfid], "sample"))}
    items = list(_samples(source, target, own_samples, renamed))
    bad_samples = [fault for _, comparison in items for fault in comparison.conflicts]
    outside = {one for mfid in wanted for one in derived_parents(here[mfid])} - here.keys()
    absent = set(fetch_absent(target, {renamed(one): one for one in outside if renamed(one) not in there}))
    chosen = [(_item(here[mfid], comparison.lacking, here), comparison) for mfid, comparison in found.items()]
    conflicts = [*bad_samples, *(fault for _, comparison in chosen for fault in comparison.conflicts)]
    if absent_parents:
        chosen = [(_with_parents(item, absent), comparison) for item, comparison in chosen]
    else:
        conflicts += _without_parents(chosen, absent)
    todo, equal = _sorted_out(items, chosen, {fault.mfid for fault in conflicts})
    brought = tuple(
        CopiedDataset(mfid, renamed(mfid), here[mfid]["modification_time"], there[renamed(mfid)]["modification_time"])
        for mfid in equal
    )
    order = _parents_first(todo)
    instruments = _instruments(target, order)
    differs = (*_differing(chosen), *_without_instrument(order, instruments))
    return CopyPlan(order, len(equal), tuple(conflicts), tuple(left), differs, ids, brought, instruments)


def _sorted_out(
    samples: Sequence[tuple[ItemToCopy, CopyComparison]],
    chosen: Sequence[tuple[ItemToCopy, CopyComparison]],
    blocked: Collection[str],
) -> tuple[list[ItemToCopy], list[str]]:
    """Split the samples and datasets that lack something there, or contradict it, from the ids of the equal ones."""
    todo = [item for item, comparison in (*samples, *chosen) if comparison.lacking or item.mfid in blocked]
    equal = [item.mfid for item, comparison in chosen if not comparison.lacking and item.mfid not in blocked]
    return todo, equal


def _compared(
    source: Session,
    target: Session,
    ours: Record,
    theirs: Record | None,
    seen: CopiedDataset | None,
    renamed: Callable[[str], str],
) -> CopyComparison:
    """Compare a dataset with the one there; nothing is read of one that was copied and has not changed since."""
    if theirs is None:
        return compare(HeldDataset(ours), None, renamed)
    times = (ours["modification_time"], theirs["modification_time"])
    if seen and (seen.here, seen.modified) == times and theirs.get("deletion_request") is None:
        return CopyComparison()
    there = read_held(target.client, theirs)
    if there.record is None and there.files:  # begun since it was listed: its record came before its files
        mfid = str(theirs["unique_id"])
        again = target.client.datasets.get(mfid, include_metadata=True, include_links=True)
        there = read_held(target.client, again.model_dump())
    return compare(read_held(source.client, ours), there, renamed)


def _differing(chosen: Sequence[tuple[ItemToCopy, CopyComparison]]) -> Iterator[Conflict]:
    for item, comparison in chosen:
        yield from (Conflict(item.mfid, item.name, reason) for reason in comparison.differs)


def _finished(here: Mapping[str, Record], complete_there: Collection[str]) -> tuple[list[Conflict], list[str]]:
    """Split what is unfinished here, and reported unless it is complete there, from the ids of the rest."""
    left, wanted = [], []
    for mfid, dataset in sorted(here.items()):
        record = read_record(dataset.get("scientific_metadata"))
        if record is None or record.is_complete:
            wanted.append(mfid)
        elif mfid not in complete_there:
            left.append(Conflict(mfid, str(dataset.get("dataset_name") or mfid), "it is unfinished in the source"))
    return left, wanted


def _is_complete(dataset: Record | None) -> bool:
    record = read_record(dataset.get("scientific_metadata")) if dataset is not None else None
    return record is not None and record.is_complete


def _elsewhere(target: Session, mfids: set[str]) -> dict[str, Record]:
    """Those that are there and were not listed: of other projects, or to be deleted."""
    return fetch_datasets(target.client, mfids, include_links=True).found


def _assigned(
    target: Session, mfids: Sequence[str], here: Mapping[str, Record], there: dict[str, Record]
) -> dict[str, str]:
    """The ids that a service which assigns ids has given to these; what it has under them is put into `there`."""
    if not mfids or target.mirror.service.holds(DERIVED_IDS) is not False:
        return {}

    def find(mfid: str) -> Record | None:
        listed = target.client.datasets.list(keyword=recipe_keyword(mfid), include_metadata=True, include_links=True)
        project = str(here[mfid].get("project_id") or "")
        own = (one.model_dump() for one in listed if not lies_elsewhere(one, project))  # a keyword can say anything
        return min(own, key=lambda one: str(one["creation_time"]), default=None)

    found = {mfid: one for mfid, one in zip(mfids, in_threads(find, mfids), strict=True) if one is not None}
    there |= {str(one["unique_id"]): one for one in found.values()}
    return {mfid: str(one["unique_id"]) for mfid, one in found.items()}


def _samples(
    source: Session, target: Session, mfids: Iterable[str], renamed: Callable[[str], str]
) -> Iterator[tuple[ItemToCopy, CopyComparison]]:
    here = read_samples(source, mfids)
    there = read_samples(target, {renamed(mfid) for mfid in here})
    for mfid, sample in sorted(here.items()):
        comparison = compare_sample(sample, there.get(renamed(mfid)), renamed)
        parents = frozenset(linked(sample, "sample").keys() & here.keys())
        yield ItemToCopy(mfid, str(sample.get("sample_name") or mfid), sample, comparison.lacking, parents), comparison


def fetch_absent(target: Session, mfids: Mapping[str, str]) -> set[str]:
    """The values of those keys that are no dataset there."""
    fetched = fetch_datasets(target.client, mfids)
    return {mfids[mfid] for mfid in fetched.absent | fetched.hidden}


def _item(dataset: Record, lacking: MissingParts, here: Collection[str]) -> ItemToCopy:
    parents = {*(derived_parents(dataset) & set(here)), *linked(dataset, "sample")}
    name = str(dataset.get("dataset_name") or dataset["unique_id"])
    return ItemToCopy(str(dataset["unique_id"]), name, dataset, lacking, frozenset(parents))


def _without_parents(chosen: Sequence[tuple[ItemToCopy, CopyComparison]], absent: set[str]) -> Iterator[Conflict]:
    for item, comparison in chosen:
        for parent in sorted(derived_parents(item.record) & absent if comparison.lacking else ()):
            reason = f"it was made of {parent}, of another project, which is not there; push that project first"
            yield Conflict(item.mfid, item.name, reason)


def _with_parents(item: ItemToCopy, absent: set[str]) -> ItemToCopy:
    """The item without links to what is not there."""
    record = item.record
    if not linked(record, "dataset").keys() & absent:
        return item
    links = [link for link in record.get("links") or () if link["unique_id"] not in absent]
    lacking = replace(item.lacking, parents={p: r for p, r in item.lacking.parents.items() if p not in absent})
    return replace(item, record={**record, "links": links}, lacking=lacking)


def _instruments(target: Session, items: Iterable[ItemToCopy]) -> frozenset[str]:
    """The instruments of these datasets, by their short names, that are known there, and are called the same."""
    named = {str(item.record["instrument_id"]): item.record.get("instrument_name") for item in items
             if item.lacking.whole and item.record.get("instrument_id")}  # fmt: skip
    found = {name: target.client.instruments.find(name) for name in sorted(named)}
    return frozenset(name for name, one in found.items() if one is not None and one.instrument_name == named[name])


def _without_instrument(items: Iterable[ItemToCopy], known: Collection[str]) -> Iterator[Conflict]:
    for item in items:
        name = item.record.get("instrument_id")
        if item.lacking.whole and name and name not in known:
            label = item.record.get("instrument_name")
            reason = f"its instrument {name} ({label}) is not registered there; only its name is kept"
            yield Conflict(item.mfid, item.name, reason)


def _parents_first(items: Sequence[ItemToCopy]) -> tuple[ItemToCopy, ...]:
    from graphlib import TopologicalSorter  # what only asks does not need it

    by_id = {item.mfid: item for item in items}
    sorter = TopologicalSorter({item.mfid: sorted(item.parents & by_id.keys()) for item in items})
    return tuple(by_id[mfid] for mfid in sorter.static_order())
