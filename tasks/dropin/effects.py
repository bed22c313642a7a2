"""Effects of a call beside its result: those that the task declares while it runs, and the files that it opens."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crucible_lineage.json_types import JsonMapping, JsonObject

_current: ContextVar[Effects | None] = ContextVar("effects", default=None)

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_watched: ContextVar[OpenedFiles | None] = ContextVar("opened", default=None)
_writers: dict[str, OpenedFiles] = {}  # by path, the last call that opened the file for writing
_running: list[OpenedFiles] = []
_lock = threading.Lock()
_is_watching = False


@dataclass
class Effects:
    """Effects that one call has declared so far."""

    used: list[object] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    metadata: JsonObject = field(default_factory=dict)
    fields: JsonObject = field(default_factory=dict)

    def extend(self, description: JsonMapping) -> JsonObject:
        """Return the description of a task with the call's own fields and metadata."""
        return {**description, **self.fields, "metadata": {**description["metadata"], **self.metadata}}


def current_effects() -> Effects | None:
    """Return the effects of the current call; None if it is not recorded."""
    return _current.get()


@contextmanager
def declaring(effects: Effects | None) -> Iterator[None]:
    """Attribute effects declared in this block to that call."""
    if effects is None:
        yield
        return
    token = _current.set(effects)
    try:
        yield
    finally:
        _current.reset(token)


# Files that a call opens, from Python's audit events; C libraries that open files by themselves are not seen.
#
# Calls are identified by context, so that concurrent calls on threads are told apart.


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

    def is_seen(self, path: Path) -> bool:
        """Return whether the call was seen to open the file."""
        name = _name(path)
        return name in self.read or name in self.wrote

    def has_read(self, path: Path) -> bool:
        """Return whether the call has opened the file for reading."""
        return _name(path) in self.read


def watch_files() -> None:
    """Start to watch which files calls open."""
    global _is_watching
    with _lock:
        if not _is_watching:
            _is_watching = True
            sys.addaudithook(_audit)


def _begin(opened: OpenedFiles) -> None:
    """Register a running call: calls that write to the same paths are not alone any more."""
    with _lock:
        for other in _running:
            if any(_overlap(path, second) for path in opened.paths for second in other.paths):
                opened.is_alone = other.is_alone = False
        _running.append(opened)


@contextmanager
def watched(opened: OpenedFiles | None) -> Iterator[None]:
    """Attribute files opened in this block to the call."""
    if opened is None:
        yield
        return
    _begin(opened)
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
