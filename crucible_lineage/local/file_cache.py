"""A content-addressed cache of files: each stored once under its SHA-256, shared by processes, never half-written.

What it gives out is checked by hash, once in each process while the file stands as it was. A step is given a copy of
its own, so that no step can write into the cache: where the file system shares blocks between files that costs nothing,
elsewhere less than to read the file twice (docs/benchmarks.md has the figures). Its size is bounded: what was not used
for longest goes first.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crucible_lineage.checksums import FileChecksums, file_sha256, require_unchanged
from crucible_lineage.disk import private_folder, storage_error
from crucible_lineage.errors import ChecksumError, FileChangedError, InputError

DEFAULT_LIMIT_BYTES = 20 << 30
LIMIT_VARIABLE = "CRUCIBLE_LINEAGE_CACHE_GB"
_CHECKED_EVERY = 1 / 20  # of the limit that came in: looking through the folder costs time too
_USED_AGAIN_S = 3600  # chosen: when a file was used is known to the hour

Fetch = Callable[[Path], str]  # writes a file, and says what SHA-256 it has
_Mark = tuple[int, int, int, int]  # size, modification and change of state in ns, inode: any write moves one of them


def limit_from_environment() -> int:
    """Return how many bytes the cache may hold: CRUCIBLE_LINEAGE_CACHE_GB, or 20 GiB."""
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
    """Files by their SHA-256, in a folder of at most `limit_bytes` (the newest file may exceed it)."""

    def __init__(self, folder: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._came_in = limit_bytes  # the first file looks at what is there from before
        self._hashed: dict[str, _Mark] = {}  # files whose bytes this process has hashed, as they stood then

    def path(self, sha256: str) -> Path:
        """Where the file with this hash lies, or would lie."""
        return self.folder / sha256[:2] / sha256

    def holds(self, sha256: str) -> bool:
        """True if the file is there and has this hash. One that is damaged is gone afterwards."""
        mark = _mark(self.path(sha256))
        if mark is None:
            return False
        if self._hashed.get(sha256) != mark and file_sha256(self.path(sha256)) != sha256:
            self.evict(sha256)
            return False
        self._hashed[sha256] = mark
        self._touch(sha256)
        return True

    def is_damaged(self, sha256: str) -> bool:
        """True if there is a file under this hash that has another one. It stays as it is."""
        return self.path(sha256).exists() and file_sha256(self.path(sha256)) != sha256

    def add(self, source: Path, sha256: str) -> Path:
        """The cached copy of a file whose hash is known; ChecksumError if its bytes are others by now."""

        def copy(target: Path) -> str:
            _copy(source, target)
            return file_sha256(target)

        return self.get(sha256, copy)

    def take(self, source: Path, checksums: FileChecksums) -> Path:
        """The file itself, moved here without being read again. FileChangedError if it was written to since then.

        One that something still has open for writing is copied.
        """
        if not self.holds(checksums.sha256):
            require_unchanged(source, checksums)
            with self._part() as part:
                shutil.move(source.resolve(), part)  # a step may have left a link to another of its files
                if _is_open_for_writing(part):
                    try:
                        return self.add(part, checksums.sha256)
                    except ChecksumError as error:
                        raise FileChangedError(f"{source} changed while it was read, and is not kept") from error
                return self._keep(part, checksums.sha256)
        return self.path(checksums.sha256)

    def receive(self, fetch: Fetch) -> Path:
        """The cached copy of a file whose hash is found while it comes: `fetch` writes it and says what it is."""
        with self._part() as part:
            sha256 = fetch(part)
            return self.path(sha256) if self.holds(sha256) else self._keep(part, sha256)

    def get(self, sha256: str, fetch: Fetch) -> Path:
        """The cached file with this hash. If it is not there, or damaged, `fetch` writes it and says what it has."""
        return self.path(sha256) if self.holds(sha256) else self._fetched(sha256, fetch)

    def place(self, sha256: str, target: Path, fetch: Fetch) -> bool:
        """`target` is a file of its own with these bytes. True if the cached one was damaged, and fetched once more.

        The bytes are hashed as they stand in the copy, unless this process hashed them before and nothing was written
        since.
        """
        damaged = False
        for _ in range(3):  # other processes may take away what is not used for long
            mark = _mark(self.path(sha256))
            if mark is None:
                self._fetched(sha256, fetch)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                _copy(self.path(sha256), target)
                known = self._hashed.get(sha256) == mark == _mark(self.path(sha256))
                if known or file_sha256(target) == sha256:
                    target.chmod(stat.S_IRUSR)
                    self._hashed[sha256] = mark
                    self._touch(sha256)
                    return damaged
                damaged = True
                self.evict(sha256)
        raise ChecksumError(
            f"the file with SHA-256 {sha256} does not stay in {self.folder}: files there are changed or removed "
            "at once; check what else writes to that folder, and to that disk"
        )

    def evict(self, sha256: str) -> None:
        """The file with this hash is fetched again when it is next asked for."""
        self._hashed.pop(sha256, None)
        self.path(sha256).unlink(missing_ok=True)

    def _fetched(self, sha256: str, fetch: Fetch) -> Path:
        with self._part() as part:
            if (arrived := fetch(part)) != sha256:
                raise ChecksumError(f"a file with SHA-256 {sha256} was asked for, {arrived} came; it was not kept")
            return self._keep(part, sha256)

    @contextmanager
    def _part(self) -> Iterator[Path]:
        """A name for a file in the cache's file system; gone afterwards unless it was kept."""
        private_folder(self.folder)
        part = self.folder / f".part-{secrets.token_hex(8)}"
        try:
            yield part
        except OSError as error:
            raise storage_error(error, self.folder) or error from error
        finally:
            part.unlink(missing_ok=True)

    def _keep(self, part: Path, sha256: str) -> Path:
        """The part stands under its name, read-only, its bytes on the disk, and the cache is within its size."""
        target = self.path(sha256)
        private_folder(target.parent)
        part.chmod(stat.S_IRUSR | stat.S_IWUSR)  # a step may have left it as it liked
        _flush(part)
        part.chmod(stat.S_IRUSR)
        part.replace(target)
        _flush_folder(target.parent)
        if mark := _mark(target):
            self._hashed[sha256] = mark
            self._came_in += mark[0]
        if self._came_in >= self.limit_bytes * _CHECKED_EVERY:
            self._came_in = 0
            self._shrink(spared=target)
        return target

    def _touch(self, sha256: str) -> None:
        """Set the file's time of access to now, if that is news. The file counts as hashed all the same."""
        path = self.path(sha256)
        with suppress(OSError):  # another user's file: it stays as old as it is
            found = path.stat()
            if time.time() - found.st_atime > _USED_AGAIN_S:
                os.utime(path, ns=(time.time_ns(), found.st_mtime_ns))
                if mark := _mark(path):
                    self._hashed[sha256] = mark

    def _shrink(self, spared: Path) -> None:
        """The cache is within its limit: what was not used for longest is gone."""
        files = sorted(
            (max(found.st_atime_ns, found.st_mtime_ns), found.st_size, path)
            for path in self.folder.glob("??/[0-9a-f]*")
            if (found := _stat(path)) is not None
        )
        excess = sum(size for _, size, _ in files) - self.limit_bytes
        for _, size, path in files:
            if excess <= 0:
                break
            if path != spared:
                path.unlink(missing_ok=True)
                excess -= size


