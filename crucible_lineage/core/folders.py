"""The id and content of a data folder: what is in use, its size, what nothing needs, and its cache of files.

A lock beside a folder marks it as in use, and ends with the process, however that ends.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from crucible_lineage.errors import ChecksumError, FileChangedError, InputError
from crucible_lineage.machine.checksums import FileChecksums, file_sha256, require_unchanged
from crucible_lineage.machine.disk import (
    OWNER_FOLDER,
    flush,
    is_being_written,
    private_file,
    private_folder,
    storage_error,
)

KEPT_DAYS = 14  # chosen: how long the files of a failed or killed attempt can be inspected
MARK = ".in-use"
ASIDE = ".aside-"  # begins the name of a result that was damaged in the outbox, and is freed only by name
ENDING_S = 5.0  # chosen: how long a process that was ended may still write
PARTS = {"cache": "cache", "work": "work", "environments": "environments", "records": "", "crucible": "crucible"}
DEFAULT_LIMIT_BYTES = 20 << 30
UNFINISHED = ".part-"  # begins the name of a file that is still being written
SHARED_BYTES = 16 << 20  # chosen: of a smaller file, a second copy is cheap, and repairs the first
LIMIT_VARIABLE = "CRUCIBLE_LINEAGE_CACHE_GB"
_CHECKED_EVERY = 1 / 20  # of the limit, in bytes added: listing the folder takes time
_FICLONE = 0x40049409  # of Linux: the file gets the blocks of another one, and its own when it is written
_USED_AGAIN_S = 3600  # chosen: precision of the last use

Fetch = Callable[[Path], str]  # writes a file, and returns its SHA-256
_Mark = tuple[int, int, int, int]  # size, modification and change of state in ns, inode: any write changes one of them


@dataclass(frozen=True)
class Leftover:
    """Something in a data folder that nothing needs, with a description."""

    path: Path
    kind: str
    bytes: int


def machine_id(data: Path) -> str:
    """Return the id of this data folder. Locks keep registrations within it apart, and the id those of others."""
    path = data / "registrar"
    if not path.exists():
        private_folder(data)
        private_file(path, secrets.token_hex(8).encode())
    return path.read_text(encoding="utf-8")


@contextmanager
def in_use(path: Path, held: Path | None = None) -> Iterator[None]:
    """Mark `path` as in use during this block, by a lock of its own or a link to `held`, until this process ends."""
    try:
        if held is not None and _linked(held, _mark(path)):
            yield
            return
        from filelock import FileLock  # a plan does not need it

        with FileLock(_mark(path), mode=0o600):
            yield
    finally:
        _mark(path).unlink(missing_ok=True)


def _linked(held: Path, mark: Path) -> bool:
    """Link the mark to a lock. Return False if the file system has no links."""
    try:
        mark.hardlink_to(held)
    except OSError:
        return False
    return True


def is_in_use(path: Path) -> bool:
    """Return whether a living process has marked `path` as in use."""
    from filelock import FileLock, Timeout

    if not _mark(path).exists():
        return False
    try:
        with FileLock(_mark(path), timeout=0):
            return False
    except Timeout:
        return True


def runs(data: Path) -> Path:
    """Return the folder with the marks of active runs, by their ids."""
    return private_folder(data / "runs")


def disk_usage(data: Path) -> dict[str, int]:
    """Return bytes on disk by part: copies of files, attempts, environments, embedded Crucible, records (the rest).

    A file that the embedded Crucible shares with the cache counts there.
    """
    files = {name: _files(data / folder) for name, folder in PARTS.items()}
    files["cache"] = {inode: size for inode, size in files["cache"].items() if inode not in files["crucible"]}
    used = {name: sum(sizes.values()) for name, sizes in files.items()}
    used["records"] -= sum(size for name, size in used.items() if name != "records")
    return used


def leftovers(data: Path, *, copies: bool = False) -> list[Leftover]:
    """List what nothing needs; with `copies`, also what Crucible has, unless an active process may need it."""
    work = [folder for folder in _folders(data / "work") if not is_in_use(folder)]
    unneeded = [Leftover(folder, "what a step left that failed or was killed", _size(folder)) for folder in work]
    run_marks = sorted((data / "runs").glob(f"*{MARK}"))
    marks = [path for path in run_marks if not is_in_use(path.with_suffix(""))]
    unneeded += [Leftover(path, "the mark of a run that was cut short", 0) for path in marks]
    yesterday = time.time() - 86_400  # long after a process wrote or removed them
    hidden = (path for path in sorted((data / "outbox").glob("*/.*")) if not path.name.startswith(ASIDE))
    begun = [path for path in hidden if _last_change(path) < yesterday]
    unneeded += [Leftover(path, "what a killed process kept in part", _size(path)) for path in begun]
    idle = len(work) == len(list(_folders(data / "work"))) and len(marks) == len(run_marks)
    if copies and idle:
        mirrors = sorted((data / "mirror").glob("*.sqlite"))
        unneeded += [Leftover(path, "what was read of a Crucible", _size(path)) for path in mirrors]
        copied = (*_folders(data / "cache"), *sorted((data / "cache").glob(f"{UNFINISHED}*")))
        unneeded += [Leftover(path, "copies of files", _size(path)) for path in copied]
        built = _folders(data / "environments")
        unneeded += [Leftover(path, "an environment in which results were made again", _size(path)) for path in built]
    return unneeded


def remove(leftover: Leftover) -> None:
    """Remove a leftover. Raises OSError if that is impossible."""
    if leftover.path.is_dir():
        remove_folder(leftover.path)
        return
    for path in (leftover.path, *(leftover.path.with_name(leftover.path.name + end) for end in ("-wal", "-shm"))):
        path.unlink(missing_ok=True)


@cache
def remove_old_work(work: Path) -> None:
    """Remove folders of attempts older than `KEPT_DAYS` that are not in use. Done once per process."""
    oldest = time.time() - KEPT_DAYS * 86_400
    for folder in _folders(work):
        if folder.stat().st_mtime < oldest and _last_change(folder) < oldest and not is_in_use(folder):
            with suppress(OSError):  # of another user, or already removed
                remove_folder(folder)


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}{MARK}")


def _folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in sorted(folder.iterdir()) if path.is_dir())


def remove_folder(folder: Path) -> None:
    """Remove a folder with its content and its mark, also while a process that ends still adds a file."""
    if os.name == "nt":  # Windows refuses to remove read-only files
        for path in folder.rglob("*"):
            path.chmod(stat.S_IWRITE)
    end = time.monotonic() + ENDING_S
    while True:
        try:
            shutil.rmtree(folder)
            break
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or time.monotonic() > end:
                raise
            time.sleep(0.05)
    with suppress(OSError):  # Windows: the lock is still held
        _mark(folder).unlink(missing_ok=True)


def _entries(path: Path) -> Iterator[os.stat_result]:
    for entry in (path, *path.rglob("*")) if path.is_dir() else (path,):
        with suppress(OSError):  # already removed
            yield entry.lstat()


def _size(path: Path) -> int:
    """Return the bytes that removing a file or folder frees: none of a file that has another name."""
    return sum(info.st_size for info in _entries(path) if stat.S_ISREG(info.st_mode) and info.st_nlink == 1)


def _files(path: Path) -> dict[tuple[int, int], int]:
    """Return the size of each file, however many names it has."""
    return {(info.st_dev, info.st_ino): info.st_size for info in _entries(path) if stat.S_ISREG(info.st_mode)}


def _last_change(folder: Path) -> float:
    return max((info.st_mtime for info in _entries(folder)), default=0.0)


@contextmanager
def attempt_folder(work: Path, name: str, subfolders: Collection[str], turn: Path) -> Iterator[Path]:
    """Yield a new folder in `work`, in use while `turn` is held; it stays for some days if the block fails."""
    remove_old_work(private_folder(work))
    folder = work / f"{name}-{secrets.token_hex(4)}"
    needed = {folder / parent for path in subfolders for parent in _with_parents(path)}
    for path in (folder, *sorted(needed)):
        path.mkdir(OWNER_FOLDER)
    with in_use(folder, turn):
        yield folder
        remove_folder(folder)


def _with_parents(path: str) -> Iterator[str]:
    yield path
    yield from (parent.as_posix() for parent in PurePosixPath(path).parents if parent.name)


# The cache of files is content-addressed: each stored once under its SHA-256, shared by processes, never half-written.
#
# Files are checked by hash, once per process unless they change. Each step receives its own copy, so that no step can
# write into the cache. That costs nothing if the file system shares blocks between files, else less than reading the
# file twice (docs/benchmarks.md has the figures). The size is bounded: the least recently used files are removed first.
#
# A large file that the embedded Crucible of the data folder stores is not stored again: the cache shares its blocks, or
# its inode, which nobody may write. A file that somebody else owns is never shared: its owner may write into it.


def limit_from_environment() -> int:
    """Return the limit of the cache in bytes: CRUCIBLE_LINEAGE_CACHE_GB, or 20 GiB."""
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
    """Files by their SHA-256, in a folder of at most `limit_bytes` (the newest file may exceed it).

    `stored` returns the path at which the embedded Crucible of the same data folder stores the file with a hash.
    """

    def __init__(
        self, folder: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES, stored: Callable[[str], Path] | None = None
    ) -> None:
        self.folder = folder
        self._stored = stored
        self.limit_bytes = limit_bytes
        self._added = limit_bytes  # so that the first file triggers a check
        self._hashed: dict[str, _Mark] = {}  # files that this process has hashed, with their marks then

    def path(self, sha256: str) -> Path:
        """Return the path of the file with this hash, whether it exists or not."""
        return self.folder / sha256[:2] / sha256

    def holds(self, sha256: str) -> bool:
        """Return whether the file exists and has this hash. A damaged one is removed."""
        mark = _mark_of(self.path(sha256))
        if mark is None:
            return False
        if self._hashed.get(sha256) != mark and file_sha256(self.path(sha256)) != sha256:
            self.evict(sha256)
            return False
        self._hashed[sha256] = mark
        self._touch(sha256)
        return True

    def is_damaged(self, sha256: str) -> bool:
        """Return whether the file under this hash has other bytes, without removing it."""
        return self.path(sha256).exists() and file_sha256(self.path(sha256)) != sha256

    def add(self, source: Path, sha256: str) -> Path:
        """Return the cached copy of a file with this hash. Raises ChecksumError if the file has another one."""

        def copy(target: Path) -> str:
            _copy(source, target)
            return file_sha256(target)

        return self.get(sha256, copy)

    def take(self, source: Path, checksums: FileChecksums) -> Path:
        """Move a file into the cache unread, or copy one that is open. FileChangedError if it has changed."""
        if not self.holds(checksums.sha256):
            require_unchanged(source, checksums)
            with self._part() as part:
                shutil.move(source.resolve(), part)  # a step may have left a link to another of its files
                if is_being_written(part) is not False:
                    try:
                        return self.add(part, checksums.sha256)
                    except ChecksumError as error:
                        raise FileChangedError(f"{source} changed while it was read, and is not kept") from error
                return self._keep(part, checksums.sha256)
        return self.path(checksums.sha256)

    def receive(self, fetch: Fetch) -> Path:
        """Return the cached copy of a file that `fetch` writes, which returns its hash."""
        with self._part() as part:
            sha256 = fetch(part)
            return self.path(sha256) if self.holds(sha256) else self._keep(part, sha256)

    def get(self, sha256: str, fetch: Fetch) -> Path:
        """Return the cached file with this hash; `fetch` writes it if it is missing or damaged."""
        return self.path(sha256) if self.holds(sha256) else self._fetched(sha256, fetch)

    def copy_to(self, sha256: str, target: Path, fetch: Fetch) -> bool:
        """Copy the file to `target`. Return whether the cached one was damaged and had to be fetched again."""
        damaged = False
        for _ in range(3):  # other processes may remove files that were not used for long
            mark = _mark_of(self.path(sha256))
            if mark is None:
                self._fetched(sha256, fetch)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                _copy(self.path(sha256), target)
                is_hashed = self._hashed.get(sha256) == mark == _mark_of(self.path(sha256))
                if is_hashed or file_sha256(target) == sha256:
                    target.chmod(stat.S_IRUSR)
                    self._hashed[sha256] = mark
                    self._touch(sha256)
                    return damaged
                damaged = True
                self.evict(sha256)
        raise ChecksumError(
            f"the file with SHA-256 {sha256} cannot be kept in {self.folder}: files there change or disappear "
            "immediately; check which other programs write to that folder or disk"
        )

    def share(self, sha256: str) -> None:
        """Replace the copy of a large file by the bytes that the embedded Crucible stores, if it does."""
        with self._part() as part:
            if self._shared(sha256, part):
                self._keep(part, sha256)

    def evict(self, sha256: str) -> None:
        """Remove the file with this hash."""
        self._hashed.pop(sha256, None)
        self.path(sha256).unlink(missing_ok=True)

    def _fetched(self, sha256: str, fetch: Fetch) -> Path:
        with self._part() as part:
            if not self._shared(sha256, part) and (received := fetch(part)) != sha256:
                raise ChecksumError(f"a file with SHA-256 {sha256} was requested, {received} came; it was not kept")
            return self._keep(part, sha256)

    def _shared(self, sha256: str, part: Path) -> bool:
        """Let `part` have the bytes that the embedded Crucible stores; return whether these are large and right."""
        stored = self._stored(sha256) if self._stored else None
        info = None if stored is None else _stat(stored)
        if stored is None or info is None or info.st_size < SHARED_BYTES:
            return False
        try:
            if not _clone(stored, part):
                part.hardlink_to(stored)
        except OSError:  # another file system, or one without links
            return False
        if file_sha256(part) == sha256:
            return True
        part.unlink()
        return False

    @contextmanager
    def _part(self) -> Iterator[Path]:
        """Yield the path of a new file in the cache's file system, which is removed afterwards unless it was kept."""
        private_folder(self.folder)
        part = self.folder / f"{UNFINISHED}{secrets.token_hex(8)}"
        try:
            yield part
        except OSError as error:
            raise storage_error(error, self.folder) or error from error
        finally:
            part.unlink(missing_ok=True)

    def _keep(self, part: Path, sha256: str) -> Path:
        """Move a complete part to its path, read-only and flushed to disk, and shrink the cache to its limit."""
        target = self.path(sha256)
        private_folder(target.parent)
        part.chmod(stat.S_IRUSR | stat.S_IWUSR)  # a step may have changed the permissions
        flush(part)
        part.chmod(stat.S_IRUSR)
        part.replace(target)
        flush(target.parent)
        if mark := _mark_of(target):
            self._hashed[sha256] = mark
            self._added += mark[0]
        if self._added >= self.limit_bytes * _CHECKED_EVERY:
            self._added = 0
            files = sorted(  # the least recently used first
                (max(info.st_atime_ns, info.st_mtime_ns), info.st_size, path)
                for path in self.folder.glob("??/[0-9a-f]*")
                if (info := _stat(path)) is not None and info.st_nlink == 1  # removing the others frees nothing
            )
            excess = sum(size for _, size, _ in files) - self.limit_bytes
            for _, size, path in files:
                if excess > 0 and path != target:
                    path.unlink(missing_ok=True)
                    excess -= size
        return target

    def _touch(self, sha256: str) -> None:
        """Set the file's time of access to now if it is old. The file still counts as hashed."""
        path = self.path(sha256)
        with suppress(OSError):  # of another user: its time stays
            info = path.stat()
            if time.time() - info.st_atime > _USED_AGAIN_S:
                os.utime(path, ns=(time.time_ns(), info.st_mtime_ns))
                if mark := _mark_of(path):
                    self._hashed[sha256] = mark


def _clone(source: Path, target: Path) -> bool:
    """Make a file that shares the blocks of another; return whether the file system can."""
    if sys.platform != "linux":
        return False
    import fcntl

    with source.open("rb") as reader, os.fdopen(_created(target), "wb") as writer:
        with suppress(OSError):
            fcntl.ioctl(writer, _FICLONE, reader.fileno())
            return True
    target.unlink()
    return False


def _copy(source: Path, target: Path) -> None:
    """Copy a file, readable by its owner only. The system shares blocks where it can."""
    with source.open("rb", buffering=0) as reader, os.fdopen(_created(target), "wb", buffering=0) as writer:
        if hasattr(os, "copy_file_range"):
            with suppress(OSError):  # not between these two file systems
                while os.copy_file_range(reader.fileno(), writer.fileno(), 1 << 30):
                    pass
            if reader.tell() == os.fstat(reader.fileno()).st_size:  # some file systems copy nothing, without an error
                return
        reader.seek(0)
        writer.seek(0)
        shutil.copyfileobj(reader, writer, 1 << 20)


def _created(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        path.unlink()
        return os.open(path, flags, 0o600)


def _mark_of(path: Path) -> _Mark | None:
    info = _stat(path)
    return None if info is None else (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # another process was faster
        return None
