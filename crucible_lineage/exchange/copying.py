"""Copying datasets from one Crucible to another under the same ids: all are compared first, then sent parents first.

Nothing at the target is overwritten. What it lacks is added; a dataset whose values, files or recipe differ there is a
conflict, which is refused and named, with all that was made from it. Slots never conflict: the newest run decides.

A dataset with a provenance record is registered as by a run, incomplete before the first byte and complete after the
last, so that simultaneous copies and runs give one dataset. Every call can be repeated: after an interruption at any
point, the next comparison finds what is missing.
"""

from __future__ import annotations

import base64
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from typing import ClassVar

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import FileRecord
from crucible_lineage.core.datasets import fetch_datasets, in_threads
from crucible_lineage.core.slots import slots_of
from crucible_lineage.errors import (
    TRANSIENT,
    ConflictError,
    CrucibleError,
    ForbiddenError,
    InputError,
    LineageError,
    NotFoundError,
    UnauthorizedError,
)
from crucible_lineage.exchange.comparison import DatasetParts, MissingParts, compare, linked
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.machine.checksums import scan_file
from crucible_lineage.machine.disk import private_folder
from crucible_lineage.machine.process import Tell
from crucible_lineage.marks import is_own
from crucible_lineage.provenance.record import INCOMPLETE
from crucible_lineage.provenance.schema import StepRecord, parse_record
from crucible_lineage.refs import COPIED, DERIVED, SAMPLE_FIELDS
from crucible_lineage.registration.payload import LocalFile, NewDataset
from crucible_lineage.registration.read import whole_record
from crucible_lineage.registration.register import add_equal_parents, register_output
from crucible_lineage.session import Session
from crucible_lineage.standing.slots import make_current
from crucible_lineage.statements.vouching import sealed_statement
from crucible_lineage.text.amounts import amount
from crucible_lineage.text.times import without_default_time

AT_ONCE = 6  # what one client should ask of a shared service at a time
ONE_CALL_S = 5.0  # chosen: after that, the service counts as away
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0


@dataclass(frozen=True)
class Conflict:
    """Reason why a dataset or sample is not copied."""

    mfid: str
    name: str
    reason: str


@dataclass(frozen=True)
class ItemToCopy:
    """A dataset or sample to copy, what the target lacks of it, and what must be copied first."""

    source: DatasetParts
    missing: MissingParts
    parents: frozenset[str]
    json_keys: ClassVar = "mfid name=source.name kind=source.kind lacking=missing.in_words"

    @property
    def mfid(self) -> str:
        """Its id, at both Crucibles."""
        return self.source.mfid

    @property
    def bytes(self) -> int:
        """The size of its files if the target lacks everything, else 0."""
        return int(self.source.entry.get("size") or 0) if self.missing.everything else 0


@dataclass(frozen=True)
class CopyPlan:
    """Items to copy, parents first, number of equal ones; `conflicts` and what is made from them stay."""

    items: tuple[ItemToCopy, ...]
    equal: int
    conflicts: tuple[Conflict, ...] = ()
    skipped: tuple[Conflict, ...] = ()


def plan_project(source: Session, target: Session, project: str, tell: Tell) -> CopyPlan:
    """Plan the copy of a project. Raises InputError if either side lacks it."""
    tell(f"reading project {project} at the source", 0)
    ours = {**source.mirror.snapshot(project).records, **source.mirror.records_beside(project)}
    project_id = next((str(mine["project_id"]) for mine in ours.values()), project)
    target.ensure_project(project_id)
    tell(f"reading project {project} at the target", 0)
    theirs = {**target.mirror.snapshot(project_id).records, **target.mirror.records_beside(project_id)}
    samples = [sample.unique_id for sample in source.client.samples.iter(project_id=project_id)]
    return _plan(source, target, ours, theirs, samples, tell, needs_parents=True)


