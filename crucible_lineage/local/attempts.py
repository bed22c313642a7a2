"""Folders in which steps are executed, one per attempt, either new or emptied and reused."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import threading
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from crucible_lineage.disk import OWNER_FOLDER, private_folder
from crucible_lineage.local.usage import in_use, remove_folder, remove_old_work

MOST_EMPTY = 16  # chosen: about as many steps as a machine runs at once


class Attempts:
    """Folders of attempts within a folder. Thread-safe.

    Emptied folders are reused, since some file systems (ext4 without a journal) are slow to make a new folder after
    many were removed.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._empty: deque[tuple[frozenset[str], Path]] = deque()

    @contextmanager
    def folder(self, name: str, subfolders: Collection[str], turn: Path) -> Iterator[Path]:
        """Yield a folder with only these empty subfolders, marked as in use while the lock `turn` is held.

        If the block fails, the folder stays for some days, so that its content can be inspected.
        """
        remove_old_work(private_folder(self._work))
        folder = self._work / f"{name}-{secrets.token_hex(4)}"
        paths = frozenset(path for one in subfolders for path in _with_parents(one))
        if not self._reused(paths, folder):
            folder.mkdir(OWNER_FOLDER)
            for path in sorted(paths):
                (folder / path).mkdir(OWNER_FOLDER)
        with in_use(folder, turn):
            yield folder
            self._give_back(paths, folder)

    def close(self) -> None:
        """Remove the empty folders."""
        with self._lock:
            empty = [folder for _, folder in self._empty]
            self._empty.clear()
        for folder in empty:
            shutil.rmtree(folder, ignore_errors=True)

    def _reused(self, paths: frozenset[str], folder: Path) -> bool:
        with self._lock:
            entry = next((one for one in self._empty if one[0] == paths), None)
            if entry is None:
                return False
            self._empty.remove(entry)
        with suppress(OSError):  # another process has tidied up
            entry[1].rename(folder)
            return True
        return False

    def _give_back(self, paths: frozenset[str], folder: Path) -> None:
        if not _is_emptied(folder, "", paths):
            remove_folder(folder)
            return
        with self._lock:
            self._empty.append((paths, folder))
            old = self._empty.popleft()[1] if len(self._empty) > MOST_EMPTY else None
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)


def _with_parents(path: str) -> Iterator[str]:
    yield path
    yield from (parent.as_posix() for parent in PurePosixPath(path).parents if parent.name)


def _is_emptied(folder: Path, below: str, paths: frozenset[str]) -> bool:
    """Remove everything but these subfolders. Return False if one is missing or has other permissions."""
    try:
        return _emptied(folder, below, paths) == len(paths)
    except OSError:
        return False


def _emptied(folder: Path | str, below: str, paths: frozenset[str]) -> int:
    count = 0
    for entry in list(os.scandir(folder)):
        path = f"{below}{entry.name}"
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)  # noqa: PTH108 (a Path for each of them costs as much as the call)
        elif path not in paths:
            shutil.rmtree(entry.path)
        elif stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode) == OWNER_FOLDER:
            count += 1 + _emptied(entry.path, f"{path}/", paths)
    return count
