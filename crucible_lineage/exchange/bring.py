"""A plan carried out: several datasets at a time, parents before children, until all is there or nothing goes on.

While the service is away everybody waits, ever longer, for as long as `patience_s` says. What is refused keeps back
what was made of it, and nothing else. Stopped at any point, the next plan has what is missing.

Each dataset or sample is sent by calls that can be repeated, by anyone, after a crash at any point.
"""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crucible_lineage.checksums import FileChecksums
from crucible_lineage.client import CrucibleClient
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
from crucible_lineage.exchange.model import Conflict, HeldDataset, MissingParts, has_bytes, linked, read_held
from crucible_lineage.exchange.plan import CopyPlan, ItemToCopy
from crucible_lineage.lineage.model import DERIVED
from crucible_lineage.pipeline.files.fetch import LOST, remade
from crucible_lineage.provenance.record import INCOMPLETE, KEY, SLOTS_KEY
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
ONE_CALL_S = 5.0  # chosen: after that it is known that the service is away
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
HEARD_S = 1.0  # a signal that comes just before a wait does not end it; so it is heard after this
NOTED_EVERY = 50  # chosen: what is lost of it costs a comparison

Listen = Callable[[ItemToCopy, int, int], None]  # what has arrived, how many have, of how many


# One dataset or sample: with a provenance record it is registered as a run registers it, incomplete before the first
# byte, complete after the last; so those who bring the same at once, or make it, come to one. What it has beside that
# is added afterwards.


