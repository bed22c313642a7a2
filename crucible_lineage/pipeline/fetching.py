"""Files of datasets brought into the cache: from Crucible, or from elsewhere if Crucible has only a record of them."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.datasets import DatasetRef, FileRef
from crucible_lineage.errors import InputError
from crucible_lineage.hashing import file_sha256
from crucible_lineage.pipeline.input_spec import is_remote
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.models import FileRecord

__all__ = ["cached_file"]


def cached_file(dataset: DatasetRef, file: FileRef, session: Session) -> Path:
    """The cache's copy of a file, fetched if need be. ChecksumError if the bytes that come are not the file's."""

    def download(target: Path) -> str:
        for stored in session.client.datasets.list_files(dataset.mfid):
            if stored.filename == file.name:
                if stored.storage_path and is_remote(stored.storage_path):
                    return _from_elsewhere(dataset, stored, target, session)
                with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
                    session.client.files.download(stored, folder).replace(target)
                return stored.sha256_hash or file_sha256(target)  # the download has compared them
        raise InputError(f"dataset {dataset.mfid} ({dataset.name!r}) has no file {file.name!r} at Crucible any more")

    return session.cache.get(file.sha256, download)


def _from_elsewhere(dataset: DatasetRef, stored: FileRecord, target: Path, session: Session) -> str:
    """The SHA-256 of the bytes that came. The block that gives access is named in the dataset's metadata."""
    from crucible_lineage.pipeline.remote import fetch_address  # few datasets need it

    noted = (session.client.metadata.get(dataset.mfid) or {}).get("remote_files")
    entry = noted.get(stored.filename) if isinstance(noted, dict) else None
    block = entry.get("block") if isinstance(entry, dict) else None
    digest = hashlib.sha256()
    with target.open("wb") as stream:

        def write(content: bytes) -> None:
            digest.update(content)
            stream.write(content)

        fetch_address(str(stored.storage_path), block, write)
    return digest.hexdigest()
