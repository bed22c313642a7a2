"""Execution of a plan: several datasets at a time, parents before children, until no more can be copied.

While the service is away, calls wait with growing pauses for up to `patience_s`. A refused dataset holds back only its
descendants. After an interruption at any point, the next plan has what is missing.

Each dataset or sample is sent by calls that anyone can repeat after a crash at any point.
"""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from crucible_lineage.checksums import FileChecksums
from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.client import SampleCalls
from crucible_lineage.client.dataset.datasets import DatasetCalls
from crucible_lineage.client.models import FileRecord
from crucible_lineage.core.slots import hold, slots_of
from crucible_lineage.core.store import CopiedDataset
from crucible_lineage.errors import (
    TRANSIENT,
    ConflictError,
    CrucibleError,
    InputError,
    LineageError,
    NotFoundError,
    UnauthorizedError,
)
from crucible_lineage.exchange.compare import FIELDS, SAMPLE_FIELDS, compare, compare_sample, is_brought
from crucible_lineage.exchange.model import Conflict, HeldDataset, MissingParts, linked, read_held
from crucible_lineage.exchange.plan import CopyPlan, ItemToCopy
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.model import DERIVED
from crucible_lineage.marks import CORRECTIONS_KEY, correction_mark, is_own
from crucible_lineage.provenance.record import INCOMPLETE
from crucible_lineage.provenance.schema import FilesRecord, StepRecord, parse_record
from crucible_lineage.refs import FileRef
from crucible_lineage.registration.new_dataset import ExternalLocation, LocalFile, NewDataset
from crucible_lineage.registration.read import recipe_keyword, whole_record
from crucible_lineage.registration.register import register_output
from crucible_lineage.registration.reliance import add_equal_parents
from crucible_lineage.registration.server_ids import make_dataset
from crucible_lineage.session import Session
from crucible_lineage.times import without_default_time

AT_ONCE = 6  # what one client should ask of a shared service at a time
ONE_CALL_S = 5.0  # chosen: after that, the service counts as away
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
SIGNAL_S = 1.0  # a signal just before a wait does not end it, so it is noticed after this time
NOTED_EVERY = 50  # chosen: each lost note costs a comparison

Listen = Callable[[ItemToCopy, int, int], None]  # receives each arrived item, the number so far, and the total


# One dataset or sample. A dataset with a provenance record is registered as by a run, incomplete before the first byte
# and complete after the last, so simultaneous copies and runs give one dataset. Its other parts are added afterwards.


