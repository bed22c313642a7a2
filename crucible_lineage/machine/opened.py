"""Files that a call opens: in Python by its audit events; at paths in its arguments also by libraries in C and by child
processes, which Linux reports (inotify). Calls are identified by context, concurrent ones included.

Steps that are called in other environments are watched by it, too: it needs the standard library alone.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from crucible_lineage.json_types import JsonObject
from crucible_lineage.text.masking import is_key_file

MOST_INPUTS = 200  # files of one folder
MOST_FILES = 20_000
MOST_WATCHED = 500  # folders of one call
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHILDREN = frozenset({"subprocess.Popen", "os.system", "os.posix_spawn", "os.spawn", "os.exec", "os.fork"})
_CODE = (".py", ".pyc", ".pyi", ".pyd", ".so", ".pth", ".dll")
_SYSTEM = ("/usr", "/etc", "/proc", "/sys", "/run", "/lib", "/lib64", "/bin", "/sbin")
_SHARED = Path("/dev")  # where libraries also share memory

watched: ContextVar[OpenedFiles | None] = ContextVar("opened", default=None)
_written: dict[str, None] = {}  # files that calls opened for writing, the last ones
_running: list[OpenedFiles] = []
_announced: dict[int, tuple[Any, int, int]] = {}  # by thread, the path that it opened last, and where its code did so
_lock = threading.RLock()
_programs: set[str] = set()


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


def possible_path(text: object) -> Path | None:
    """Return the path that a text may be; None for other values, texts of several lines, and those of dots alone."""
    if not isinstance(text, str) or len(text) > 1024 or not text.strip("./\\ ") or not text.isprintable():
        return None
    if "://" in text or len(max(Path(text).parts, key=len)) > 255:
        return None
    return Path(text)


def names_file(text: str) -> bool:
    """Return whether a text is the path of an existing file, with the name of a folder: a word alone is a word."""
    path = possible_path(text)
    return path is not None and len(path.parts) > 1 and path.is_file()


def is_under(path: Path, folders: Iterable[Path]) -> bool:
    """Return whether a path is one of these, or below one of these."""
    return any(path == folder or folder in path.parents for folder in folders)


# ---------------------------------------------------------------- what a call opens


@dataclass
class Effects:
    """Effects that one call has declared so far."""

    used: list[object] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    metadata: JsonObject = field(default_factory=dict)
    fields: JsonObject = field(default_factory=dict)


@dataclass(eq=False)
class OpenedFiles:
    """The files that one call opens, by their names, and whether other calls wrote to the same paths meanwhile.

    `paths` are those in its arguments. `outside` are files there that were read and `changed` those that were written
    to, by whomever; `others` are files that other code of this process has opened; `is_seen` says whether that is
    known. `has_children` is true if it has started processes. `declared` are effects that none of this shows.
    """

    paths: tuple[Path, ...]
    declared: Effects = field(default_factory=Effects)
    read: set[str] = field(default_factory=set)
    wrote: set[str] = field(default_factory=set)
    added_to: set[str] = field(default_factory=set)  # and not read, although what is there now depends on what was
    outside: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)
    is_alone: bool = True
    is_local: bool = True  # in the process of the flow, where other calls are seen
    is_seen: bool = False
    is_over: bool = False
    has_children: bool = False

    def is_own(self, path: Path) -> bool | None:
        """Return whether this call wrote a changed file; None if that cannot be known."""
        name = name_of(path)
        if name in self.wrote:
            return True
        if name in _written:
            return False
        if not self.is_local:  # writes by other processes are not seen; those of this call mostly are
            return not self.wrote
        return True if self.is_alone else None

    def has_read(self, path: Path) -> bool | None:
        """Return whether the call has opened the file for reading; None if it was not seen to open it."""
        name = name_of(path)
        if name in self.read or (name in self.outside and name not in self.others):
            return True
        return False if name in self.wrote else None


def name_of(path: str | bytes | os.PathLike[Any]) -> str:
    """Return the absolute name of a path; links are not followed, since what a name stands for may change."""
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100


@contextmanager
def watching(opened: OpenedFiles) -> Iterator[None]:
    """Attribute files opened and effects declared in this block to the call.

    Calls that write to the same paths are not alone.
    """
    with _lock:
        for other in _running:
            pairs = ((opened.paths, other.paths), (other.paths, opened.paths))
            if any(is_under(path, theirs) for ours, theirs in pairs for path in ours):
                opened.is_alone = other.is_alone = False
        _running.append(opened)
        if opened.paths:  # else the files that other code opens do not matter, and looking at each thread takes a while
            opened.others.update(_opening())
        opened.is_seen = _system().watch(opened)
    token = watched.set(opened)
    try:
        yield
    finally:
        watched.reset(token)
        with _lock:
            _system().leave(opened)  # until then, what other code opens is noted as theirs
            if opened in _running:  # not in a process that the call has forked
                _running.remove(opened)


@functools.cache
def watch_files(*programs: str) -> None:
    """Start to watch which files calls open. Files in the folders of these programs are not data."""
    _programs.update(programs)
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _CHILDREN:
        if (call := watched.get()) is not None:
            call.has_children = True
        return
    if event not in ("open", "os.rename", "sqlite3.connect"):
        return
    path = arguments[1] if event == "os.rename" else arguments[0]
    if not isinstance(path, (str, bytes, os.PathLike)):
        return
    caller = sys._getframe(1)
    _announced[threading.get_ident()] = (path, id(caller), caller.f_lasti)
    if not _running:
        return
    call, name = watched.get(), name_of(path)
    for other in list(_running):
        if other is not call:
            other.others.add(name)
    if call is not None and not call.is_over:
        if event != "open":  # SQLite creates a file that is not there
            is_written = event == "os.rename" or not os.path.exists(name)  # noqa: PTH110
            arguments = (path, None, _WRITES if is_written else os.O_RDONLY)
        _note(call, name, arguments[2])


def _opening() -> Iterator[str]:
    """Yield the files that threads have announced to open, and are about to open."""
    for thread, frame in sys._current_frames().items():
        path, caller, at = _announced.get(thread, ("", 0, 0))
        stack: Any = frame
        for _ in range(4):  # the thread may still be in `_audit`, and in what that calls
            if stack is not None and (id(stack), stack.f_lasti) == (caller, at):
                yield name_of(path)
            stack = stack and stack.f_back


def _note(call: OpenedFiles, name: str, flags: object) -> None:
    is_own = name in call.wrote  # what it reads there is what it has written
    if isinstance(flags, int) and flags & _WRITES:
        call.wrote.add(name)
        _written.pop(name, None)
        _written[name] = None
        while len(_written) > MOST_FILES:
            del _written[next(iter(_written))]
        if flags & os.O_TRUNC or (flags & os.O_CREAT and not flags & (os.O_APPEND | os.O_RDWR)):
            return
        if flags & os.O_APPEND and not flags & os.O_RDWR and name not in call.read:
            call.added_to.add(name)
    if not is_own:
        call.read.add(name)


@functools.cache
def _places() -> tuple[Path, ...]:
    """Return the folders of Python, of the system and of programs, whose files are not data."""
    paths = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values(), *_SYSTEM, *_programs}
    return tuple(map(Path, paths))


def is_of_program(path: Path) -> bool:
    """Return whether a file is code, or is in a folder of Python, of its packages, of the system or of programs."""
    is_code = path.suffix in _CODE or not {"site-packages", "__pycache__"}.isdisjoint(path.parts)
    return is_code or is_under(path, _places())


def is_data_file(name: str) -> bool:
    """Return whether a file that a call opened is there, and is data: no code, no hidden, temporary or system file."""
    path, scratch = Path(name), Path(tempfile.gettempdir())
    if _SHARED in path.parents or any(part.startswith(".") for part in path.parts[1:]) or is_of_program(path):
        return False
    if scratch in path.parents and path.relative_to(scratch).parts[0].startswith(tempfile.gettempprefix()):
        return False
    return path.is_file() and not is_key_file(path)


# ---------------------------------------------------------------- what Linux tells

_MODIFY, _MOVED_TO, _OPEN, _CREATE = 0x2, 0x80, 0x20, 0x100
_EVENT = struct.Struct("iIII")


class _System:
    """The events of files below watched paths, by inotify; none on other systems."""

    def __init__(self) -> None:
        self._library: Any = None
        self._calls: dict[int, tuple[str, set[OpenedFiles]]] = {}  # by watch, its path and the calls that watch it
        with suppress(OSError, AttributeError):
            self._library = ctypes.CDLL(None, use_errno=True)
            self._events = self._library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._library is not None and self._events < 0:
            self._library = None

    def watch(self, call: OpenedFiles) -> bool:
        """Begin to watch the paths of a call; return whether all of them are watched."""
        if self._library is None or not call.paths:
            return self._library is not None
        self._read()
        mask, are_watched = _MODIFY | _MOVED_TO | _OPEN | _CREATE, True
        for path in (path for root in call.paths for path in _folders(root)):
            watch = self._library.inotify_add_watch(self._events, os.fsencode(path), mask)
            are_watched &= watch >= 0
            if watch >= 0:
                self._calls.setdefault(watch, (path, set()))[1].add(call)
        return are_watched

    def leave(self, call: OpenedFiles) -> None:
        """Take the events of a call, and end its watch."""
        if self._library is None or not call.paths:
            return
        self._read()
        for watch, (_, calls) in list(self._calls.items()):
            calls.discard(call)
            if not calls:
                del self._calls[watch]
                self._library.inotify_rm_watch(self._events, watch)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while data := os.read(self._events, 1 << 16):
                at = 0
                while at < len(data):
                    watch, mask, _, length = _EVENT.unpack_from(data, at)
                    name = os.fsdecode(data[at + 16 : at + 16 + length].rstrip(b"\0"))
                    at += 16 + length
                    path, calls = self._calls.get(watch, ("", ()))
                    for call in calls:
                        place = f"{path}/{name}" if name else path
                        if mask & (_MODIFY | _CREATE | _MOVED_TO):
                            call.outside.discard(place)
                            call.changed.add(place)
                        elif mask & _OPEN and place not in call.changed:
                            call.outside.add(place)


def _folders(root: Path) -> Iterator[str]:
    """Yield a file, or a folder and those in it."""
    name = name_of(root)
    if os.path.isfile(name):  # noqa: PTH113
        yield name
    elif os.path.isdir(name):  # noqa: PTH112
        yield from islice((folder for folder, _, _ in os.walk(name)), MOST_WATCHED)


@functools.cache
def _system() -> _System:
    return _System()


def _after_fork() -> None:
    """Watch nothing that the parent process has watched."""
    _lock._at_fork_reinit()  # type: ignore[attr-defined]
    _system.cache_clear()
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