@dataclass
class Sender:
    """Brings from `source` to `target`, whose calls `client` makes. `ids` says what has another id there.

    With `ingests`, the files that were ingested here are to be ingested there; `ingested` are their ids here.
    """

    source: Session
    target: Session
    client: CrucibleClient
    ids: dict[str, str] = field(default_factory=dict)
    ingests: bool = True
    ingested: frozenset[str] = frozenset()
    instruments: frozenset[str] = frozenset()

    def send(self, item: ItemToCopy) -> CopiedDataset | None:
        """Make the dataset there equal to the one here.

        Returns the record of its copy. ConflictError if something else came meanwhile.
        """
        if item.is_sample:
            self._send_sample(item)
            return None
        here = read_held(self.source.client, item.record)
        lacking, modified, mfid = item.lacking, "", self._renamed(item.mfid)
        if lacking.whole:
            mfid = self._register(here) if here.record is not None else self._create(here)
            self.ids |= {item.mfid: mfid} if mfid != item.mfid else {}
            lacking, modified = self._left_over(here, mfid)
        if lacking:
            self._complete(here, mfid, lacking)
            modified = str(self.client.datasets.get(mfid).modification_time)
        return CopiedDataset(item.mfid, mfid, str(item.record["modification_time"]), modified)

    def _renamed(self, mfid: str) -> str:
        return self.ids.get(mfid, mfid)

    def _register(self, here: HeldDataset) -> str:
        with self._files(here) as local:
            new = self._new_dataset(here, local)
            ref = register_output(self.client, new, self.target.machine)
        self.target.mirror.trust({here.mfid: ref, ref.mfid: ref})
        return ref.mfid

    def _new_dataset(self, here: HeldDataset, local: Callable[[FileRecord], Path]) -> NewDataset:
        record = here.record
        assert record is not None
        record = whole_record(self.source.client, here.mfid, record)
        stored = {file.filename: file for file in here.files}
        parents = [self._renamed(mfid) for mfid, how in linked(here.dataset, "dataset").items() if how == DERIVED]
        declared = record.activity.declared if isinstance(record, StepRecord) else None
        return NewDataset(
            mfid=here.mfid,
            fields=self._fields(here.dataset),
            record=_as_new(record, self.ids),
            metadata=_described(here),
            files=tuple(self._local_file(here, stored.get(ref.name), ref, local) for ref in record.files),
            keywords=here.keywords,
            slots=slots_of(here.metadata),
            parents=tuple(parents),
            samples=tuple(self._renamed(sample) for sample in linked(here.dataset, "sample")),
            ingest=self.ingests and any(file.mfid in self.ingested for file in here.files),
            ingestor=declared.output.ingestor if declared and declared.output else None,
        )

    def _local_file(
        self, here: HeldDataset, stored: FileRecord | None, ref: FileRef, local: Callable[[FileRecord], Path]
    ) -> LocalFile:
        if stored is None:
            raise InputError(f"dataset {here.mfid} ({here.name!r}) has no file {ref.name!r} here")
        if not has_bytes(stored):
            place = ExternalLocation(str(stored.storage_backend), str(stored.storage_path))
            return LocalFile(Path(ref.name), ref, FileChecksums(ref.size, 0, ref.sha256, 0, 0, ()), place)
        path = local(stored)
        return LocalFile(path, ref, self._checksums(path))

    def _create(self, here: HeldDataset) -> str:
        """The dataset, made if it is not there; it has no provenance record that could say that it is complete."""
        mfid = self._renamed(here.mfid)
        with suppress(NotFoundError):
            return self.client.datasets.get(mfid).unique_id
        try:
            made = make_dataset(self.client, here.mfid, self._fields(here.dataset)).dsid
        except ConflictError:  # somebody else was faster, or it is of others
            return self.client.datasets.get(here.mfid).unique_id
        if made != here.mfid:
            self.client.datasets.add_keyword(made, recipe_keyword(here.mfid))
        return made

    def _fields(self, dataset: Mapping[str, object]) -> dict[str, object]:
        known = without_default_time(dataset)
        fields = {name: known[name] for name in (*FIELDS, "project_id") if known.get(name) is not None}
        fields |= {"public": True} if dataset.get("public") else {}
        instrument = str(dataset.get("instrument_id") or "")
        if instrument in self.instruments:
            fields["instrument_id"] = instrument
        return fields

    def _left_over(self, here: HeldDataset, mfid: str) -> tuple[MissingParts, str]:
        """Return what the dataset still lacks once it is registered or made, and when it was last modified."""
        dataset = self.client.datasets.get(mfid, include_metadata=True, include_links=True).model_dump()
        there = HeldDataset(dataset)
        if here.record is not None and there.record is not None and is_brought(here.record, there.record):
            made = {file.name: file for file in whole_record(self.source.client, here.mfid, here.record).files}
            files = tuple(file for file in here.files if file.filename in made)
            pictures = tuple(
                one for one in here.pictures if (name := one.thumbnail_name or "") in made and made[name].preview
            )
            there = HeldDataset(dataset, here.keywords, files, pictures)
        else:
            there = read_held(self.client, dataset)
        found = compare(here, there, self._renamed)
        if found.conflicts:
            raise ConflictError(f"{here.name!r} ({here.mfid}): {found.conflicts[0].reason}", mfid=here.mfid)
        return found.lacking, str(dataset["modification_time"])

    def _complete(self, here: HeldDataset, mfid: str, lacking: MissingParts) -> None:
        """The dataset has what it lacks."""
        client = self.client
        if fields := {name: value for name, value in lacking.fields.items() if name != "instrument_name"}:
            client.datasets.update(mfid, **fields)
        if lacking.metadata:
            client.metadata.merge(mfid, _within(lacking.metadata, client.metadata.get(mfid) or {}))
        for keyword in lacking.keywords:
            client.datasets.add_keyword(mfid, keyword)
        for parent, relationship in lacking.parents.items():
            client.datasets.link_parent_child(parent, mfid, relationship_type=relationship)
        if lacking.equal_parents:
            add_equal_parents(client, mfid, lacking.equal_parents)
        for sample in lacking.samples:
            client.datasets.add_sample(mfid, sample)
        for picture in here.pictures:
            if (picture.thumbnail_name or "") in lacking.pictures and picture.thumbnail_b64str:
                content = base64.b64decode(picture.thumbnail_b64str)
                client.datasets.add_thumbnail(mfid, content, name=picture.thumbnail_name)
        if lacking.files:
            self._send_files(here, mfid, lacking.files)
        if lacking.slots:
            project = str(here.dataset.get("project_id") or "")
            hold(self.target.mirror, client, project, mfid, lacking.slots)

    def _send_files(self, here: HeldDataset, mfid: str, names: frozenset[str]) -> None:
        with self._files(here) as local:
            for file in here.files:
                if file.filename not in names:
                    continue
                if has_bytes(file):
                    path = local(file)
                    sums = self._checksums(path)
                    sent = self.client.files.upload(mfid, path, filename=file.filename, checksums=sums)
                    if self.ingests and file.mfid in self.ingested and not sent.existed:
                        self.client.ingestions.request(sent.file.mfid)
                elif file.storage_path is not None:
                    new = {
                        "filename": file.filename, "storage_backend": file.storage_backend, "size": file.size,
                        "sha256_hash": file.sha256_hash, "access_note": file.access_note,
                    }  # fmt: skip
                    self.client.datasets.add_remote_file(mfid, new, storage_path=file.storage_path)

    @contextmanager
    def _files(self, here: HeldDataset) -> Iterator[Callable[[FileRecord], Path]]:
        """Gives the files of a dataset, fetched here, in a folder of their own until the block ends."""
        work = self.source.settings.data / "work"
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=work, prefix="push-") as folder:

            def local(file: FileRecord) -> Path:
                sha256 = str(file.sha256_hash)
                for _ in range(3):  # other processes may take away what the cache has not used for long
                    path = self.source.cache.get(sha256, lambda target: self._fetch(file, target))
                    with suppress(FileNotFoundError):
                        return _linked(path, Path(folder) / sha256)
                raise InputError(f"{file.filename} of {here.mfid} does not stay in the cache; is the disk full?")

            yield local

    def _checksums(self, path: Path) -> FileChecksums:
        """Those of a file whose name is its hash, remembered for its place in the cache, which lasts longer."""
        cached = self.source.cache.path(path.name)
        with suppress(FileNotFoundError):
            return self.source.store.checksums(cached)
        return self.source.store.checksums(path)

    def _fetch(self, file: FileRecord, target: Path) -> str:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
            try:
                self.source.client.files.download(file, folder).replace(target)
            except LOST as error:  # it may have been let go, since it can be made again
                shutil.copyfile(remade(self.source, str(file.dataset_mfid), str(file.sha256_hash), error), target)
        return str(file.sha256_hash)  # the download has compared them

    def _send_sample(self, item: ItemToCopy) -> None:
        client, sample = self.client, item.record
        mfid = self._renamed(item.mfid)
        lacking = item.lacking
        if lacking.whole:
            fields = {name: sample[name] for name in (*SAMPLE_FIELDS, "project_id") if sample.get(name) is not None}
            fields |= {"public": True} if sample.get("public") else {}
            with suppress(ConflictError):  # somebody else was faster
                made = client.samples.create({**fields, "unique_id": mfid}).unique_id
                self.ids |= {item.mfid: made} if made != item.mfid else {}
                mfid = made
            there = client.samples.get(mfid, include_metadata=True, include_links=True).model_dump()
            found = compare_sample(sample, there, self._renamed)
            if found.conflicts:
                raise ConflictError(f"sample {item.name!r} ({mfid}): {found.conflicts[0].reason}", mfid=mfid)
            lacking = found.lacking
        if lacking.fields:
            client.samples.update(mfid, **lacking.fields)
        if lacking.metadata:
            client.metadata.merge(mfid, _within(lacking.metadata, client.metadata.get(mfid) or {}))
        for parent, relationship in lacking.parents.items():
            client.samples.link_parent_child(parent, mfid, relationship_type=relationship)


