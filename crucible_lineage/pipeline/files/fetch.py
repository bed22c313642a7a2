"""Fetching files of datasets: from Crucible, or from elsewhere if Crucible has only a record of them.

A file that is catalogued by reference (`copy: false`) is stored elsewhere; its dataset's metadata names the block that
gives access to it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.checksums import file_sha256
from crucible_lineage.errors import ChecksumError, InputError, LineageError, NotFoundError, RefusedError
from crucible_lineage.ids import is_mfid
from crucible_lineage.pipeline.spec.inputs import is_remote
from crucible_lineage.pipeline.spec.pipeline import Publish
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.client.models import FileRecord

LOST = (ChecksumError, InputError, NotFoundError, RefusedError)
"""The errors of reading a file whose bytes are lost or damaged."""


MFID_KEY = "crucible_mfid"
LOOKED_AT_BYTES = 1 << 16
HDF5 = b"\x89HDF\r\n\x1a\n"
_NAMED = re.compile(MFID_KEY.encode() + rb"[\"']?[\s:=,\0]{1,8}[\"']?([0-9a-hjkmnp-tv-z]{26})(?![0-9A-Za-z])")


def cached_file(dataset: DatasetRef, file: FileRef, session: Session) -> Path:
    """Return the cache's copy of a file, fetched if need be. Raises ChecksumError if the fetched bytes are wrong."""
    return session.cache.get(file.sha256, lambda target: _download(dataset, file, target, session))


def place_file(dataset: DatasetRef, file: FileRef, target: Path, session: Session) -> bool:
    """Copy a dataset's file to `target`, verified by its hash. Return whether the cache's copy had to be replaced.

    Raises ChecksumError if the fetched bytes are wrong.
    """
    return session.cache.copy_to(file.sha256, target, lambda copy: _download(dataset, file, copy, session))


def _download(dataset: DatasetRef, file: FileRef, target: Path, session: Session) -> str:
    """Fetch a file from the outbox, from Crucible, or from where it is; return its SHA-256."""
    if (waiting := session.outbox.file(dataset.mfid, file.sha256)) is not None:
        shutil.copyfile(waiting, target)
        return file_sha256(target)
    stored = next((one for one in session.client.datasets.list_files(dataset.mfid) if one.filename == file.name), None)
    if stored is None:
        session.mirror.note_lost(dataset.mfid, file.name)
        raise InputError(
            f"dataset {dataset.mfid} ({dataset.name!r}) no longer has the file {file.name!r} at Crucible; "
            f"{way_out(dataset.mfid)}"
        )
    if is_reference(stored):
        with target.open("wb") as stream:
            fetch_reference(dataset.mfid, stored, stream.write, session)
    else:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
            try:
                session.client.files.download(stored, folder).replace(target)
            except LOST as error:
                session.mirror.note_lost(dataset.mfid, file.name)
                error.args = (f"{error}; {way_out(dataset.mfid)}",)
                raise
    return stored.sha256_hash or file_sha256(target)  # the download has verified the hash


def way_out(mfid: str) -> str:
    """Return what can be done about lost bytes of a dataset, for a message."""
    return f"to restore it: crucible-lineage verify {mfid} --repair; to remake it: crucible-lineage reproduce {mfid}"


def is_reference(stored: FileRecord) -> bool:
    """Return whether Crucible has only a record of the file with its address, not its bytes."""
    return bool(stored.storage_path and is_remote(stored.storage_path))


def fetch_reference(mfid: str, stored: FileRecord, write: Callable[[bytes], object], session: Session) -> int:
    """Pass the bytes of a file catalogued by reference to `write`; return their number.

    Raises ChecksumError if they do not match the hash, InputError if they are gone or not accessible.
    """
    from crucible_lineage.pipeline.files.remote import fetch_address  # few datasets need it

    remote_files = (session.client.metadata.get(mfid) or {}).get("remote_files")
    entry = remote_files.get(stored.filename) if isinstance(remote_files, dict) else None
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
    """Record that Crucible has lost a file, if this error of reading it means that.

    The next run that plans this result makes it again.
    """
    if isinstance(error, LOST):
        session.mirror.note_lost(mfid, filename)


def send_again(client: CrucibleClient, mfid: str, filename: str, sha256: str, path: Path) -> None:
    """Upload a file's bytes and read them back. Raises InputError if Crucible still returns other bytes.

    If the service keeps the old bytes, the file is deleted and uploaded as a new one.
    """
    uploaded = client.files.upload(mfid, path, filename=filename)
    if has_bytes(client, mfid, filename, sha256):
        return
    client.files.delete(uploaded.file.mfid)
    client.files.upload(mfid, path, filename=filename)
    if not has_bytes(client, mfid, filename, sha256):
        raise InputError(f"Crucible still returns other bytes of {filename} than were sent")


def has_bytes(client: CrucibleClient, mfid: str, filename: str, sha256: str) -> bool:
    """Return whether Crucible has the bytes of a file, by reading them."""
    with tempfile.TemporaryDirectory(prefix="crucible-lineage-") as folder:
        for stored in client.files.list(mfid):
            if stored.filename == filename:
                try:
                    return file_sha256(client.files.download(stored, folder)) == sha256
                except LOST:
                    return False
    return False


# The MFID that a measured file contains: an instrument that uploads first can write the dataset's id into the file.
#
# The key is `crucible_mfid`: an attribute of the root of an HDF5 file (NeXus too), else in the first 64 KiB, as a
# line of a text header (`# crucible_mfid: ...`), a key of JSON, a text chunk of PNG, or a description in a TIFF.


def mfid_in(path: Path) -> str | None:
    """Return the MFID that the file contains; None if there is none."""
    with path.open("rb") as file:
        head = file.read(LOOKED_AT_BYTES)
    if head.startswith(HDF5):
        return _in_hdf5(path)
    found = _NAMED.search(head)
    return found[1].decode() if found else None


def _in_hdf5(path: Path) -> str | None:
    try:
        import h5py  # the ingestors' extra; without it, the file is registered without this id
    except ImportError:
        return None
    try:
        with h5py.File(path, "r") as file:
            value = file.attrs.get(MFID_KEY)
    except OSError:  # damaged; the step that reads it reports that
        return None
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    return str(text) if is_mfid(text) else None


# Publishing: copying results to the declared address, as gs://bucket/prefix/, once each.
#
# All results that exist at the end of a run are published, whoever made them and when, so that nothing is left out
# after a run that died, or when `publish` is added to a declaration later.


def publish(dataset: DatasetRef, target: Publish, session: Session) -> None:
    """Copy the dataset's files to the target, each as MFID/NAME, and record that in its metadata.

    Overwrites nothing. Raises InputError if other content has one of the addresses.
    """
    if session.store.is_published(dataset.mfid, target.to):
        return
    from crucible_lineage.pipeline.files.remote import open_source  # few pipelines publish, and each only once

    source = open_source(target.to.partition("://")[0], target.block)
    sent = {}
    for file in dataset.files:
        path = cached_file(dataset, file, session)
        url = f"{target.to.rstrip('/')}/{dataset.mfid}/{file.name}"
        sent[file.name] = replace(source.put(path, url, session.store.checksums(path)), block=target.block).to_json()
    session.client.metadata.merge(dataset.mfid, {"published": {target.to: sent}})
    session.store.note_published(dataset.mfid, target.to)
