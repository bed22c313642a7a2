"""What a step's function writes outside of its folder: it is no part of the result, and whoever runs the step is told.

Python tells of each file that it opens itself (`open`, `Path.write_text`, `numpy.savetxt`), in the thread that calls
the function. Files that a library opens in C, as HDF5 does, or that a program writes, are not seen.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir, user_config_dir

__all__ = ["Called", "watching_writes"]

MOST_PATHS = 100  # more do not help whoever reads the message
_WRITES = os.O_WRONLY | os.O_RDWR

_written: ContextVar[dict[str, None] | None] = ContextVar("written", default=None)
_hooked = False


@dataclass(frozen=True)
class Called:
    """What a step returned, and which files it wrote elsewhere than in its folder."""

    result: Any
    outside: tuple[Path, ...] = ()

    def note(self) -> str:
        """What to tell of the files, empty if there are none."""
        if not self.outside:
            return ""
        more = f" and {len(self.outside) - 1} more" if len(self.outside) > 1 else ""
        return f"it wrote {self.outside[0]}{more}, outside of its folder; that is no part of its result"


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


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or (written := _written.get()) is None or len(written) >= MOST_PATHS:
        return
    path, _, flags = arguments
    if isinstance(path, (str, bytes)) and isinstance(flags, int) and flags & _WRITES:
        name = os.fsdecode(path)
        if "__pycache__" not in name:
            written[os.path.abspath(name)] = None  # noqa: PTH100 - resolving would ask the disk at each opening
