"""Files from storage to a folder: streamed, resumed, checked, and never outside the folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath, PureWindowsPath

import httpx

from crucible_lineage.checksums import blocks
from crucible_lineage.client.http.connection import read_answer
from crucible_lineage.client.models import FileRecord
from crucible_lineage.client.transfer.storage import Storage, storage_error
from crucible_lineage.disk import draft_beside
from crucible_lineage.errors import ChecksumError, InputError
from crucible_lineage.traffic import traffic

Progress = Callable[[int, int | None], None]
"""Called with the bytes received so far and the size of the file, if known."""


def fetch(storage: Storage, file: FileRecord, url: str, target: Path, progress: Progress | None = None) -> Path:
    """Download a file to `target` and return it.

    The bytes go to a draft beside `target`, which is renamed once its SHA-256 is the recorded one. A draft of an
    interrupted call is continued. ChecksumError, and nothing is kept, if the bytes are others or more than recorded.
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
        elif response.status_code != 416:  # 416: the partial file is complete or too long, as its checksum shows
            raise storage_error(read_answer(response, f"download {file.filename}"), f"download {file.filename}")
    if file.sha256_hash and digest.hexdigest() != file.sha256_hash:
        partial.unlink()
        raise ChecksumError(f"{file.filename} ({file.mfid}) has other bytes than recorded; nothing was kept")
    return partial.replace(target)


def fetch_bytes(storage: Storage, file: FileRecord, url: str) -> bytes:
    """Return the file's bytes, checked as by `fetch`."""
    with storage.stream(url, f"download {file.filename}", headers={}) as response:
        if response.status_code != 200:
            raise storage_error(read_answer(response, f"download {file.filename}"), f"download {file.filename}")
        content = b"".join(_bounded(response, 0, file))
    if file.sha256_hash and hashlib.sha256(content).hexdigest() != file.sha256_hash:
        raise ChecksumError(f"{file.filename} ({file.mfid}) has other bytes than recorded")
    return content


def local_path(folder: Path, file: FileRecord) -> Path:
    """Return the path of a file in `folder`. Raises InputError for a name that leads out of it."""
    name = _name(file)
    parts = PurePosixPath(name).parts
    windows = PureWindowsPath(name)
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or windows.drive or "\0" in name:
        raise InputError(f"file {file.mfid} is called {name!r}, which leads out of {folder}; nothing was written")
    return folder.joinpath(*parts)


def is_selected(name: str, include: str | Sequence[str] | None, exclude: str | Sequence[str] | None) -> bool:
    """Return whether a pattern of `include` matches, if any is given, and none of `exclude`. A str is one pattern."""
    included = include is None or any(fnmatch(name, pattern) for pattern in _patterns(include))
    return included and not any(fnmatch(name, pattern) for pattern in _patterns(exclude))


def _patterns(patterns: str | Sequence[str] | None) -> Sequence[str]:
    return [patterns] if isinstance(patterns, str) else patterns or ()


def _name(file: FileRecord) -> str:
    """Return the name with the folders of its storage path (bucket/dataset/object), if any, else the file name."""
    _, _, rest = (file.storage_path or "").partition("/")
    dataset, _, stored = rest.partition("/")
    has_name = stored.endswith(file.filename) and not stored.startswith("_files/")
    if file.has_bytes and stored and dataset == file.dataset_mfid and has_name:
        return stored
    return file.filename


def _read_into(digest: hashlib._Hash, partial: Path) -> int:
    """Hash the bytes that are there already and return their number."""
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
        for block in _bounded(response, present, record):
            file.write(block)
            digest.update(block)
            present += len(block)
            traffic.receive(len(block))
            if progress:
                progress(present, record.size)


def _bounded(response: httpx.Response, present: int, file: FileRecord) -> Iterator[bytes]:
    """Yield the bytes without buffering, which would cost more than it saves. Raises ChecksumError for too many."""
    for block in response.iter_raw():
        present += len(block)
        if file.size is not None and present > file.size:
            raise ChecksumError(
                f"{file.filename} ({file.mfid}) is longer than the recorded {file.size} bytes; nothing was kept"
            )
        yield block
