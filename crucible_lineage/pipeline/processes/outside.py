"""What a step's function leaves: what it returns, and what it writes outside of its folder, which is no result.

Python tells of each file that it opens itself (`open`, `Path.write_text`, `numpy.savetxt`), in the thread that calls
the function. Files that a library opens in C, as HDF5 does, or that a program writes, are not seen.
"""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from platformdirs import user_cache_dir, user_config_dir

from crucible_lineage.fingerprint.values import ValueFaultError, plain_value

__all__ = ["Called", "ReturnedError", "code_folder", "returned", "watching_writes"]

MOST_PATHS = 100  # more do not help whoever reads the message
_WRITES = os.O_WRONLY | os.O_RDWR

_written: ContextVar[dict[str, None] | None] = ContextVar("written", default=None)
_hooked = False


@dataclass(frozen=True)
class Called:
    """What a step returned, and what else is known of its call.

    `outside` are the files that it wrote elsewhere than in its folder, `left` is how many processes it left running,
    `code` the folder of what was called, `pictures` are the names of the figures that it returned.
    """

    result: Any
    outside: tuple[Path, ...] = ()
    left: int = 0
    code: Path | None = None
    pictures: tuple[str, ...] = ()

    def note(self) -> str:
        """What to tell of the files and processes, empty if there are none."""
        notes = []
        if self.outside:
            more = f" and {len(self.outside) - 1} more" if len(self.outside) > 1 else ""
            where = f"it wrote {self.outside[0]}{more}, outside of its folder"
            notes.append(f"{where}; that is no part of its result")
        if self.left:
            one = self.left == 1
            notes.append(
                f"it left {self.left} process{'' if one else 'es'} running, which {'was' if one else 'were'} ended"
            )
        return "; ".join(notes)


def code_folder(function: Callable[..., object]) -> Path | None:
    """The folder of the file that a function was read from; None if it was read from none."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return Path(code.co_filename).parent if code else None


class ReturnedError(TypeError):
    """What a step returned cannot be metadata; the message says which value of it."""


def returned(result: object) -> dict[str, object] | None:
    """What a step returned, as plain JSON: a mapping, or None also for the path of its result."""
    if result is None or isinstance(result, PurePath):  # as functions often tell where they put it
        return None
    try:
        plain = plain_value(result, "")
    except ValueFaultError as fault:
        what = f"the value {fault.path.removeprefix('.')!r}" if fault.path else "what"
        raise ReturnedError(f"{what} that it returned {fault.reason}") from None
    if not isinstance(plain, dict):
        raise ReturnedError(f"it returned a {type(result).__name__}; it has to return a mapping of metadata, or None")
    return plain


@contextmanager
def watching_writes(allowed: Path) -> Iterator[list[Path]]:
    """A list that at the end of the block holds the files opened for writing elsewhere than in `allowed`.

    Folders for temporary files, caches and settings are nobody's result either, and are not listed.
    """
    _hook()
    outside: list[Path] = []
    written: dict[str, None] = {}
    token = _written.set(written)
    try:
        yield outside
    finally:
        _written.reset(token)
        places = [path.resolve() for path in (allowed, Path(tempfile.gettempdir()), *_caches())]
        for path in map(Path, written):
            if not any(path.resolve().is_relative_to(place) for place in places) and path.is_file():
                outside.append(path)


def _caches() -> list[Path]:
    named = os.environ.get("MPLCONFIGDIR")
    return [Path(user_cache_dir()), Path(user_config_dir()), *([Path(named)] if named else [])]


def _hook() -> None:
    """Python calls `_note` at each audit event from now on. There is no way to take that back."""
    global _hooked
    if not _hooked:
        _hooked = True
        sys.addaudithook(_note)


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or (written := _written.get()) is None or len(written) >= MOST_PATHS:
        return
    path, _, flags = arguments
    if isinstance(path, (str, bytes)) and isinstance(flags, int) and flags & _WRITES:
        name = os.fsdecode(path)
        if "__pycache__" not in name:
            written[os.path.abspath(name)] = None  # noqa: PTH100 - resolving would ask the disk at each opening
