"""Files that programs and C libraries open in some folders, as Linux tells it (inotify), whoever opens them.

The kernel does not say which process did so; something else on the machine may have opened a file at the same time.
Subfolders count one level deep. On other systems nothing is seen, and nothing that another machine opens on a network
file system.
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

MOST_FOLDERS = 64  # below each; more would cost a step of 50 ms too much
MOST_ENTRIES = 1000  # among which these are looked for
MOST_FILES = 100
_OPEN, _MODIFY, _CLOSE_WRITE, _MOVED_TO, _CREATE = 0x20, 0x2, 0x8, 0x80, 0x100
_WRITTEN = _MODIFY | _CLOSE_WRITE | _MOVED_TO | _CREATE
_IS_FOLDER, _OVERFLOW = 0x40000000, 0x4000
_FLAGS = 0o4000 | 0o2000000  # not blocking, closed on exec
_EVENT = struct.Struct("iIII")
_below: dict[str, tuple[int, tuple[str, ...]]] = {}  # folder -> its modification time in ns, and its subfolders
_idle: dict[int, list[int]] = {}  # by process, watches that nobody uses: closing one takes longer than a step may cost
_libc: Any = None


@contextmanager
def watching_folders(folders: Iterable[Path], but: Path) -> Iterator[list[Path]]:
    """At the end of the block the list holds the files in these folders that were opened and not written.

    Nothing is listed in folders that hold `but`, which is where the step itself works, other than the folders given.
    """
    found: list[Path] = []
    watch = _started(folders, but)
    if watch is None:
        yield found
        return
    number, places = watch
    try:
        yield found
    finally:
        opened, written = _events(number, places)
        _idle.setdefault(os.getpid(), []).append(number)
        found += sorted(path for path in map(Path, list(opened.keys() - written)[:MOST_FILES]) if path.is_file())


def get_ready() -> None:
    """Load what a watch needs, so that no step waits for it."""
    _library()


def _started(folders: Iterable[Path], but: Path) -> tuple[int, dict[int, str]] | None:
    """The number of the watch, and the folders by their numbers in it; None where there can be none."""
    if (libc := _library()) is None:
        return None
    try:
        number = _idle[os.getpid()].pop()
    except (KeyError, IndexError):
        if (number := libc.inotify_init1(_FLAGS)) < 0:
            return None
    _events(number, {})  # what happened while nobody asked
    places = {}
    for folder in dict.fromkeys(place for one in folders for place in _with_below(str(one), str(but))):
        mark = libc.inotify_add_watch(number, os.fsencode(folder), _OPEN | _WRITTEN)
        if mark >= 0:
            places[mark] = folder
    return number, places


def _library() -> Any:
    global _libc
    if _libc is None and sys.platform == "linux":
        import ctypes  # a process that calls no step needs none

        with suppress(OSError, AttributeError):
            _libc = ctypes.CDLL(None, use_errno=True)
            _ = _libc.inotify_init1
    return _libc


def _with_below(folder: str, but: str) -> Iterator[str]:
    """The folder and those in it, without hidden ones, caches of Python, and the one that `but` lies in."""
    yield folder
    with suppress(OSError):
        changed = os.stat(folder).st_mtime_ns  # noqa: PTH116 (once a step)
        if folder not in _below or _below[folder][0] != changed:
            with os.scandir(folder) as entries:
                first = islice(entries, MOST_ENTRIES)
                names = [one.path for one in first if one.name[0] not in "._" and one.is_dir(follow_symlinks=False)]
            _below[folder] = changed, tuple(sorted(names)[:MOST_FOLDERS])
        yield from (one for one in _below[folder][1] if not but.startswith(os.path.join(one, "")))  # noqa: PTH118


def _events(number: int, places: dict[int, str]) -> tuple[dict[str, None], set[str]]:
    """The files that were opened, and those that were written."""
    opened: dict[str, None] = {}
    written: set[str] = set()
    while True:
        try:
            block = os.read(number, 1 << 16)
        except (BlockingIOError, InterruptedError):
            return opened, written
        at = 0
        while at < len(block):
            mark, mask, _, length = _EVENT.unpack_from(block, at)
            name = block[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0")
            at += _EVENT.size + length
            if mask & (_IS_FOLDER | _OVERFLOW) or not name or mark not in places:
                continue
            path = os.path.join(places[mark], os.fsdecode(name))  # noqa: PTH118 (thousands of them)
            if mask & _WRITTEN:
                written.add(path)
            if mask & _OPEN:
                opened[path] = None