def _described(here: HeldDataset) -> dict[str, object]:
    """The metadata beside the record and the slots."""
    return {key: value for key, value in here.metadata.items() if key not in (KEY, SLOTS_KEY)}


def _as_new(record: StepRecord | FilesRecord, ids: Mapping[str, str]) -> StepRecord | FilesRecord:
    """The record as it is registered there: begun, with the ids that datasets have there.

    It keeps which registrations were completed before, so that it is known to be the same.
    """
    document = {**record.document(), "status": INCOMPLETE}
    if ids:
        document["used"] = [_used(entry, ids) for entry in document["used"]]
        if equal := document.get("equal_parents"):
            document["equal_parents"] = {ids.get(one, one): ids.get(other, other) for one, other in equal.items()}
        if supersedes := document.get("supersedes"):
            document["supersedes"] = ids.get(supersedes, supersedes)
    made = parse_record(document)
    assert not isinstance(made, str), made
    return made


def _used(entry: Mapping[str, Any], ids: Mapping[str, str]) -> dict[str, Any]:
    """An entry of what was used; what it comes from is told by the id that is in the recipe."""
    mfid = entry["mfid"]
    return dict(entry) if mfid not in ids else {**entry, "mfid": ids[mfid], "origin": entry.get("origin") or mfid}


