"""Datasets of an input that belong together: those whose records say the same in some fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crucible_lineage.pipeline.inputs.inputs import InputItem, value_of

__all__ = ["Group", "groups_of"]


@dataclass(frozen=True)
class Group:
    """The datasets of an input, by their number in it, that a label stands for; `fault` says why they are no group."""

    label: str
    indices: tuple[int, ...]
    fault: str = ""


def groups_of(items: Sequence[InputItem], fields: Sequence[str]) -> tuple[Group, ...]:
    """The groups, in the order of their values. Whoever lacks a field is in a group that is told as faulty."""
    found: dict[tuple[Any, ...], list[int]] = {}
    lacking: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        values = tuple(value_of(item.fields, name) for name in fields)
        missing = next((name for name, value in zip(fields, values, strict=True) if value in (None, "")), None)
        if missing:
            lacking.setdefault(missing, []).append(index)
        else:
            found.setdefault(tuple(_comparable(value) for value in values), []).append(index)
    groups = [Group(", ".join(map(_text, key)), tuple(found[key])) for key in sorted(found, key=_order)]
    for name, indices in lacking.items():
        first = items[indices[0]]
        more = f" and {len(indices) - 1} more" if len(indices) > 1 else ""
        fault = first.blocked or f"{first.label}{more} cannot be grouped: there is no {name} in the record"
        groups.append(Group(f"without {name}", tuple(indices), fault))
    return tuple(groups)


def _comparable(value: object) -> object:
    """5 and 5.0 are one value; lists and mappings stand for their text."""
    return value if isinstance(value, str | int | float) else str(value)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _order(key: tuple[object, ...]) -> tuple[tuple[bool, object], ...]:
    return tuple((isinstance(value, str), value) for value in key)
