"""Files of datasets brought here: from Crucible, or from elsewhere if Crucible has only a record of them.

A file that is catalogued by reference (`copy: false`) lies elsewhere; the block that gives access to it is named in its
dataset's metadata.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.checksums import file_sha256
from crucible_lineage.errors import ChecksumError, InputError, LineageError
from crucible_lineage.pipeline.files.lost import LOST, note_if_lost
from crucible_lineage.pipeline.spec.inputs import is_remote
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.client.models import FileRecord

__all__ = ["cached_file", "fetch_reference", "is_reference", "place_file", "remade"]


def cached_file(dataset: DatasetRef, file: FileRef, session: Session) -> Path:
    """The cache's copy of a file, fetched if need be. ChecksumError if the bytes that come are not the file's."""
    return session.cache.get(file.sha256, _had(dataset, file, session))


def place_file(dataset: DatasetRef, file: FileRef, target: Path, session: Session) -> bool:
    """`target` is a copy of a dataset's file, checked by its hash. True if the cache's own was damaged, and replaced.

    ChecksumError if the bytes that come are not the file's.
    """
    return session.cache.place(file.sha256, target, _had(dataset, file, session))


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