def plan_named(source: Session, target: Session, mfids: Iterable[str], tell: Tell) -> CopyPlan:
    """Plan the copy of datasets with their source and environment. Raises InputError for an unreadable one."""
    requested = list(dict.fromkeys(mfids))
    fetched = fetch_datasets(source.client, requested, include_links=True)
    if missing := [mfid for mfid in requested if mfid not in fetched.found]:
        where = source.settings.describe()
        raise InputError(f"there is no dataset {', '.join(missing)} that this key may read ({where})")
    for project in sorted({str(record["project_id"]) for record in fetched.found.values() if record.get("project_id")}):
        target.ensure_project(project)
    more: set[str] = set()  # the source and the environment of results, which are needed to reproduce them
    for dataset in fetched.found.values():
        record = DatasetParts(dataset).record
        if record is not None and (step := record.as_step):
            more |= {kept.mfid for kept in (step.activity.code.archive, step.software.environment) if kept}
    more -= fetched.found.keys()
    records = fetched.found | (fetch_datasets(source.client, sorted(more), include_links=True).found if more else {})
    return _plan(source, target, records, {}, (), tell, needs_parents=False)


def _plan(
    source: Session,
    target: Session,
    ours: Mapping[str, JsonMapping],
    theirs: Mapping[str, JsonMapping],
    samples: Iterable[str],
    tell: Tell,
    *,
    needs_parents: bool,
) -> CopyPlan:
    tell(f"comparing {amount(len(ours), 'dataset')}", 0)
    # Those not listed are absent, lie elsewhere, or are marked for deletion.
    theirs = {**theirs, **fetch_datasets(target.client, ours.keys() - theirs.keys(), include_links=True).found}
    finished = {mfid: dataset for mfid, dataset in sorted(ours.items()) if _is_finished(dataset)}
    skipped = [
        Conflict(mfid, DatasetParts(ours[mfid]).name, "it is unfinished in the source")
        for mfid in sorted(ours.keys() - finished.keys())
        if mfid not in theirs or not _is_finished(theirs[mfid])
    ]
    absent = _absent_parents(target, finished, theirs)
    if not needs_parents:
        finished = {mfid: _without_links(dataset, absent) for mfid, dataset in finished.items()}
        absent = set()
    own_samples = {*samples, *(sample for dataset in finished.values() for sample in linked(dataset, "sample"))}
    compared = partial(_compared, source, target, theirs, absent)
    pairs = [*_samples(source, target, own_samples), *in_threads(compared, list(finished.values()))]
    conflicts = [Conflict(item.mfid, item.source.name, fault) for item, faults in pairs for fault in faults]
    items, refused = _parents_first([item for item, _ in pairs], {conflict.mfid for conflict in conflicts})
    differing = {item.mfid for item, faults in pairs if item.missing or faults}
    return CopyPlan(items, len(finished.keys() - differing), tuple(conflicts), (*skipped, *refused))


def _without_links(dataset: JsonMapping, absent: Collection[str]) -> JsonMapping:
    return {**dataset, "links": [link for link in dataset.get("links") or () if link["unique_id"] not in absent]}


def _compared(
    source: Session, target: Session, theirs: Mapping[str, JsonMapping], absent: Collection[str], dataset: JsonMapping
) -> tuple[ItemToCopy, tuple[str, ...]]:
    """Return what the target lacks of a dataset, and what conflicts there, as a parent that is absent."""
    here, parents = _read(source.client, dataset), _parents(dataset)
    missing, faults = compare(here, _read(target.client, theirs[here.mfid]) if here.mfid in theirs else None)
    missing_parents = sorted(parents.intersection(absent)) if missing else ()
    faults += tuple(
        f"it was made of {parent}, of another project, which the target lacks; push that project first"
        for parent in missing_parents
    )
    return ItemToCopy(here, missing, frozenset({*parents, *linked(dataset, "sample")})), faults


def _absent_parents(target: Session, datasets: Mapping[str, JsonMapping], theirs: Collection[str]) -> set[str]:
    """Return the parents that are not copied, and that the target lacks or does not show."""
    outside = {parent for dataset in datasets.values() for parent in _parents(dataset)}.difference(datasets, theirs)
    fetched = fetch_datasets(target.client, outside)
    return fetched.absent | fetched.hidden


def _is_finished(dataset: JsonMapping) -> bool:
    record = DatasetParts(dataset).record
    return record is None or record.is_complete


