"""Times, sizes, counts and values as readable text."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable


class Names(tuple[str, ...]):
    """The names of one thing, each of which is equal to it."""

    __slots__ = ()

    def __str__(self) -> str:
        return ", ".join(self)


EXACT = 1e15  # beyond it, not every whole number is a float


def amount(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: `1 dataset`, `0 datasets`, `2,000 datasets`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def time_text(seconds: float) -> str:
    """Return how long work took or takes, in one unit: `42 s`, `2.0 h`."""
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
    """Return a value for labels and comparisons. Equal values give the same text, others do not.

    5, 5.0 and "5" are one value, as are texts that are composed differently; `true` is neither 1 nor a text.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = unicodedata.normalize("NFC", value)
        return f'"{text}"' if text in ("true", "false") else text
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    return str(int(value)) if value.is_integer() else short if float(short) == value else repr(value)


def is_equal(value: object, other: object) -> bool:
    """Return whether two values are equal, in selections, groups, matches, conditions and tables alike."""
    if isinstance(value, Names):
        return any(is_equal(name, other) for name in value)
    if isinstance(value, str | int | float) and isinstance(other, str | int | float):
        return value_text(value) == value_text(other) and value == value and other == other
    return value == other


def distinct(values: Iterable[object]) -> list[object]:
    """Return the values that are not None, each once; equal values are one."""
    found: dict[tuple[bool, str], object] = {}
    for value in values:
        if value is not None:
            found.setdefault(equality_key(value), value)
    return list(found.values())


def equality_key(value: object) -> tuple[bool, str]:
    """Return the same key for equal values, and different ones for others."""
    return isinstance(value, str | int | float), value_text(value)


def change_text(old: object, new: object, shown: Callable[[object], str] = repr) -> str:
    """Return both values of a change: `4 -> 5`. Beside a whole number, 5.0 is 5."""
    values = (_whole(old), _whole(new)) if {type(old), type(new)} == {int, float} else (old, new)
    return " -> ".join(map(shown, values))


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < EXACT else value