@dataclass
class Sender:
    """Copies datasets from `source` to `target` through `client`. `ids` maps those that have another id there.

    The target ingests the files whose ids at the source are in `ingested`.
    """

    source: Session
    target: Session
    client: CrucibleClient
    ids: dict[str, str]
    ingested: frozenset[str]
    instruments: frozenset[str]

    def send(self, item: ItemToCopy) -> CopiedDataset | None:
        """Complete the dataset at the target. Return the note of its copy.

        Raises ConflictError if the target has received something else meanwhile.
        """
        if item.is_sample:
            self._send_sample(item)
            return None
        held = read_held(self.source.client, item.record)
        missing, modified, mfid = item.missing, "", self._renamed(item.mfid)
        if missing.everything:
            mfid = self._register(held) if held.record is not None else self._create(held)
            self.ids |= {item.mfid: mfid} if mfid != item.mfid else {}
            missing, modified = self._remaining(held, mfid)
        if missing:
            self._complete(held, mfid, missing)
            modified = str(self.client.datasets.get(mfid).modification_time)
        return CopiedDataset(item.mfid, mfid, str(item.record["modification_time"]), modified)

    def _renamed(self, mfid: str) -> str:
        return self.ids.get(mfid, mfid)

    def _register(self, held: HeldDataset) -> str:
        with self._files(held) as local:
            new = self._new_dataset(held, local)
            ref = register_output(self.client, new, self.target.machine)
        self.target.mirror.trust({held.mfid: ref, ref.mfid: ref})
        return ref.mfid

    def _new_dataset(self, held: HeldDataset, local: Callable[[FileRecord], Path]) -> NewDataset:
        record = held.record
        assert record is not None
        record = whole_record(self.source.client, held.mfid, record)
        stored = {file.filename: file for file in held.files}
        links = linked(held.dataset, "dataset")
        parents = [self._renamed(mfid) for mfid, relationship in links.items() if relationship == DERIVED]
        declared = record.activity.declared if isinstance(record, StepRecord) else None
        return NewDataset(
            mfid=held.mfid,
            fields=self._fields(held.dataset),
            record=_as_new(record, self.ids),
            metadata={key: value for key, value in held.metadata.items() if not is_own(key)},
            files=tuple(self._local_file(held, stored.get(ref.name), ref, local) for ref in record.files),
            keywords=held.keywords,
            slots=slots_of(held.metadata),
            parents=tuple(parents),
            samples=tuple(self._renamed(sample) for sample in linked(held.dataset, "sample")),
            ingest=any(file.mfid in self.ingested for file in held.files),
            ingestor=declared.output.ingestor if declared and declared.output else None,
        )

    def _local_file(
        self, held: HeldDataset, stored: FileRecord | None, ref: FileRef, local: Callable[[FileRecord], Path]
    ) -> LocalFile:
        if stored is None:
            raise InputError(f"dataset {held.mfid} ({held.name!r}) has no file {ref.name!r} at the source")
        if not stored.has_bytes:
            location = ExternalLocation(str(stored.storage_backend), str(stored.storage_path))
            return LocalFile(Path(ref.name), ref, FileChecksums(ref.size, 0, ref.sha256, 0, 0, ()), location)
        path = local(stored)
        return LocalFile(path, ref, self._checksums(path))

    def _create(self, held: HeldDataset) -> str:
        """Create a dataset without a provenance record, unless it exists. Return its id."""
        mfid = self._renamed(held.mfid)
        with suppress(NotFoundError):
            return self.client.datasets.get(mfid).unique_id
        try:
            created = make_dataset(self.client, held.mfid, self._fields(held.dataset)).dsid
        except ConflictError:  # another process was faster, or the id belongs to others
            return self.client.datasets.get(held.mfid).unique_id
        if created != held.mfid:
            self.client.datasets.add_keyword(created, recipe_keyword(held.mfid))
        return created

    def _fields(self, dataset: Mapping[str, object]) -> dict[str, object]:
        stored = without_default_time(dataset)
        fields = {name: stored[name] for name in (*FIELDS, "project_id") if stored.get(name) is not None}
        fields |= {"public": True} if dataset.get("public") else {}
        instrument = str(dataset.get("instrument_id") or "")
        if instrument in self.instruments:
            fields["instrument_id"] = instrument
        return fields

    def _remaining(self, held: HeldDataset, mfid: str) -> tuple[MissingParts, str]:
        """Return what a registered or created dataset still lacks, and when it was last modified."""
        dataset = self.client.datasets.get(mfid, include_metadata=True, include_links=True).model_dump()
        copy = HeldDataset(dataset)
        if held.record is not None and copy.record is not None and is_brought(held.record, copy.record):
            generated = {file.name: file for file in whole_record(self.source.client, held.mfid, held.record).files}
            files = tuple(file for file in held.files if file.filename in generated)
            pictures = tuple(
                one
                for one in held.pictures
                if (name := one.thumbnail_name or "") in generated and generated[name].preview
            )
            copy = HeldDataset(dataset, held.keywords, files, pictures)
        else:
            copy = read_held(self.client, dataset)
        comparison = compare(held, copy, self._renamed)
        if comparison.conflicts:
            raise ConflictError(f"{held.name!r} ({held.mfid}): {comparison.conflicts[0].reason}", mfid=held.mfid)
        return comparison.missing, str(dataset["modification_time"])

    def _complete(self, held: HeldDataset, mfid: str, missing: MissingParts) -> None:
        """Add the missing parts to a dataset."""
        client = self.client
        fields = {name: value for name, value in missing.fields.items() if name != "instrument_name"}
        self._fill(client.datasets, mfid, replace(missing, fields=fields))
        for keyword in missing.keywords:
            client.datasets.add_keyword(mfid, keyword)
        if missing.equal_parents:
            add_equal_parents(client, mfid, missing.equal_parents)
        for sample in missing.samples:
            client.datasets.add_sample(mfid, sample)
        for picture in held.pictures:
            if (picture.thumbnail_name or "") in missing.pictures and picture.thumbnail_b64str:
                content = base64.b64decode(picture.thumbnail_b64str)
                client.datasets.add_thumbnail(mfid, content, name=picture.thumbnail_name)
        if missing.files:
            self._send_files(held, mfid, missing.files)
        if missing.slots:
            project = str(held.dataset.get("project_id") or "")
            hold(self.target.mirror, client, project, mfid, missing.slots)

    def _send_files(self, held: HeldDataset, mfid: str, names: frozenset[str]) -> None:
        with self._files(held) as local:
            for file in held.files:
                if file.filename not in names:
                    continue
                if file.has_bytes:
                    path = local(file)
                    checksums = self._checksums(path)
                    sent = self.client.files.upload(mfid, path, filename=file.filename, checksums=checksums)
                    if file.mfid in self.ingested and not sent.existed:
                        self.client.ingestions.request(sent.file.mfid)
                elif file.storage_path is not None:
                    new = {
                        "filename": file.filename, "storage_backend": file.storage_backend, "size": file.size,
                        "sha256_hash": file.sha256_hash, "access_note": file.access_note,
                    }  # fmt: skip
                    self.client.datasets.add_remote_file(mfid, new, storage_path=file.storage_path)

    @contextmanager
    def _files(self, held: HeldDataset) -> Iterator[Callable[[FileRecord], Path]]:
        """Yield a function that fetches a file of the dataset into a temporary folder."""
        work = self.source.settings.data / "work"
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=work, prefix="push-") as folder:

            def local(file: FileRecord) -> Path:
                sha256 = str(file.sha256_hash)
                for _ in range(3):  # other processes may remove files that were not used for long
                    path = self.source.cache.get(sha256, lambda target: self._fetch(file, target))
                    with suppress(FileNotFoundError):
                        return _linked(path, Path(folder) / sha256)
                raise InputError(f"{file.filename} of {held.mfid} cannot be kept in the cache; is the disk full?")

            yield local

    def _checksums(self, path: Path) -> FileChecksums:
        """Return the checksums of a file named by its hash, stored for its path in the cache, which lasts longer."""
        cached = self.source.cache.path(path.name)
        with suppress(FileNotFoundError):
            return self.source.store.checksums(cached)
        return self.source.store.checksums(path)

    def _fetch(self, file: FileRecord, target: Path) -> str:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
            self.source.client.files.download(file, folder).replace(target)
        return str(file.sha256_hash)  # checked by the download

    def _send_sample(self, item: ItemToCopy) -> None:
        client, sample = self.client, item.record
        mfid = self._renamed(item.mfid)
        missing = item.missing
        if missing.everything:
            fields = {name: sample[name] for name in (*SAMPLE_FIELDS, "project_id") if sample.get(name) is not None}
            fields |= {"public": True} if sample.get("public") else {}
            with suppress(ConflictError):  # another process was faster
                created = client.samples.create({**fields, "unique_id": mfid}).unique_id
                self.ids |= {item.mfid: created} if created != item.mfid else {}
                mfid = created
            existing = client.samples.get(mfid, include_metadata=True, include_links=True).model_dump()
            comparison = compare_sample(sample, existing, self._renamed)
            if comparison.conflicts:
                raise ConflictError(f"sample {item.name!r} ({mfid}): {comparison.conflicts[0].reason}", mfid=mfid)
            missing = comparison.missing
        self._fill(client.samples, mfid, missing)

    def _fill(self, calls: DatasetCalls | SampleCalls, mfid: str, missing: MissingParts) -> None:
        """Add fields, metadata and parents to a dataset or sample."""
        if missing.fields:
            calls.update(mfid, **missing.fields)
        if missing.metadata:
            present = self.client.metadata.get(mfid) or {}
            self.client.metadata.merge(mfid, _within(_as_stored(missing.metadata), present))
        for parent, relationship in missing.parents.items():
            calls.link_parent_child(parent, mfid, relationship_type=relationship)


