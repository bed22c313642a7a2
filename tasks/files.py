"""Files of a call: those at the paths in its arguments, those that it opens, and those that it has written there."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from crucible_lineage.masking import is_key_file
from crucible_lineage.tasks.description import TaskDescription
from crucible_lineage.tasks.secret import holds_secret

MOST_INPUTS = 200  # files of one folder
MOST_FILES = 20_000


@dataclass(frozen=True)
class FolderFiles:
    """Files at a path, those that may be inputs, and notes about those `left_out` of these."""

    paths: tuple[Path, ...]
    inputs: tuple[Path, ...]
    left_out: list[str] = field(default_factory=list)


def files_at(path: Path) -> FolderFiles:
    """Find the files at a path. Hidden files and folders in it are skipped."""
    if path.is_file():
        if is_key_file(path):
            return FolderFiles((path,), (), [f"{path.name} (a file of keys)"])
        return FolderFiles((path,), (path,))
    if not path.is_dir():
        return FolderFiles((), ())
    files = sorted(islice(_below(str(path)), MOST_FILES))
    keys = [file for file in files if is_key_file(file)]
    inputs = [file for file in files if file not in keys]
    left_out = [f"{file.name} in {path.name} (a file of keys)" for file in keys]
    if len(inputs) > MOST_INPUTS:
        left_out.append(f"{len(inputs) - MOST_INPUTS} of {len(inputs)} files in {path.name}")
    return FolderFiles(tuple(files), tuple(inputs[:MOST_INPUTS]), left_out)


def _below(folder: str) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path)
            elif entry.is_file():
                yield Path(entry.path)


def looks_like_path(text: str) -> bool:
    """Return whether text is a path that exists, or that may be written into an existing folder."""
    if len(text) > 4096 or "\n" in text or "\0" in text or not ("/" in text or "\\" in text or "." in text):
        return False
    try:
        path = Path(text)
        return path.exists() or (len(path.parts) > 1 and path.parent.is_dir())
    except OSError:
        return False


def is_folder(value: str | Path) -> bool:
    """Return whether a value is the path of a folder, also as text."""
    return (isinstance(value, Path) or looks_like_path(value)) and Path(value).is_dir()


# Files that a call opens, from Python's audit events; C libraries that open files by themselves are not seen.
#
# Calls are identified by context, so that concurrent calls on threads are told apart.

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_watched: ContextVar[OpenedFiles | None] = ContextVar("opened", default=None)
_writers: dict[str, OpenedFiles] = {}  # by path, the last call that opened the file for writing
_running: list[OpenedFiles] = []
_lock = threading.Lock()


@dataclass(eq=False)
class OpenedFiles:
    """The files that one call opens, and whether other calls wrote to the same paths at the same time."""

    paths: tuple[Path, ...]
    read: set[str] = field(default_factory=set)
    wrote: set[str] = field(default_factory=set)
    is_alone: bool = True
    is_local: bool = True  # in the process of the flow, where other calls are seen

    def is_own(self, path: Path) -> bool | None:
        """Return whether this call wrote a changed file; None if that cannot be known."""
        name = _name(path)
        if name in self.wrote:
            return True
        if _writers.get(name) is not None:
            return False
        if not self.is_local:  # writes by other processes are not seen; those of this call mostly are
            return not self.wrote
        return True if self.is_alone else None

    def has_read(self, path: Path) -> bool | None:
        """Return whether the call has opened the file for reading; None if it was not seen to open it."""
        name = _name(path)
        return name in self.read if name in self.read or name in self.wrote else None


@functools.cache
def watch_files() -> None:
    """Start to watch which files calls open."""
    sys.addaudithook(_audit)


@contextmanager
def watched(opened: OpenedFiles | None) -> Iterator[None]:
    """Attribute files opened in this block to the call. Calls that write to the same paths are not alone."""
    if opened is None:
        yield
        return
    with _lock:
        for other in _running:
            if any(_overlap(path, second) for path in opened.paths for second in other.paths):
                opened.is_alone = other.is_alone = False
        _running.append(opened)
    token = _watched.set(opened)
    try:
        yield
    finally:
        _watched.reset(token)
        with _lock:
            _running.remove(opened)


def _name(path: str | bytes | os.PathLike[Any]) -> str:
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (links are not followed: what a name stands for may change)


def _overlap(first: Path, second: Path) -> bool:
    return first == second or first in second.parents or second in first.parents


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event not in ("open", "os.rename"):
        return
    call = _watched.get()
    if call is None:
        return
    path = arguments[0] if event == "open" else arguments[1]
    if not isinstance(path, (str, bytes, os.PathLike)):
        return
    name = _name(path)
    flags = arguments[2] if event == "open" else _WRITES
    if isinstance(flags, int) and flags & _WRITES:
        call.wrote.add(name)
        _writers[name] = call
        if flags & os.O_TRUNC or (flags & os.O_CREAT and not flags & (os.O_APPEND | os.O_RDWR)):
            return
    call.read.add(name)


def files_written(
    description: TaskDescription,
    changed: Mapping[str, Collection[Path]],
    opened: OpenedFiles,
    returned: Collection[Path],
    logger: Any,
) -> dict[str, list[Path]]:
    """Return those of the changed files that the call wrote, by argument; never those of other calls.

    If several calls wrote to one folder at once, a file that no call was seen to open belongs to the call that returns
    its path; other such files cause a warning.
    """
    written: dict[str, list[Path]] = {}
    unsure: list[str] = []
    for role, paths in changed.items():
        if not description.may_write(role.partition("-")[0]):
            continue
        for path in paths:
            is_own = True if path in returned else opened.is_own(path)
            if is_own is None:
                unsure.append(path.name)
            elif is_own and (is_key_file(path) or holds_secret(path)):
                logger.warning(
                    "%s is left out of the result of %s: it holds keys or a secret", path.name, description.name
                )
            elif is_own:
                written.setdefault(role, []).append(path)
    if unsure:
        logger.warning(
            "cannot tell which call wrote %s: several wrote there at once, by a library that opens files by itself; "
            "return the paths, or say lineage.wrote(path)",
            ", ".join(unsure[:5]),
        )
    return written
