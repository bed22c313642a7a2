"""The folders in which steps are executed, one for each attempt: new ones, and emptied ones that are used again."""

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

MOST_EMPTY = 16  # chosen: as many as a machine runs steps at once


class Attempts:
    """The attempts in a folder. Thread-safe.

    Some file systems (ext4 without a journal) search long for the place of a new folder if many were just removed.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._empty: deque[tuple[frozenset[str], Path]] = deque()

    @contextmanager
    def folder(self, name: str, subfolders: Collection[str], turn: Path) -> Iterator[Path]:
        """Yield a folder with nothing but these subfolders, in use as long as `turn` is held.

        If the block fails it is kept for some days, so that one can look at what was left.
        """
        remove_old_work(private_folder(self._work))
        folder = self._work / f"{name}-{secrets.token_hex(4)}"
        places = frozenset(place for one in subfolders for place in _with_parents(one))
        if not self._used_again(places, folder):
            folder.mkdir(OWNER_FOLDER)
            for place in sorted(places):
                (folder / place).mkdir(OWNER_FOLDER)
        with in_use(folder, turn):
            yield folder
            self._give_back(places, folder)

    def close(self) -> None:
        """Remove the empty folders."""
        with self._lock:
            empty = [folder for _, folder in self._empty]
            self._empty.clear()
        for folder in empty:
            shutil.rmtree(folder, ignore_errors=True)

    def _used_again(self, places: frozenset[str], folder: Path) -> bool:
        with self._lock:
            found = next((one for one in self._empty if one[0] == places), None)
            if found is None:
                return False
            self._empty.remove(found)
        with suppress(OSError):  # another process has tidied up
            found[1].rename(folder)
            return True
        return False

    def _give_back(self, places: frozenset[str], folder: Path) -> None:
        if not _is_emptied(folder, "", places):
            remove_folder(folder)
            return
        with self._lock:
            self._empty.append((places, folder))
            old = self._empty.popleft()[1] if len(self._empty) > MOST_EMPTY else None
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)


def _with_parents(place: str) -> Iterator[str]:
    yield place
    yield from (parent.as_posix() for parent in PurePosixPath(place).parents if parent.name)


def _is_emptied(folder: Path, below: str, places: frozenset[str]) -> bool:
    """Remove all but these subfolders. Return False if they are not there any more as they were made."""
    try:
        return _emptied(folder, below, places) == len(places)
    except OSError:
        return False


def _emptied(folder: Path | str, below: str, places: frozenset[str]) -> int:
    found = 0
    for entry in list(os.scandir(folder)):
        place = f"{below}{entry.name}"
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)  # noqa: PTH108 (a Path for each of them costs as much as the call)
        elif place not in places:
            shutil.rmtree(entry.path)
        elif stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode) == OWNER_FOLDER:
            found += 1 + _emptied(entry.path, f"{place}/", places)
    return found
