"""Files of datasets brought here: from Crucible, or from elsewhere if Crucible has only a record of them.

A file that is catalogued by reference (`copy: false`) lies elsewhere; the block that gives access to it is named in its
dataset's metadata.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.checksums import file_sha256
from crucible_lineage.errors import ChecksumError, InputError, LineageError, NotFoundError, RefusedError
from crucible_lineage.ids import is_mfid
from crucible_lineage.lineage.records import provenance, text, used_mfids
from crucible_lineage.pipeline.spec.inputs import is_remote
from crucible_lineage.pipeline.spec.pipeline import Publish
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.session import Session
from crucible_lineage.times import utc

if TYPE_CHECKING:
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import FileRecord

LOST = (ChecksumError, InputError, NotFoundError, RefusedError)
"""What reading a file raises whose bytes are gone or damaged; other errors say nothing of them."""


MFID_KEY = "crucible_mfid"
LOOKED_AT_BYTES = 1 << 16
HDF5 = b"\x89HDF\r\n\x1a\n"
_NAMED = re.compile(MFID_KEY.encode() + rb"[\"']?[\s:=,\0]{1,8}[\"']?([0-9a-hjkmnp-tv-z]{26})(?![0-9A-Za-z])")


def cached_file(dataset: DatasetRef, file: FileRef, session: Session) -> Path:
    """The cache's copy of a file, fetched if need be. ChecksumError if the bytes that come are not the file's."""
    return session.cache.get(file.sha256, _had(dataset, file, session))


def place_file(dataset: DatasetRef, file: FileRef, target: Path, session: Session) -> bool:
    """`target` is a copy of a dataset's file, checked by its hash. True if the cache's own was damaged, and replaced.

    ChecksumError if the bytes that come are not the file's.
    """
    return session.cache.copy_to(file.sha256, target, _had(dataset, file, session))


def _had(dataset: DatasetRef, file: FileRef, session: Session) -> Callable[[Path], str]:
    """Fetch a file; where Crucible has lost it, let it be made again, if the session can."""
    download = _download(dataset, file, session)

    def fetch(target: Path) -> str:
        try:
            found = download(target)
            if found == file.sha256 or session.remake is None:
                return found
            lost: LineageError = ChecksumError(f"Crucible has other bytes of {file.name} of dataset {dataset.mfid}")
        except LOST as error:
            if session.remake is None:
                raise
            lost = error
        shutil.copyfile(remade(session, dataset.mfid, file.sha256, lost), target)
        return file.sha256

    return fetch


def remade(session: Session, mfid: str, sha256: str, lost: LineageError) -> Path:
    """A file that Crucible has lost, made again. Raises `lost`, with why it cannot be made, if it cannot."""
    if session.remake is None:
        raise lost
    try:
        return session.remake(session, mfid, sha256)
    except LineageError as error:
        raise type(lost)(f"{lost}; {error}") from error


def _download(dataset: DatasetRef, file: FileRef, session: Session) -> Callable[[Path], str]:
    def download(target: Path) -> str:
        if (waiting := session.outbox.file(dataset.mfid, file.sha256)) is not None:
            shutil.copyfile(waiting, target)
            return file_sha256(target)
        for stored in session.client.datasets.list_files(dataset.mfid):
            if stored.filename == file.name:
                if is_reference(stored):
                    with target.open("wb") as stream:
                        fetch_reference(dataset.mfid, stored, stream.write, session)
                    return stored.sha256_hash or file_sha256(target)
                with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
                    try:
                        session.client.files.download(stored, folder).replace(target)
                    except LOST as error:
                        note_if_lost(session, dataset.mfid, file.name, error)
                        raise
                return stored.sha256_hash or file_sha256(target)  # the download has compared them
        session.mirror.note_lost(dataset.mfid, file.name)
        raise InputError(
            f"dataset {dataset.mfid} ({dataset.name!r}) no longer has the file {file.name!r} at Crucible; "
            "run the pipeline that made it to make it again"
        )

    return download


def is_reference(stored: FileRecord) -> bool:
    """True if Crucible has a record of the file, and an address, but not its bytes."""
    return bool(stored.storage_path and is_remote(stored.storage_path))


def fetch_reference(mfid: str, stored: FileRecord, write: Callable[[bytes], object], session: Session) -> int:
    """The bytes of a file that is catalogued by reference have been given to `write`; says how many they were.

    ChecksumError if they are not those of its hash. InputError if they are gone, or not to be had with this access.
    """
    from crucible_lineage.pipeline.files.remote import fetch_address  # few datasets need it

    noted = (session.client.metadata.get(mfid) or {}).get("remote_files")
    entry = noted.get(stored.filename) if isinstance(noted, dict) else None
    block = entry.get("block") if isinstance(entry, dict) else None
    digest, size = hashlib.sha256(), 0

    def take(part: bytes) -> None:
        nonlocal size
        digest.update(part)
        size += len(part)
        write(part)

    fetch_address(str(stored.storage_path), block, take)
    if stored.sha256_hash and digest.hexdigest() != stored.sha256_hash:
        raise ChecksumError(
            f"{stored.storage_path} now holds other bytes: SHA-256 {digest.hexdigest()} and not {stored.sha256_hash}"
        )
    return size


def note_if_lost(session: Session, mfid: str, filename: str, error: LineageError) -> None:
    """Note that Crucible has lost a file, if that is what this error of reading it says.

    The next run that plans this result makes it again.
    """
    if isinstance(error, LOST):
        session.mirror.note_lost(mfid, filename)


def send_again(client: CrucibleClient, mfid: str, filename: str, sha256: str, path: Path) -> None:
    """Upload a file's bytes and read them back. Raises InputError if Crucible still gives back other ones.

    A service that trusts its own list is made to take them as a new file.
    """
    uploaded = client.files.upload(mfid, path, filename=filename)
    if has_bytes(client, mfid, filename, sha256):
        return
    client.files.delete(uploaded.file.mfid)
    client.files.upload(mfid, path, filename=filename)
    if not has_bytes(client, mfid, filename, sha256):
        raise InputError(f"what Crucible gives back of {filename} still has other bytes than were sent")


def has_bytes(client: CrucibleClient, mfid: str, filename: str, sha256: str) -> bool:
    """Return whether Crucible gives back the bytes of a file. Reads them."""
    with tempfile.TemporaryDirectory(prefix="crucible-lineage-") as folder:
        for stored in client.files.list(mfid):
            if stored.filename == filename:
                try:
                    return file_sha256(client.files.download(stored, folder)) == sha256
                except LOST:
                    return False
    return False


# The MFID that a measured file names itself: an instrument that uploads first can write into it what dataset it is
# of.
#
# The key is `crucible_mfid`: an attribute of the root of an HDF5 file (NeXus too), else in the first 64 KiB, as a
# line of a text header (`# crucible_mfid: ...`), a key of JSON, a text chunk of PNG, or a description in a TIFF.


def mfid_in(path: Path) -> str | None:
    """The MFID that the file names; None if it names none."""
    with path.open("rb") as file:
        head = file.read(LOOKED_AT_BYTES)
    if head.startswith(HDF5):
        return _in_hdf5(path)
    found = _NAMED.search(head)
    return found[1].decode() if found else None


def _in_hdf5(path: Path) -> str | None:
    try:
        import h5py  # the ingestors' extra; who has none registers the file without
    except ImportError:
        return None
    try:
        with h5py.File(path, "r") as file:
            value = file.attrs.get(MFID_KEY)
    except OSError:  # it is damaged, which the step that reads it tells
        return None
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    return str(text) if is_mfid(text) else None


# Results copied to where a declaration says they are published, as gs://bucket/prefix/, once each.
#
# Publishing follows registration: what is there in a run's end is published, whoever made it and when, so that a run
# which died in between, or a declaration to which `publish` was added later, leaves nothing out.


def publish(dataset: DatasetRef, place: Publish, session: Session) -> None:
    """The dataset's files are at `place`, each as MFID/NAME, and its metadata say so.

    Nothing there is overwritten. InputError if other content has one of the addresses.
    """
    if session.store.is_published(dataset.mfid, place.to):
        return
    from crucible_lineage.pipeline.files.remote import open_source  # few pipelines publish, and each only once

    source = open_source(place.to.partition("://")[0], place.block)
    sent = {}
    for file in dataset.files:
        path = cached_file(dataset, file, session)
        url = f"{place.to.rstrip('/')}/{dataset.mfid}/{file.name}"
        sent[file.name] = replace(source.put(path, url, session.store.checksums(path)), block=place.block).to_json()
    session.client.metadata.merge(dataset.mfid, {"published": {place.to: sent}})
    session.store.note_published(dataset.mfid, place.to)


@dataclass(frozen=True)
class EvictedDataset:
    """A dataset whose bytes have to be made again before they can be read, and how many seconds its step took."""

    mfid: str
    name: str
    bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return dict(vars(self))


def away(session: Session, wanted: Iterable[str]) -> list[EvictedDataset]:
    """Return those of these datasets that were let go, with all that has to be made again for them, in this order."""
    asked = list(dict.fromkeys(wanted))
    evicted = session.stated.evicted() if asked else {}
    found: dict[str, EvictedDataset] = {}
    records: dict[str, Mapping[str, Any]] = {}
    waiting = asked[::-1] if evicted else []
    while waiting:  # a chain may be longer than calls can be nested
        mfid = waiting[-1]
        gone = [sha256 for sha256 in evicted.get(mfid, ()) if not _is_here(session, sha256)]
        if gone and mfid not in records:
            records[mfid] = session.mirror.records([mfid]).get(mfid) or {}
            waiting += [one for one in reversed(list(used_mfids(records[mfid]))) if one not in records]
            continue
        waiting.pop()
        if gone and mfid not in found:
            found[mfid] = _away(mfid, records[mfid], gone)
    return list(found.values())


def _away(mfid: str, record: Mapping[str, Any], gone: Sequence[str]) -> EvictedDataset:
    sizes = {one.get("sha256"): one.get("size") for one in provenance(record).get("generated") or ()}
    name = text(record.get("dataset_name")) or mfid
    return EvictedDataset(mfid, name, sum(sizes.get(one) or 0 for one in gone), made_in(record))


def made_in(record: Mapping[str, Any]) -> float:
    """Return how many seconds the step took that made a result, by its record; 0 if that does not say it."""
    activity = provenance(record).get("activity") or {}
    began, ended = text(activity.get("started")), text(activity.get("ended"))
    return (utc(ended) - utc(began)).total_seconds() if began and ended else 0.0


def stored_file(session: Session, sha256: str) -> Path:
    """Return where the embedded Crucible has a file's bytes, or would have them."""
    return session.settings.data / "crucible" / "contents" / sha256[:2] / sha256[2:]


def _is_here(session: Session, sha256: str) -> bool:
    return session.cache.path(sha256).exists() or (session.settings.embedded and stored_file(session, sha256).exists())