def _as_stored(metadata: JsonMapping) -> JsonObject:
    """Return metadata with each correction under a mark of its own, as it was recorded."""
    stored = {key: value for key, value in metadata.items() if key != CORRECTIONS_KEY}
    for name, act in metadata.get(CORRECTIONS_KEY, {}).items():
        stored |= correction_mark(name, act)
    return stored


def _as_new(record: StepRecord | FilesRecord, ids: Mapping[str, str]) -> StepRecord | FilesRecord:
    """Return the record for a new registration: incomplete, with the target's ids.

    It keeps the completed registrations of the source, which identify it as a copy.
    """
    document = {**record.document(), "status": INCOMPLETE}
    if ids:
        document["used"] = [_used(entry, ids) for entry in document["used"]]
        if equal := document.get("equal_parents"):
            document["equal_parents"] = {ids.get(one, one): ids.get(other, other) for one, other in equal.items()}
        if supersedes := document.get("supersedes"):
            document["supersedes"] = ids.get(supersedes, supersedes)
    new = parse_record(document)
    assert not isinstance(new, str), new
    return new


def _used(entry: JsonMapping, ids: Mapping[str, str]) -> JsonObject:
    """Return an entry of `used` with the target's id; its origin is the id in the recipe."""
    mfid = entry["mfid"]
    return dict(entry) if mfid not in ids else {**entry, "mfid": ids[mfid], "origin": entry.get("origin") or mfid}