def _parents(dataset: JsonMapping) -> set[str]:
    """Return the datasets that must be copied before it: its linked parents, and those in its record."""
    record = DatasetParts(dataset).record
    return {*linked(dataset, "dataset"), *(record.all_parents if record else ())}


def _read(client: CrucibleClient, dataset: JsonMapping) -> DatasetParts:
    """Read the other parts of a dataset that was read with metadata and links."""
    mfid = str(dataset["unique_id"])
    files = tuple(client.files.list(mfid))
    if files and not dataset.get("scientific_metadata"):  # begun since it was listed: its record came before its files
        dataset = client.datasets.get(mfid, include_metadata=True, include_links=True).model_dump()
    keywords = tuple(keyword.keyword for keyword in client.datasets.get_keywords(mfid))
    return DatasetParts(dataset, keywords, files, tuple(client.datasets.get_thumbnails(mfid)))


def _samples(source: Session, target: Session, mfids: Collection[str]) -> Iterator[tuple[ItemToCopy, tuple[str, ...]]]:
    """Compare these samples and all of their ancestors that this key may see."""
    ours = _read_samples(source, mfids)
    theirs = _read_samples(target, ours)
    for mfid, sample in sorted(ours.items()):
        missing, faults = compare(sample, theirs.get(mfid))
        yield ItemToCopy(sample, missing, frozenset(linked(sample.entry, "sample"))), faults


def _read_samples(session: Session, mfids: Collection[str]) -> dict[str, DatasetParts]:
    samples: dict[str, DatasetParts] = {}
    waiting = set(mfids)

    def read(mfid: str) -> DatasetParts | None:
        with suppress(ForbiddenError, NotFoundError):
            found = session.client.samples.get(mfid, include_metadata=True, include_links=True)
            return DatasetParts(found.model_dump())
        return None

    while waiting:
        samples |= {sample.mfid: sample for sample in in_threads(read, sorted(waiting)) if sample is not None}
        parents = {parent for mfid in waiting & samples.keys() for parent in linked(samples[mfid].entry, "sample")}
        waiting = parents - samples.keys() - waiting
    return samples


def _parents_first(
    items: Sequence[ItemToCopy], conflicting: Collection[str]
) -> tuple[tuple[ItemToCopy, ...], tuple[Conflict, ...]]:
    """Sort the items that lack something; separate those that conflict or were made from one that does."""
    by_id = {item.mfid: item for item in items if item.missing}
    refused = {mfid: Conflict(mfid, "", "") for mfid in conflicting}
    chosen = []
    for mfid in TopologicalSorter({mfid: sorted(item.parents) for mfid, item in by_id.items()}).static_order():
        if (item := by_id.get(mfid)) is None or mfid in refused:
            continue
        if (parent := next((parent for parent in sorted(item.parents) if parent in refused), None)) is None:
            chosen.append(replace(item, parents=item.parents & by_id.keys()))
        else:
            reason = f"it was made from {parent}, which conflicts with the target"
            refused[mfid] = Conflict(mfid, item.source.name, reason)
    return tuple(chosen), tuple(conflict for mfid, conflict in refused.items() if mfid not in conflicting)


# Sending one dataset or sample


