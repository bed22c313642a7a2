"""One dataset or sample brought to another Crucible. Every call can be repeated, by anyone, after a crash at any point.

A dataset with a provenance record is registered as a run registers it: incomplete before the first byte, complete after
the last; so those who bring the same at once, or make it, come to one. What it has beside that is added afterwards.
"""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crucible_lineage.checksums import FileChecksums
from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import FileRecord
from crucible_lineage.core.slots import hold, places_of
from crucible_lineage.core.store import Brought
from crucible_lineage.errors import ConflictError, InputError, NotFoundError
from crucible_lineage.exchange.compare import FIELDS, SAMPLE_FIELDS, compare, compare_sample, is_brought
from crucible_lineage.exchange.ends import read_held
from crucible_lineage.exchange.model import Held, Lacking, has_bytes, linked
from crucible_lineage.exchange.plan import ItemToCopy
from crucible_lineage.pipeline.files.fetch import remade
from crucible_lineage.pipeline.files.lost import LOST
from crucible_lineage.provenance.record import INCOMPLETE, KEY, PLACES_KEY
from crucible_lineage.provenance.schema import FilesRecord, StepRecord, parse_record
from crucible_lineage.refs import FileRef
from crucible_lineage.registration.new_dataset import Elsewhere, LocalFile, NewDataset
from crucible_lineage.registration.read import recipe_keyword, whole_record
from crucible_lineage.registration.register import register_output
from crucible_lineage.registration.server_ids import make_dataset
from crucible_lineage.registration.standing import add_equal_parents
from crucible_lineage.session import Session
from crucible_lineage.times import as_known

__all__ = ["Sender"]

DERIVED = "is_derived_from"


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

    def send(self, item: ItemToCopy) -> Brought | None:
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
        return Brought(item.mfid, mfid, str(item.record["modification_time"]), modified)

    def _renamed(self, mfid: str) -> str:
        return self.ids.get(mfid, mfid)

    def _register(self, here: Held) -> str:
        with self._files(here) as local:
            new = self._new_dataset(here, local)
            ref = register_output(self.client, new, self.target.machine)
        self.target.mirror.trust({here.mfid: ref, ref.mfid: ref})
        return ref.mfid

    def _new_dataset(self, here: Held, local: Callable[[FileRecord], Path]) -> NewDataset:
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
            places=places_of(here.metadata),
            parents=tuple(parents),
            samples=tuple(self._renamed(sample) for sample in linked(here.dataset, "sample")),
            ingest=self.ingests and any(file.mfid in self.ingested for file in here.files),
            ingestor=declared.output.ingestor if declared and declared.output else None,
        )

    def _local_file(
        self, here: Held, stored: FileRecord | None, ref: FileRef, local: Callable[[FileRecord], Path]
    ) -> LocalFile:
        if stored is None:
            raise InputError(f"dataset {here.mfid} ({here.name!r}) has no file {ref.name!r} here")
        if not has_bytes(stored):
            place = Elsewhere(str(stored.storage_backend), str(stored.storage_path))
            return LocalFile(Path(ref.name), ref, FileChecksums(ref.size, 0, ref.sha256, 0, 0, ()), place)
        path = local(stored)
        return LocalFile(path, ref, self._checksums(path))

    def _create(self, here: Held) -> str:
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
        known = as_known(dataset)
        fields = {name: known[name] for name in (*FIELDS, "project_id") if known.get(name) is not None}
        fields |= {"public": True} if dataset.get("public") else {}
        instrument = str(dataset.get("instrument_id") or "")
        if instrument in self.instruments:
            fields["instrument_id"] = instrument
        return fields

    def _left_over(self, here: Held, mfid: str) -> tuple[Lacking, str]:
        """Return what the dataset still lacks once it is registered or made, and when it was last modified."""
        dataset = self.client.datasets.get(mfid, include_metadata=True, include_links=True).model_dump()
        there = Held(dataset)
        if here.record is not None and there.record is not None and is_brought(here.record, there.record):
            made = {file.name: file for file in whole_record(self.source.client, here.mfid, here.record).files}
            files = tuple(file for file in here.files if file.filename in made)
            pictures = tuple(
                one for one in here.pictures if (name := one.thumbnail_name or "") in made and made[name].preview
            )
            there = Held(dataset, here.keywords, files, pictures)
        else:
            there = read_held(self.client, dataset)
        found = compare(here, there, self._renamed)
        if found.conflicts:
            raise ConflictError(f"{here.name!r} ({here.mfid}): {found.conflicts[0].reason}", mfid=here.mfid)
        return found.lacking, str(dataset["modification_time"])

    def _complete(self, here: Held, mfid: str, lacking: Lacking) -> None:
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
        if lacking.places:
            project = str(here.dataset.get("project_id") or "")
            hold(self.target.mirror, client, project, mfid, lacking.places)

    def _send_files(self, here: Held, mfid: str, names: frozenset[str]) -> None:
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
    def _files(self, here: Held) -> Iterator[Callable[[FileRecord], Path]]:
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


def _described(here: Held) -> dict[str, object]:
    """The metadata beside the record and the places."""
    return {key: value for key, value in here.metadata.items() if key not in (KEY, PLACES_KEY)}


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
