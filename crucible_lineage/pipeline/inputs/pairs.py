"""Which datasets of an input belong to which of another: those whose records say the same in the fields of `match`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crucible_lineage.pipeline.inputs.inputs import InputItem, Inputs, value_of

__all__ = ["Pair", "pairs_of"]


@dataclass(frozen=True)
class Pair:
    """What belongs to a dataset of the partner: all that match, the one to be taken first; or why none does."""

    all: Sequence[int]
    fault: str = ""


def pairs_of(name: str, match: Mapping[str, Sequence[str]], inputs: Inputs) -> list[Pair]:
    """For each dataset of the partner: which of this input's belong to it."""
    ((partner, names),) = match.items()
    candidates: dict[tuple[str, ...], list[int]] = {}
    for index, item in enumerate(inputs[name]):
        candidates.setdefault(_values(item, names), []).append(index)
    return [_pair(name, item, names, candidates, inputs[name]) for item in inputs[partner]]


def _pair(
    name: str,
    item: InputItem,
    names: Sequence[str],
    candidates: Mapping[tuple[str, ...], list[int]],
    items: Sequence[InputItem],
) -> Pair:
    """Where several match, the latest that is not younger than the item comes first; else the earliest."""
    values = _values(item, names)
    said = ", ".join(f"{field}={value or 'nothing'}" for field, value in zip(names, values, strict=True))
    if not all(values):
        return Pair((), f"{item.label} cannot be matched with {name}: {said}")
    found = sorted(candidates.get(values, ()), key=lambda index: _id(items[index]))
    if not found:
        return Pair((), f"input {name} has no dataset with {said}, as {item.label} has")
    earlier = [index for index in found if _id(items[index]) <= _id(item)]
    first = earlier[-1] if earlier else found[0]
    return Pair((first, *(index for index in found if index != first)))


def _id(item: InputItem) -> str:
    return item.mfid or "~"  # what has no id yet is the youngest


def _values(item: InputItem, names: Sequence[str]) -> tuple[str, ...]:
    found = (value_of(item.fields, name) for name in names)
    return tuple("" if value is None else str(value) for value in found)