@dataclass(frozen=True)
class Sender:
    """Copies datasets from `source` to `target` through `client`. The target ingests the files in `ingested`."""

    source: Session
    target: Session
    client: CrucibleClient
    ingested: frozenset[str]  # by their ids at the source

    def send(self, item: ItemToCopy) -> None:
        """Complete the item at the target. Raises ConflictError if that has received something else meanwhile."""
        missing = item.missing
        if missing.everything:
            existing = self._sample(item.source) if item.source.kind == "sample" else self._dataset(item.source)
            missing, faults = compare(item.source, existing)
            if faults:
                raise ConflictError(f"{item.source.name!r} ({item.mfid}): {faults[0]}", mfid=item.mfid)
        self._complete(item.source, missing)

    def _sample(self, source: DatasetParts) -> DatasetParts:
        fields = {name: value for name in (*SAMPLE_FIELDS, "project_id", "public") if (value := source.entry.get(name))}
        with suppress(ConflictError):  # another process was faster
            self.client.samples.create({**fields, "unique_id": source.mfid})
        there = self.client.samples.get(source.mfid, include_metadata=True, include_links=True)
        return DatasetParts(there.model_dump())

    def _dataset(self, source: DatasetParts) -> DatasetParts:
        if source.record is not None:
            with self._files() as local:
                new = self._new_dataset(source, local).without_secrets()
                ref = register_output(self.client, new, self.target.machine)
            self.target.mirror.trust({ref.mfid: ref})
        else:
            with suppress(ConflictError):  # another process was faster, or the id belongs to others
                self.client.datasets.create({**self._fields(source.entry), "unique_id": source.mfid})
        there = self.client.datasets.get(source.mfid, include_metadata=True, include_links=True)
        return _read(self.client, there.model_dump())

    def _new_dataset(self, source: DatasetParts, local: Callable[[FileRecord], Path]) -> NewDataset:
        assert source.record is not None
        record = whole_record(self.source.client, source.mfid, source.record)
        # Its completed registrations stay: they identify it as a copy.
        incomplete = parse_record({**record.document(), "status": INCOMPLETE})
        assert not isinstance(incomplete, str), incomplete
        stored = {file.filename: file for file in source.files}
        declared = record.activity.declared if isinstance(record, StepRecord) else None
        parents = linked(source.entry, "dataset").items()
        files = []
        for ref in record.files:
            if ref.name not in stored:
                raise InputError(f"dataset {source.mfid} ({source.name!r}) has no file {ref.name!r} at the source")
            path = local(stored[ref.name])
            files.append(LocalFile(path, ref, scan_file(path)))
        return NewDataset(
            mfid=source.mfid,
            fields=self._fields(source.entry),
            record=incomplete,
            metadata={key: value for key, value in source.metadata.items() if not is_own(key)},
            files=tuple(files),
            keywords=source.keywords,
            slots=slots_of(source.metadata),
            parents=tuple(mfid for mfid, relationship in parents if relationship == DERIVED),
            samples=tuple(linked(source.entry, "sample")),
            ingest=any(file.mfid in self.ingested for file in source.files),
            ingestor=declared.output.ingestor if declared and declared.output else None,
        )

    def _fields(self, dataset: JsonMapping) -> JsonObject:
        """Return the fields of a new dataset; the instrument is linked if the target knows it under the same name."""
        stored = without_default_time(dataset)
        fields = {name: stored[name] for name in (*COPIED, "project_id") if stored.get(name) is not None}
        fields |= {"public": True} if dataset.get("public") else {}
        if instrument := dataset.get("instrument_id"):
            known = self.client.instruments.find(str(instrument))
            if known is not None and known.instrument_name == dataset.get("instrument_name"):
                fields["instrument_id"] = instrument
        seal = sealed_statement(dataset)
        if seal and seal.fault and seal.author == self.target.agent["unique_id"]:  # the copy would be its author's
            raise ConflictError(f"nobody vouches for this statement at the source: {seal.fault}")
        if seal and not seal.fault and self.target.settings.embedded:  # its author counts here, too
            with suppress(ConflictError):  # it has the account
                self.client.account.create(f"from-{seal.author[-19:]}", seal.author)
            fields["owner_orcid"] = seal.author
        return fields

    def _complete(self, source: DatasetParts, missing: MissingParts) -> None:
        """Add the missing parts to a dataset or sample."""
        client, mfid = self.client, source.mfid
        calls = client.samples if source.kind == "sample" else client.datasets
        if fields := {name: value for name, value in missing.of("fields").items() if name != "instrument_name"}:
            calls.update(mfid, **fields)
        if metadata := missing.of("metadata"):
            client.metadata.merge(mfid, metadata)
        for parent, relationship in missing.of("parents").items():
            calls.link_parent_child(parent, mfid, relationship_type=relationship)
        for keyword in missing.of("keywords"):
            client.datasets.add_keyword(mfid, keyword)
        if equal := missing.of("equal parents"):
            add_equal_parents(client, mfid, equal)
        for sample in missing.of("samples"):
            client.datasets.add_sample(mfid, sample)
        for name, picture in missing.of("pictures").items():
            if picture.thumbnail_b64str:
                client.datasets.add_thumbnail(mfid, base64.b64decode(picture.thumbnail_b64str), name=name or None)
        with self._files() as local:
            for name, file in missing.of("files").items():
                sent = client.files.upload(mfid, local(file), filename=name)
                if file.mfid in self.ingested and not sent.existed:
                    client.ingestions.request(sent.file.mfid)
        if slots := missing.of("slots"):
            make_current(self.target.mirror, client, str(source.entry.get("project_id") or ""), mfid, slots)

    @contextmanager
    def _files(self) -> Iterator[Callable[[FileRecord], Path]]:
        """Yield a function that fetches a file of the source into a temporary folder."""
        work = private_folder(self.source.settings.data / "work")
        with tempfile.TemporaryDirectory(dir=work, prefix="push-") as folder:

            def local(file: FileRecord) -> Path:
                path = Path(folder) / str(file.sha256_hash)
                if not path.exists():
                    self.source.client.files.download(file, Path(folder) / "download").replace(path)
                return path

            yield local


