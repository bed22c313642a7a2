"""Times, sizes, counts and values as readable text."""

from __future__ import annotations

from collections.abc import Callable

EXACT = 1e15  # beyond it, not every whole number is a float


def amount(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: `1 dataset`, `0 datasets`, `2,000 datasets`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def time_text(seconds: float) -> str:
    """Return a duration with a readable unit."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size_text(size: float) -> str:
    """Return a number of bytes with a readable unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def value_text(value: object) -> str:
    """Return a value for labels and comparisons: 5 and 5.0 give the same text."""
    if not isinstance(value, float):
        return str(value)
    if value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def change_text(old: object, new: object, shown: Callable[[object], str] = repr) -> str:
    """Return both values of a change: `4 -> 5`; a whole number beside a decimal one in the same form."""
    if {type(old), type(new)} == {int, float}:
        shown = value_text
    return f"{shown(old)} -> {shown(new)}"