def _copy(source: Path, target: Path) -> None:
    """The file has the same bytes, for its owner to read: copied by the system, which shares blocks where it can."""
    with source.open("rb", buffering=0) as given, os.fdopen(_created(target), "wb", buffering=0) as taken:
        if hasattr(os, "copy_file_range"):
            with suppress(OSError):  # not between these two file systems
                while os.copy_file_range(given.fileno(), taken.fileno(), 1 << 30):
                    pass
            if given.tell() == os.fstat(given.fileno()).st_size:  # some file systems say at once that this was all
                return
        given.seek(0)
        taken.seek(0)
        shutil.copyfileobj(given, taken, 1 << 20)


def _created(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        path.unlink()
        return os.open(path, flags, 0o600)


def _flush(path: Path) -> None:
    with path.open("r+b") as stream:
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _is_open_for_writing(path: Path) -> bool:
    """True unless it is sure that nothing can write into the file any more: Linux leases it to readers only then."""
    if os.name != "posix":
        return False  # Windows moves no file that is open
    import fcntl

    if not hasattr(fcntl, "F_SETLEASE"):
        return True
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:  # something has it open, or this file system leases nothing
        return True
    finally:
        os.close(handle)
    return False


def _mark(path: Path) -> _Mark | None:
    found = _stat(path)
    return None if found is None else (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # another process was faster
        return None
