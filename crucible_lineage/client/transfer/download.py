"""Files from storage to a folder: streamed, resumed, checked, and never outside the folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath, PureWindowsPath

import httpx

from crucible_lineage.checksums import blocks
from crucible_lineage.client.http.connection import read_whole
from crucible_lineage.client.models import FileRecord
from crucible_lineage.client.transfer.storage import Storage, storage_error
from crucible_lineage.disk import draft_beside
from crucible_lineage.errors import ChecksumError, InputError
from crucible_lineage.traffic import traffic

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes of the file, if known."""


def fetch(storage: Storage, file: FileRecord, url: str, target: Path, progress: Progress | None = None) -> Path:
    """`target`, which now holds the file.

    The bytes go to a file beside it, which is renamed when its SHA-256 is the record's; what an interrupted call left
    there is continued. ChecksumError if the bytes are others, or more than recorded, and then nothing is kept.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = draft_beside(target, f".{(file.sha256_hash or file.mfid)[:16]}.part")
    digest = hashlib.sha256()
    present = _read_into(digest, partial) if file.sha256_hash else 0
    headers = {"Range": f"bytes={present}-"} if present else {}
    with storage.stream(url, f"download {file.filename}", headers=headers) as response:
        if response.status_code == 200:
            digest, present = hashlib.sha256(), 0
        traffic.find(present)
        if response.status_code in (200, 206):
            try:
                _append(response, partial, digest, present, file, progress)
            except ChecksumError:
                partial.unlink()
                raise
        elif response.status_code != 416:  # 416: the partial file is complete, or too long; its checksum tells
            raise storage_error(read_whole(response, f"download {file.filename}"), f"download {file.filename}")
    if file.sha256_hash and digest.hexdigest() != file.sha256_hash:
        partial.unlink()
        raise ChecksumError(f"{file.filename} ({file.mfid}) arrived with other bytes than recorded; nothing was kept")
    return partial.replace(target)


def fetch_bytes(storage: Storage, file: FileRecord, url: str) -> bytes:
    """The file's bytes, checked like those of `fetch`."""
    with storage.stream(url, f"download {file.filename}", headers={}) as response:
        if response.status_code != 200:
            raise storage_error(read_whole(response, f"download {file.filename}"), f"download {file.filename}")
        content = b"".join(_no_more_than_recorded(response, 0, file))
    if file.sha256_hash and hashlib.sha256(content).hexdigest() != file.sha256_hash:
        raise ChecksumError(f"{file.filename} ({file.mfid}) arrived with other bytes than recorded")
    return content


def local_path(folder: Path, file: FileRecord) -> Path:
    """Where the file belongs in `folder`. InputError for a name that would lead out of it."""
    name = _name(file)
    parts = PurePosixPath(name).parts
    windows = PureWindowsPath(name)
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or windows.drive or "\0" in name:
        raise InputError(f"file {file.mfid} is called {name!r}, which leads out of {folder}; nothing was written")
    return folder.joinpath(*parts)


def is_wanted(name: str, include: str | Sequence[str] | None, exclude: str | Sequence[str] | None) -> bool:
    """True if a pattern of `include` fits, or there is none, and no pattern of `exclude` does. A str is one pattern."""
    chosen = include is None or any(fnmatch(name, pattern) for pattern in _patterns(include))
    return chosen and not any(fnmatch(name, pattern) for pattern in _patterns(exclude))


def _patterns(patterns: str | Sequence[str] | None) -> Sequence[str]:
    return [patterns] if isinstance(patterns, str) else patterns or ()


def _name(file: FileRecord) -> str:
    """The name with folders where the storage path (bucket/dataset/object) has them, else the file name."""
    _, _, rest = (file.storage_path or "").partition("/")
    dataset, _, stored = rest.partition("/")
    named = stored.endswith(file.filename) and not stored.startswith("_files/")
    if (file.storage_backend or "gcs") == "gcs" and stored and dataset == file.dataset_mfid and named:
        return stored
    return file.filename


def _read_into(digest: hashlib._Hash, partial: Path) -> int:
    """Hash the bytes that are there already. Returns how many there are."""
    if not partial.exists():
        return 0
    present = 0
    for block in blocks(partial, 0, None):
        digest.update(block)
        present += len(block)
    return present


def _append(
    response: httpx.Response,
    partial: Path,
    digest: hashlib._Hash,
    present: int,
    record: FileRecord,
    progress: Progress | None,
) -> None:
    with partial.open("ab" if present else "wb") as file:
        for block in _no_more_than_recorded(response, present, record):
            file.write(block)
            digest.update(block)
            present += len(block)
            traffic.receive(len(block))
            if progress:
                progress(present, record.size)


def _no_more_than_recorded(response: httpx.Response, present: int, file: FileRecord) -> Iterator[bytes]:
    """The bytes as they come: joining them to larger blocks costs more than it saves. ChecksumError for too many."""
    for block in response.iter_raw():
        present += len(block)
        if file.size is not None and present > file.size:
            raise ChecksumError(
                f"{file.filename} ({file.mfid}) is longer than the recorded {file.size} bytes; nothing was kept"
            )
        yield block
