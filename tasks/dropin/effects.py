"""What a call does beside its result: what the task says of its effects while it runs, and which files are opened."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_current: ContextVar[Effects | None] = ContextVar("effects", default=None)


_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_watched: ContextVar[OpenedFiles | None] = ContextVar("opened", default=None)
_writers: dict[str, OpenedFiles] = {}  # by path, the call that opened a file for writing last
_running: list[OpenedFiles] = []
_lock = threading.Lock()
_is_watching = False


@dataclass
class Effects:
    """What one call has said so far."""

    used: list[object] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)

    def described(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """The description of a task with what the call has said."""
        return {**before, **self.fields, "metadata": {**before["metadata"], **self.metadata}}


def current_effects() -> Effects | None:
    """Those of the call that this code is part of; None where nothing is recorded."""
    return _current.get()


@contextmanager
def saying(effects: Effects | None) -> Iterator[None]:
    """Attribute what is said in this block to that call."""
    if effects is None:
        yield
        return
    token = _current.set(effects)
    try:
        yield
    finally:
        _current.reset(token)


# Which files a call opens, as Python tells of it; libraries in C that open files by themselves are not seen.
#
# The call is found by its context, so that calls on threads at once are told apart.


@dataclass(eq=False)
class OpenedFiles:
    """The files that one call opens, and whether others wrote to its places at the same time."""

    places: tuple[Path, ...]
    read: set[str] = field(default_factory=set)
    wrote: set[str] = field(default_factory=set)
    is_alone: bool = True
    is_here: bool = True  # in the process of the flow, where other calls are seen

    def is_own(self, path: Path) -> bool | None:
        """Whether a file that has changed was written by this call; None if that cannot be known."""
        name = _name(path)
        if name in self.wrote:
            return True
        if _writers.get(name) is not None:
            return False
        if not self.is_here:  # what others write at the same time is not seen; what this one writes is, mostly
            return not self.wrote
        return True if self.is_alone else None

    def is_seen(self, path: Path) -> bool:
        """Whether the call was seen to open the file."""
        name = _name(path)
        return name in self.read or name in self.wrote

    def has_read(self, path: Path) -> bool:
        """Whether the call has opened the file to read it."""
        return _name(path) in self.read


def watch_files() -> None:
    """See from now on which files are opened by calls."""
    global _is_watching
    with _lock:
        if not _is_watching:
            _is_watching = True
            sys.addaudithook(_heard)


def _begin(opened: OpenedFiles) -> None:
    """The call has begun: others that write to its places are not alone any more."""
    with _lock:
        for other in _running:
            if any(_overlap(one, two) for one in opened.places for two in other.places):
                opened.is_alone = other.is_alone = False
        _running.append(opened)


def _end(opened: OpenedFiles) -> None:
    """The call has ended."""
    with _lock:
        _running.remove(opened)


@contextmanager
def watched(opened: OpenedFiles | None) -> Iterator[None]:
    """Files that are opened in this block are those of the call."""
    if opened is None:
        yield
        return
    _begin(opened)
    token = _watched.set(opened)
    try:
        yield
    finally:
        _watched.reset(token)
        _end(opened)


def _name(path: str | bytes | os.PathLike[Any]) -> str:
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (links are not followed: what a name stands for may change)


def _overlap(one: Path, two: Path) -> bool:
    return one == two or one in two.parents or two in one.parents


def _heard(event: str, arguments: tuple[object, ...]) -> None:
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
