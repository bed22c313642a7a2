"""Files that programs and C libraries open in some folders, as reported by Linux (inotify), by any process.

The kernel does not report the process: something else on the machine may have opened a file at the same time.
Subfolders count one level deep. Nothing is seen on other systems, nor what another machine opens on a network file
system.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

MAX_FOLDERS = 64  # below each; more would be too slow for a step of 50 ms
MAX_ENTRIES = 1000  # of a folder that are searched for subfolders
MAX_FILES = 100
_OPEN, _MODIFY, _CLOSE_WRITE, _MOVED_TO, _CREATE = 0x20, 0x2, 0x8, 0x80, 0x100
_WRITTEN = _MODIFY | _CLOSE_WRITE | _MOVED_TO | _CREATE
_IS_FOLDER, _OVERFLOW = 0x40000000, 0x4000
_FLAGS = 0o4000 | 0o2000000  # not blocking, closed on exec
_EVENT = struct.Struct("iIII")
_below: dict[str, tuple[int, tuple[str, ...]]] = {}  # folder -> its modification time in ns, and its subfolders
_idle: dict[int, list[int]] = {}  # unused watches by process: closing one is too slow for a short step
_libc: Any = None


@contextmanager
def watching_folders(folders: Iterable[Path], but: Path) -> Iterator[list[Path]]:
    """Yield a list that gets, at the end of the block, the files in these folders that were opened and not written.

    Of the subfolders, those that contain `but`, where the step itself works, are not watched.
    """
    found: list[Path] = []
    watch = _start_watch(folders, but)
    if watch is None:
        yield found
        return
    number, folder_of = watch
    try:
        yield found
    finally:
        opened, written = _events(number, folder_of)
        _idle.setdefault(os.getpid(), []).append(number)
        found += sorted(path for path in map(Path, list(opened.keys() - written)[:MAX_FILES]) if path.is_file())


def get_ready() -> None:
    """Load the library for watches, so that no step waits for it."""
    _library()


def _start_watch(folders: Iterable[Path], but: Path) -> tuple[int, dict[int, str]] | None:
    """Return the number of the watch, and the folders by their numbers in it; None on other systems."""
    if (libc := _library()) is None:
        return None
    try:
        number = _idle[os.getpid()].pop()
    except (KeyError, IndexError):
        if (number := libc.inotify_init1(_FLAGS)) < 0:
            return None
    _events(number, {})  # discard old events
    watched = {}
    for folder in dict.fromkeys(each for top in folders for each in _with_subfolders(str(top), str(but))):
        mark = libc.inotify_add_watch(number, os.fsencode(folder), _OPEN | _WRITTEN)
        if mark >= 0:
            watched[mark] = folder
    return number, watched


def _library() -> Any:
    global _libc
    if _libc is None and sys.platform == "linux":
        import ctypes  # not needed in a process that calls no step

        with suppress(OSError, AttributeError):
            _libc = ctypes.CDLL(None, use_errno=True)
            _ = _libc.inotify_init1
    return _libc


def _with_subfolders(folder: str, but: str) -> Iterator[str]:
    """Yield the folder and its subfolders, without hidden ones, caches of Python, and the one that contains `but`."""
    yield folder
    with suppress(OSError):
        changed = os.stat(folder).st_mtime_ns  # noqa: PTH116 (once a step)
        if folder not in _below or _below[folder][0] != changed:
            with os.scandir(folder) as entries:
                first = islice(entries, MAX_ENTRIES)
                names = [one.path for one in first if one.name[0] not in "._" and one.is_dir(follow_symlinks=False)]
            _below[folder] = changed, tuple(sorted(names)[:MAX_FOLDERS])
        yield from (one for one in _below[folder][1] if not but.startswith(os.path.join(one, "")))  # noqa: PTH118


def _events(number: int, folders: dict[int, str]) -> tuple[dict[str, None], set[str]]:
    """Read the events of a watch; return the files that were opened, and those that were written."""
    opened: dict[str, None] = {}
    written: set[str] = set()
    while True:
        try:
            block = os.read(number, 1 << 16)
        except (BlockingIOError, InterruptedError):
            return opened, written
        offset = 0
        while offset < len(block):
            mark, mask, _, length = _EVENT.unpack_from(block, offset)
            name = block[offset + _EVENT.size : offset + _EVENT.size + length].rstrip(b"\0")
            offset += _EVENT.size + length
            if mask & (_IS_FOLDER | _OVERFLOW) or not name or mark not in folders:
                continue
            path = os.path.join(folders[mark], os.fsdecode(name))  # noqa: PTH118 (thousands of them)
            if mask & _WRITTEN:
                written.add(path)
            if mask & _OPEN:
                opened[path] = None