def _within(added: Mapping[str, object], existing: Mapping[str, object]) -> JsonObject:
    """Merge new metadata with existing ones under the same keys: some services merge only the outermost level."""
    merged: JsonObject = {}
    for key, value in added.items():
        theirs = existing.get(key)
        if isinstance(value, Mapping) and isinstance(theirs, Mapping):
            merged[key] = {**theirs, **_within(value, theirs)}
        else:
            merged[key] = value
    return merged


def _linked(source: Path, target: Path) -> Path:
    """Link a file to `target`, which stays if the cache removes the file; copy it if links are impossible."""
    if target.exists():
        return target
    try:
        target.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, target)
        os.utime(target, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
    return target


# Execution of a plan.


@dataclass
class CopyOutcome:
    """The copied items in order, and the skipped ones with their reasons."""

    sent: list[ItemToCopy] = field(default_factory=list)
    skipped: list[Conflict] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)


def bring(
    source: Session,
    target: Session,
    plan: CopyPlan,
    *,
    ingests: bool,
    patience_s: float,
    listen: Listen,
    troubled: Callable[[str], None],
) -> CopyOutcome:
    """Execute a plan as far as possible. `troubled` receives each reason for waiting once."""
    target.store.note_brought(source.store.instance, plan.brought)
    if not plan.items:
        return CopyOutcome(ids=dict(plan.ids))
    target.require_usable()
    with target.connect(at_most_s=ONE_CALL_S) as client:
        ingested = _ingested(source) if ingests else frozenset[str]()
        sender = Sender(source, target, client, dict(plan.ids), ingested, plan.instruments)
        return _Bringing(sender, plan, patience_s, listen, troubled).run()


