"""The id and content of a data folder: what is in use, how much space it takes, and what nothing needs.

A lock beside a folder marks it as in use, and ends with the process, however that ends.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from crucible_lineage.core.file_cache import UNFINISHED
from crucible_lineage.machine.disk import OWNER_FOLDER, private_file, private_folder

KEPT_DAYS = 14  # chosen: how long the files of a failed or killed attempt can be inspected
MARK = ".in-use"
ENDING_S = 5.0  # chosen: how long a process that was ended may still write
PARTS = {"cache": "cache", "work": "work", "environments": "environments", "records": "", "crucible": "crucible"}


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
    begun = [path for path in sorted((data / "outbox").glob("*/.*")) if _last_change(path) < yesterday]
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
