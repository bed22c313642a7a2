"""Files of datasets brought into the cache: from Crucible, or from elsewhere if Crucible has only a record of them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.datasets import DatasetRef, FileRef
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.input_spec import is_remote
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.models import FileRecord

__all__ = ["cached_file"]


def cached_file(dataset: DatasetRef, file: FileRef, session: Session) -> Path:
    """The cache's copy of a file, fetched if need be. ChecksumError if the bytes that come are not the file's."""

    def download(target: Path) -> None:
        for stored in session.client.datasets.list_files(dataset.mfid):
            if stored.filename == file.name:
                if stored.storage_path and is_remote(stored.storage_path):
                    _from_elsewhere(dataset, stored, target, session)
                    return
                with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
                    session.client.files.download(stored, folder).replace(target)
                return
        raise InputError(f"dataset {dataset.mfid} ({dataset.name!r}) has no file {file.name!r} at Crucible any more")

    return session.cache.get(file.sha256, download)


def _from_elsewhere(dataset: DatasetRef, stored: FileRecord, target: Path, session: Session) -> None:
    """The block that gives access is named in the dataset's metadata."""
    from crucible_lineage.pipeline.remote import fetch_address  # few datasets need it

    noted = (session.client.metadata.get(dataset.mfid) or {}).get("remote_files")
    entry = noted.get(stored.filename) if isinstance(noted, dict) else None
    block = entry.get("block") if isinstance(entry, dict) else None
    with target.open("wb") as stream:
        fetch_address(str(stored.storage_path), block, stream.write)
