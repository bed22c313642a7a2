"""Fetching files of datasets from Crucible, sending them again, and copying results to buckets."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.checksums import file_sha256
from crucible_lineage.errors import ChecksumError, InputError, NotFoundError, RefusedError
from crucible_lineage.pipeline.spec.pipeline import Publish
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.client import CrucibleClient

LOST = (ChecksumError, InputError, NotFoundError, RefusedError)
"""The errors of reading a file whose bytes are lost or damaged."""


def cached_file(dataset: DatasetRef, file: FileRef, session: Session) -> Path:
    """Return the cache's copy of a file, fetched if need be. Raises ChecksumError if the fetched bytes are wrong."""
    return session.cache.get(file.sha256, lambda target: _from_crucible(dataset, file, target, session))


def place_file(dataset: DatasetRef, file: FileRef, target: Path, session: Session) -> bool:
    """Copy a dataset's file to `target`, verified by its hash. Return whether the cache's copy had to be replaced.

    Raises ChecksumError if the fetched bytes are wrong.
    """
    return session.cache.copy_to(file.sha256, target, lambda copy: _from_crucible(dataset, file, copy, session))


def _from_crucible(dataset: DatasetRef, file: FileRef, target: Path, session: Session) -> str:
    """Fetch a file from the outbox or from Crucible; return its SHA-256."""
    if (waiting := session.outbox.file(dataset.mfid, file.sha256)) is not None:
        shutil.copyfile(waiting, target)
        return file_sha256(target)
    stored = next((one for one in session.client.datasets.list_files(dataset.mfid) if one.filename == file.name), None)
    if stored is None:
        raise InputError(
            f"dataset {dataset.mfid} ({dataset.name!r}) no longer has the file {file.name!r} at Crucible; "
            f"{way_out(dataset.mfid)}"
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
        try:
            session.client.files.download(stored, folder).replace(target)
        except LOST as error:
            error.args = (f"{error}; {way_out(dataset.mfid)}",)
            raise
    return stored.sha256_hash or file_sha256(target)  # the download has verified the hash


def way_out(mfid: str) -> str:
    """Return what can be done about lost bytes of a dataset, for a message."""
    return f"to restore it: crucible-lineage verify {mfid} --repair; to remake it: crucible-lineage reproduce {mfid}"


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


def publish(dataset: DatasetRef, target: Publish, session: Session) -> None:
    """Copy the dataset's files to the target once, each as MFID/NAME, and record that in its metadata.

    At the end of a run this is called for all its results, whoever made them and when. Overwrites nothing. Raises
    InputError if other content has one of the addresses.
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