# Execution of a plan


@dataclass
class CopyOutcome:
    """The copied items in order, and those that could not be copied, with their reasons."""

    sent: list[ItemToCopy] = field(default_factory=list)
    skipped: list[Conflict] = field(default_factory=list)


def bring(
    source: Session, target: Session, plan: CopyPlan, tell: Tell, report: Callable[[str], None], *,
    ingests: bool, patience_s: float,
) -> CopyOutcome:  # fmt: skip
    """Execute a plan as far as possible, several datasets at a time.

    A refused dataset holds back only its descendants. While the service is away, it is asked again with growing pauses
    for up to `patience_s`; `report` gets the reason, `tell` the progress.
    """
    outcome = CopyOutcome()
    left = {item.mfid: item for item in plan.items}
    refused: set[str] = set()
    away_since, tries, reason = None, 0, "what it was made of is not there"
    with target.connect(at_most_s=ONE_CALL_S) as client, ThreadPoolExecutor(AT_ONCE, "bring") as pool:
        requests = source.client.ingestions.iter() if ingests and left else ()
        ingested = frozenset(str(request.file_mfid) for request in requests if request.status != "not_requested")
        sender = Sender(source, target, client, ingested)
        while ready := [item for item in left.values() if item.parents.isdisjoint(left.keys() | refused)]:
            troubles: list[CrucibleError] = []
            try:
                for item, error in zip(ready, pool.map(partial(_attempt, sender, troubles), ready), strict=True):
                    if error in troubles:
                        continue
                    del left[item.mfid]
                    if error is not None:
                        refused.add(item.mfid)
                        outcome.skipped.append(Conflict(item.mfid, item.source.name, str(error)))
                        continue
                    outcome.sent.append(item)
                    tell(f"copied: {len(outcome.sent)} of {len(plan.items)}, {item.source.name}", 0)
                    away_since, tries = None, 0
            except BaseException:
                client.close()  # active transfers end with their current calls
                pool.shutdown(cancel_futures=True)
                raise
            if troubles:
                away_since = away_since or time.monotonic()
                left_s = patience_s - (time.monotonic() - away_since)
                if left_s <= 0 or isinstance(troubles[0], UnauthorizedError):
                    reason = str(troubles[0]).splitlines()[0]
                    break
                report(f"waiting: {troubles[0]}")
                wait_s = troubles[0].retry_after_s or FIRST_WAIT_S * 2.0 ** min(tries, 10)
                time.sleep(min(wait_s, LONGEST_WAIT_S, left_s))
                tries += 1
    outcome.skipped += [Conflict(item.mfid, item.source.name, reason) for item in left.values()]
    return outcome


def _attempt(sender: Sender, troubles: list[CrucibleError], item: ItemToCopy) -> LineageError | None:
    """Send an item, and return the error. One that concerns all items is added to `troubles`; then none is sent."""
    if troubles:
        return troubles[0]
    try:
        sender.send(item)
    except LineageError as error:
        if isinstance(error, (*TRANSIENT, UnauthorizedError)):
            troubles.append(error)
        return error
    return None
