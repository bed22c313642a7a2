"""Many JSON values in little room: what is equal is written once, and named by how far back that was."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["packed", "unpacked"]

Value = Any  # what JSON can hold
Parts = tuple[int, ...]
_LIST = -1  # the shape of a list
_OFTEN = 20  # uses from which a value is a common one: fewer make the result larger, more change nothing


def packed(values: Sequence[Value], names: Sequence[str]) -> dict[str, Any]:
    """The values, each with a name of its own, as `shapes`, `common` and `rows`; `unpacked` gives them back.

    A row has what is new in a value, parts before wholes, the value itself last; before all that stands, unwritten, its
    name. Texts, numbers, truths and null are written as they are, a whole as an array: the number of its shape (its
    keys; -1 is a list), and for each part how far back in the rows it stands, or -1 for the first of `common`, -2 for
    the second and so on. The same values give the same result.
    """
    found = _Distinct()
    for value in _often(values):
        found.add(value)
    first = len(found)
    starts = []
    for value, name in zip(values, names, strict=True):
        starts.append(len(found))
        found.add_new(name)
        found.add_new(value)
    written = [found.written(number, first) for number in range(len(found))]
    ends = [*starts, len(found)][1:]
    return {
        "shapes": list(found.shapes),
        "common": written[:first],
        "rows": [written[start + 1 : end] for start, end in zip(starts, ends, strict=True)],
    }


def unpacked(found: Mapping[str, Any], names: Sequence[str]) -> list[Value]:
    """Undo `packed`."""
    entries, roots = list(found["common"]), []
    for name, row in zip(names, found["rows"], strict=True):
        entries += [name, *row]
        roots.append(len(entries) - 1)

    def value_of(number: int) -> Value:
        entry = entries[number]
        if not isinstance(entry, list):
            return entry
        shape, *places = entry
        parts = [value_of(-place - 1 if place < 0 else number - place) for place in places]
        return parts if shape == _LIST else dict(zip(found["shapes"][shape], parts, strict=True))

    return [value_of(root) for root in roots]


def _often(values: Sequence[Value]) -> Iterator[Value]:
    """The distinct values that are used often, in the order they come."""
    found = _Distinct()
    for value in values:
        found.add(value)
    uses = [0] * len(found)
    for _, parts in found.entries:
        for part in parts:
            uses[part] += 1
    return (found.value(number) for number, used in enumerate(uses) if used >= _OFTEN)


class _Distinct:
    """Distinct values by number, the parts before the whole: a scalar without parts, or a shape with its parts."""

    def __init__(self) -> None:
        self.entries: list[tuple[Value, Parts]] = []
        self.shapes: dict[tuple[str, ...], int] = {}
        self._is_whole: list[bool] = []
        self._number_of: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, value: Value) -> int:
        """The number of a value, which is a new one if there was no equal value before."""
        key, entry = self._described(value)
        number = self._number_of.get(key)
        return self._appended(key, entry) if number is None else number

    def add_new(self, value: Value) -> None:
        """The value has the next number, also if there was an equal one before."""
        self._appended(*self._described(value))

    def written(self, number: int, common: int) -> Value:
        """An entry as `packed` says; numbers below `common` are those of common values."""
        head, parts = self.entries[number]
        if not self._is_whole[number]:
            return head
        return [head, *(-part - 1 if part < common else number - part for part in parts)]

    def value(self, number: int) -> Value:
        head, parts = self.entries[number]
        if not self._is_whole[number]:
            return head
        values = [self.value(part) for part in parts]
        return values if head == _LIST else dict(zip(list(self.shapes)[head], values, strict=True))

    def _described(self, value: Value) -> tuple[Hashable, tuple[Value, Parts]]:
        if isinstance(value, dict):
            shape = self.shapes.setdefault(tuple(value), len(self.shapes))
            parts = tuple([self.add(part) for part in value.values()])
            return (shape, parts), (shape, parts)
        if isinstance(value, list):
            parts = tuple([self.add(part) for part in value])
            return (_LIST, parts), (_LIST, parts)
        # 1, 1.0 and True are equal in Python, 0.0 and -0.0 too.
        return (type(value), repr(value) if isinstance(value, float) else value), (value, ())

    def _appended(self, key: Hashable, entry: tuple[Value, Parts]) -> int:
        self._number_of[key] = len(self.entries)
        self._is_whole.append(isinstance(key, tuple) and isinstance(key[1], tuple))
        self.entries.append(entry)
        return len(self.entries) - 1