def _within(added: Mapping[str, object], there: Mapping[str, object]) -> dict[str, Any]:
    """Merge what is added into what is there under the same keys: some services merge only the outermost level."""
    merged: dict[str, Any] = {}
    for key, value in added.items():
        theirs = there.get(key)
        if isinstance(value, Mapping) and isinstance(theirs, Mapping):
            merged[key] = {**theirs, **_within(value, theirs)}
        else:
            merged[key] = value
    return merged


def _linked(source: Path, target: Path) -> Path:
    """The file under another name, which no tidying of the cache takes away; a copy where links cannot be had."""
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


# A whole plan.


@dataclass
class CopyOutcome:
    """What has arrived, in the order in which it did, and what did not, each with the reason."""

    sent: list[ItemToCopy] = field(default_factory=list)
    left: list[Conflict] = field(default_factory=list)
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
    """Copy what the plan names, as far as possible. `troubled` hears each reason for waiting once."""
    target.store.note_brought(source.store.instance, plan.brought)
    if not plan.items:
        return CopyOutcome(ids=dict(plan.ids))
    target.require_usable()
    with target.connect(at_most_s=ONE_CALL_S) as client:
        sender = Sender(source, target, client, dict(plan.ids), ingests)
        sender.ingested = _ingested(source) if ingests else frozenset()
        sender.instruments = plan.instruments
        return _Bringing(sender, plan, patience_s, listen, troubled).run()


def _ingested(source: Session) -> frozenset[str]:
    """The files that were asked to be ingested."""
    asked = source.client.ingestions.iter()
    return frozenset(str(one.file_mfid) for one in asked if one.status != "not_requested")


class _Bringing:
    def __init__(
        self, sender: Sender, plan: CopyPlan, patience_s: float, listen: Listen, troubled: Callable[[str], None]
    ) -> None:
        self.sender = sender
        self.patience_s = patience_s
        self.listen = listen
        self.troubled = troubled
        self.total = len(plan.items)
        self.outcome = CopyOutcome(ids=sender.ids)
        self._waiting = {item.mfid: item for item in plan.items}
        self._open = {item.mfid: {one for one in item.parents if one in self._waiting} for item in plan.items}
        self._noted: list[CopiedDataset] = []
        self._told: set[str] = set()
        self._stopped: CrucibleError | None = None
        self._away_since: float | None = None
        self._tries = 0
        self._retry_after_s: float | None = None
        self._over = threading.Event()

    def run(self) -> CopyOutcome:
        running: dict[Future[CopiedDataset | None], ItemToCopy] = {}
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="bring") as pool:
            try:
                while True:
                    self._start(pool, running)
                    if not running:
                        break
                    ended, _ = wait(running, timeout=HEARD_S, return_when=FIRST_COMPLETED)
                    for future in ended:
                        self._ended(running.pop(future), future)
                    if self._away_since is not None and not running and self._waiting and self._stopped is None:
                        self._over.wait(self._pause())
            except BaseException:
                self.sender.client.close()  # what is under way ends with the call that it makes
                pool.shutdown(cancel_futures=True)
                self._note()
                raise
        self._note()
        reason = str(self._stopped).splitlines()[0] if self._stopped else "what it was made of is not there"
        self.outcome.left += [Conflict(item.mfid, item.name, reason) for item in self._waiting.values()]
        return self.outcome

    def _start(self, pool: ThreadPoolExecutor, running: dict[Future[CopiedDataset | None], ItemToCopy]) -> None:
        """Send what is ready; one dataset alone while the service is away."""
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
            brought = future.result()
        except TRANSIENT as error:
            self._away(error)
        except UnauthorizedError as error:
            self._stopped = error
        except LineageError as error:
            self._served()
            del self._waiting[item.mfid]
            self.outcome.left.append(Conflict(item.mfid, item.name, str(error)))
        else:
            self._served()
            del self._waiting[item.mfid]
            for parents in self._open.values():
                parents.discard(item.mfid)
            self.outcome.sent.append(item)
            if brought is not None:
                self._noted.append(brought)
            if len(self._noted) >= NOTED_EVERY:
                self._note()
            self.listen(item, len(self.outcome.sent), self.total)

    def _away(self, error: CrucibleError) -> None:
        said = str(error).splitlines()[0]
        if said not in self._told:
            self._told.add(said)
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
