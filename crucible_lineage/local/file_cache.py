"""A content-addressed cache of files: each stored once under its SHA-256, shared by processes, never half-written.

Its size is bounded: what was not used for longest goes first, and never what a step is working with.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crucible_lineage.checksums import FileChecksums, blocks, require_unchanged
from crucible_lineage.errors import ChecksumError, InputError

__all__ = ["DEFAULT_LIMIT_BYTES", "FileCache", "limit_from_environment"]

DEFAULT_LIMIT_BYTES = 20 << 30
LIMIT_VARIABLE = "CRUCIBLE_LINEAGE_CACHE_GB"
_CHECKED_EVERY = 1 / 20  # of the limit that came in: looking through the folder costs time too


def limit_from_environment() -> int:
    """How many bytes the cache may hold: CRUCIBLE_LINEAGE_CACHE_GB, or 20 GiB."""
    text = os.environ.get(LIMIT_VARIABLE)
    if text is None:
        return DEFAULT_LIMIT_BYTES
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = -1.0
    if gigabytes < 0:
        raise InputError(f"{LIMIT_VARIABLE} is {text!r}; give the size of the cache in gigabytes, as in 20")
    return int(gigabytes * (1 << 30))


class FileCache:
    """Files by their SHA-256, in a folder of at most `limit_bytes` (files in use may exceed it for a while)."""

    def __init__(self, folder: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._came_in = limit_bytes  # the first file looks at what is there from before

    def path(self, sha256: str) -> Path:
        """Where the file with this hash lies, or would lie."""
        return self.folder / sha256[:2] / sha256

    def add(self, source: Path, sha256: str) -> Path:
        """The cached copy of a file whose hash is known; ChecksumError if its bytes are others by now."""
        return self.get(sha256, lambda target: _copy(source, target))

    def take(self, source: Path, checksums: FileChecksums) -> Path:
        """The file itself, moved here without being read again. FileChangedError if it was written to since then."""
        target = self.path(checksums.sha256)
        if not target.exists():
            require_unchanged(source, checksums)
            with self._part() as part:
                shutil.move(source.resolve(), part)  # a step may have left a link to another of its files
                return self._keep(part, target)
        _touch(target)
        return target

    def receive(self, fetch: Callable[[Path], str]) -> Path:
        """The cached copy of a file whose hash is found while it comes: `fetch` writes it and says what it is."""
        with self._part() as part:
            target = self.path(fetch(part))
            return target if target.exists() else self._keep(part, target)

    def get(self, sha256: str, fetch: Callable[[Path], str]) -> Path:
        """The cached file with this hash. If it is not there yet, `fetch` writes it and says what SHA-256 it has."""
        target = self.path(sha256)
        if target.exists():
            _touch(target)
            return target
        with self._part() as part:
            if (arrived := fetch(part)) != sha256:
                raise ChecksumError(f"a file with SHA-256 {sha256} was asked for, {arrived} came; it was not kept")
            return self._keep(part, target)

    @contextmanager
    def _part(self) -> Iterator[Path]:
        """A file to be written, in the cache's file system; gone afterwards unless it was kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".part-")
        os.close(handle)
        part = Path(name)
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)

    def _keep(self, part: Path, target: Path) -> Path:
        """The part stands under its name, read-only, and the cache is within its size."""
        target.parent.mkdir(parents=True, exist_ok=True)
        part.chmod(0o444)
        part.replace(target)
        self._came_in += target.stat().st_size
        if self._came_in >= self.limit_bytes * _CHECKED_EVERY:
            self._came_in = 0
            self._shrink(spared=target)
        return target

    def evict(self, sha256: str) -> None:
        """The file with this hash is fetched again when it is next asked for."""
        self.path(sha256).unlink(missing_ok=True)

    def place(self, sha256: str, target: Path) -> None:
        """The cached file also stands at `target`: a hard link, or a copy where links are not possible."""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(self.path(sha256))
        except OSError:
            shutil.copyfile(self.path(sha256), target)

    def _shrink(self, spared: Path) -> None:
        """The cache is within its limit: what was not used for longest is gone, but not what a step has linked."""
        files = sorted(
            (max(found.st_atime_ns, found.st_mtime_ns), found.st_size, path)
            for path in self.folder.glob("??/[0-9a-f]*")
            if (found := _stat(path)) is not None and found.st_nlink == 1
        )
        excess = sum(size for _, size, _ in files) - self.limit_bytes
        for _, size, path in files:
            if excess <= 0:
                break
            if path != spared:
                path.unlink(missing_ok=True)
                excess -= size


def _copy(source: Path, target: Path) -> str:
    """The SHA-256 of the bytes that were copied: they are read once."""
    digest = hashlib.sha256()
    with target.open("wb", buffering=0) as stream:
        for block in blocks(source, 0, None):
            digest.update(block)
            stream.write(block)
    return digest.hexdigest()


def _touch(path: Path) -> None:
    """It was used just now: its time of access says so. That of its content stays, since steps watch it."""
    with suppress(OSError):  # another user's file: it stays as old as it is
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # another process was faster
        return None