def _ingested(source: Session) -> frozenset[str]:
    """Return the files whose ingestion was requested."""
    ingestions = source.client.ingestions.iter()
    return frozenset(str(one.file_mfid) for one in ingestions if one.status != "not_requested")


@dataclass
class _Bringing:
    sender: Sender
    plan: CopyPlan
    patience_s: float
    listen: Listen
    troubled: Callable[[str], None]

    def __post_init__(self) -> None:
        self.outcome = CopyOutcome(ids=self.sender.ids)
        self._waiting = {item.mfid: item for item in self.plan.items}
        self._open = {item.mfid: {one for one in item.parents if one in self._waiting} for item in self.plan.items}
        self._noted: list[CopiedDataset] = []
        self._reported: set[str] = set()
        self._stopped: CrucibleError | None = None
        self._away_since: float | None = None
        self._tries = 0
        self._retry_after_s: float | None = None

    def run(self) -> CopyOutcome:
        running: dict[Future[CopiedDataset | None], ItemToCopy] = {}
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="bring") as pool:
            try:
                while True:
                    self._start(pool, running)
                    if not running:
                        break
                    ended, _ = wait(running, timeout=SIGNAL_S, return_when=FIRST_COMPLETED)
                    for future in ended:
                        self._ended(running.pop(future), future)
                    if self._away_since is not None and not running and self._waiting and self._stopped is None:
                        time.sleep(self._pause())
            except BaseException:
                self.sender.client.close()  # active transfers end with their current calls
                pool.shutdown(cancel_futures=True)
                self._note()
                raise
        self._note()
        reason = str(self._stopped).splitlines()[0] if self._stopped else "what it was made of is not there"
        self.outcome.skipped += [Conflict(item.mfid, item.name, reason) for item in self._waiting.values()]
        return self.outcome

    def _start(self, pool: ThreadPoolExecutor, running: dict[Future[CopiedDataset | None], ItemToCopy]) -> None:
        """Start sending items whose parents are done; only one while the service is away."""
        if self._stopped is not None:
            return
        most = AT_ONCE if self._away_since is None else 1
        ids = {item.mfid for item in running.values()}
        for mfid, item in self._waiting.items():
            if len(running) >= most:
                return
            if mfid not in ids and not self._open[mfid]:
                running[pool.submit(self.sender.send, item)] = item

    def _ended(self, item: ItemToCopy, future: Future[CopiedDataset | None]) -> None:
        try:
            copied = future.result()
        except TRANSIENT as error:
            self._away(error)
        except UnauthorizedError as error:
            self._stopped = error
        except LineageError as error:
            self._served()
            del self._waiting[item.mfid]
            self.outcome.skipped.append(Conflict(item.mfid, item.name, str(error)))
        else:
            self._served()
            del self._waiting[item.mfid]
            for parents in self._open.values():
                parents.discard(item.mfid)
            self.outcome.sent.append(item)
            if copied is not None:
                self._noted.append(copied)
            if len(self._noted) >= NOTED_EVERY:
                self._note()
            self.listen(item, len(self.outcome.sent), len(self.plan.items))

    def _away(self, error: CrucibleError) -> None:
        reason = str(error).splitlines()[0]
        if reason not in self._reported:
            self._reported.add(reason)
            self.troubled(str(error))
        now = time.monotonic()
        self._away_since = self._away_since or now
        self._tries += 1
        self._retry_after_s = error.retry_after_s
        if now - self._away_since >= self.patience_s:
            self._stopped = error

    def _pause(self) -> float:
        assert self._away_since is not None
        left_s = max(0.0, self.patience_s - (time.monotonic() - self._away_since))
        wait_s = self._retry_after_s or FIRST_WAIT_S * 2.0 ** min(self._tries, 10)
        return min(wait_s, LONGEST_WAIT_S, left_s)

    def _served(self) -> None:
        self._away_since, self._tries = None, 0

    def _note(self) -> None:
        noted, self._noted = self._noted, []
        self.sender.target.store.note_brought(self.sender.source.store.instance, noted)
