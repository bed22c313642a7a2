"""Colour where a person looks at a terminal that has it; plain text anywhere else, and where NO_COLOR is set."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TextIO

__all__ = ["coloured", "is_lively", "terminal_width"]

_CODES = {"red": 31, "green": 32, "yellow": 33, "cyan": 36, "dim": 2}


def coloured(text: str, colour: str, stream: TextIO | None = None) -> str:
    """The text in that colour, if the stream (standard output, unless another is named) shows any."""
    where = stream or sys.stdout
    if os.environ.get("NO_COLOR") or not is_lively(where):
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def is_lively(stream: TextIO) -> bool:
    """True for a terminal that can do more than print one line after the other."""
    return stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb")


def terminal_width() -> int:
    """Return the width of the terminal in characters."""
    return shutil.get_terminal_size().columns
