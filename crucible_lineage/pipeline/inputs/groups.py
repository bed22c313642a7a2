"""Data that belong together because their records say the same in some fields; combinations of swept parameters too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crucible_lineage.amounts import value_text
from crucible_lineage.pipeline.inputs.inputs import InputItem
from crucible_lineage.pipeline.spec.inputs import value_of

__all__ = ["Group", "groups_of", "groups_of_variants"]


@dataclass(frozen=True)
class Group:
    """The members, by their numbers, that a label stands for; `fault` says why they are no group."""

    label: str
    indices: tuple[int, ...]
    fault: str = ""


def groups_of(items: Sequence[InputItem], fields: Sequence[str]) -> tuple[Group, ...]:
    """The groups, in the order of their values. Those that lack a field are in a group with a fault."""
    found: dict[tuple[Any, ...], list[int]] = {}
    lacking: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        values = tuple(value_of(item.fields, name) for name in fields)
        missing = next((name for name, value in zip(fields, values, strict=True) if value in (None, "")), None)
        if missing:
            lacking.setdefault(missing, []).append(index)
        else:
            found.setdefault(tuple(_comparable(value) for value in values), []).append(index)
    groups = [Group(", ".join(map(value_text, key)), tuple(found[key])) for key in sorted(found, key=_order)]
    for name, indices in lacking.items():
        first = items[indices[0]]
        more = f" and {len(indices) - 1} more" if len(indices) > 1 else ""
        fault = first.blocked or f"{first.label}{more} cannot be grouped: there is no {name} in the record"
        groups.append(Group(f"without {name}", tuple(indices), fault))
    return tuple(groups)


def groups_of_variants(
    combinations: Iterable[Mapping[str, object]], names: Sequence[str], label_of: Any
) -> tuple[Group, ...]:
    """The combinations of swept parameters that agree in these, in their own order."""
    found: dict[str, list[int]] = {}
    for index, combination in enumerate(combinations):
        label = label_of({name: combination[name] for name in names if name in combination})
        found.setdefault(label, []).append(index)
    return tuple(Group(label, tuple(indices)) for label, indices in found.items())


def _comparable(value: object) -> object:
    """5 and 5.0 are one value; lists and mappings stand for their text."""
    return value if isinstance(value, str | int | float) else str(value)


def _order(key: tuple[object, ...]) -> tuple[tuple[bool, object], ...]:
    return tuple((isinstance(value, str), value) for value in key)
