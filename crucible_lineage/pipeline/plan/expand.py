"""Steps as instances: one for each value of `each` inputs and matrices, with the datasets and results that feed it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.bind.inspection import Inspection
from crucible_lineage.pipeline.bind.model import BoundPipeline, BoundStep
from crucible_lineage.pipeline.plan.inputs import InputItem, Inputs
from crucible_lineage.pipeline.spec.pipeline import Source

__all__ = ["Feed", "Instance", "expand"]

MOST_INSTANCES = 100_000


@dataclass(frozen=True)
class Feed:
    """A parent of an instance: an item of an input, or an output of another instance."""

    role: str
    files: str | None
    input: str | None = None
    index: int = 0
    instance: str | None = None
    output: str | None = None


@dataclass(frozen=True)
class Instance:
    """A step for one value of each of its dimensions. `needs` are the instances it waits for.

    `subject` holds the ids of the `each` datasets it is about; `blocked` says why it cannot be made at all.
    """

    name: str
    step: BoundStep
    label: str
    given: Mapping[str, Any]
    inspection: Inspection
    feeds: tuple[Feed, ...]
    needs: tuple[str, ...]
    subject: tuple[str, ...] = ()
    blocked: str = ""


def expand(pipeline: BoundPipeline, inputs: Inputs) -> dict[str, Instance]:
    """The instances of all steps, in an order in which they can run."""
    return _Expansion(pipeline, inputs).expand()


Point = Mapping[str, int]  # dimension -> index of its value


class _Expansion:
    def __init__(self, pipeline: BoundPipeline, inputs: Inputs) -> None:
        self.pipeline = pipeline
        self.inputs = inputs
        self.instances: dict[str, Instance] = {}
        self.points: dict[str, list[tuple[Point, str]]] = {}  # step -> where its instances stand
        self.names: dict[tuple[str, tuple[int, ...]], str] = {}
        self.labels = {name: _distinct([item.label for item in items]) for name, items in inputs.items()}
        self.partners = {
            name: _pairs(name, declared.match, inputs)
            for name, declared in pipeline.spec.inputs.items()
            if declared.match
        }

    def expand(self) -> dict[str, Instance]:
        for step in self.pipeline.steps.values():
            sizes = [self._size(dimension) for dimension in step.dimensions]
            if len(self.instances) + math.prod(sizes) > MOST_INSTANCES:
                message = f"step {step.name!r} would have {math.prod(sizes)} instances, one for each combination of "
                message += (
                    f"{', '.join(step.dimensions)}; at most {MOST_INSTANCES} are possible. Pair inputs by `match`"
                )
                raise InputError(message)
            self.points[step.name] = []
            for indices in product(*map(range, sizes)):
                self._add(step, dict(zip(step.dimensions, indices, strict=True)), indices)
        return self.instances

    def _size(self, dimension: str) -> int:
        if dimension in self.inputs:
            return len(self.inputs[dimension])
        return len(self.pipeline.steps[dimension].variants)

    def _add(self, step: BoundStep, point: Point, indices: tuple[int, ...]) -> None:
        variant = step.variants[point.get(step.name, 0)]
        labels = [self._label(dimension, index) for dimension, index in point.items()]
        name = f"{step.name}[{', '.join(labels)}]" if labels else step.name
        feeds, blocked = [], ""
        for role, sources in step.sources.items():
            for source in sources:
                found, fault = self._feeds(step, role, source, point)
                feeds += found
                blocked = blocked or fault
        about = (self.inputs[dimension][index].mfid for dimension, index in point.items() if dimension in self.inputs)
        self.instances[name] = Instance(
            name=name,
            step=step,
            label=variant.label,
            given=variant.given,
            inspection=variant.inspection,
            feeds=tuple(feeds),
            needs=tuple(dict.fromkeys(feed.instance for feed in feeds if feed.instance)),
            subject=tuple(mfid for mfid in about if mfid),
            blocked=blocked,
        )
        self.points[step.name].append((point, name))
        self.names[step.name, indices] = name

    def _label(self, dimension: str, index: int) -> str:
        if dimension in self.inputs:
            return self.labels[dimension][index]
        return self.pipeline.steps[dimension].variants[index].label

    def _feeds(self, step: BoundStep, role: str, source: Source, point: Point) -> tuple[list[Feed], str]:
        """The parents that a source gives, and why there are none if that is so."""
        collects = role in step.collected
        if source.source in self.inputs:
            indices, fault = self._items(source.source, point, collects=collects)
            feeds = [Feed(role, source.files, input=source.source, index=index) for index in indices]
            if len(indices) > 1 and step.inspection.roles[role] == "file":
                fault = f"input {source.source} has {len(indices)} datasets, but {role!r} of the step is one file"
                fault += "; give the input `each: true`, or annotate the role list[Path]"
            blocked = next((b for index in indices if (b := self.inputs[source.source][index].blocked)), "")
            return feeds, fault or blocked
        names = list(self._instances(source.source, point, collects=collects))
        fault = "" if names else f"there is nothing to collect: {source.source} has no instances"
        return [Feed(role, source.files, instance=name, output=source.output) for name in names], fault

    def _items(self, name: str, point: Point, *, collects: bool) -> tuple[Sequence[int], str]:
        declared, every = self.pipeline.spec.inputs[name], range(len(self.inputs[name]))
        partner = declared.partner
        if partner is not None and partner in point:
            pair = self.partners[name][point[partner]]
            return (sorted(pair.all) if collects else pair.all[:1]), pair.fault
        if partner is not None:
            return sorted({index for pair in self.partners[name] for index in pair.all}), ""
        if declared.each and not collects:
            return [point[name]], ""
        return every, "" if every else f"input {name} has no dataset"

    def _instances(self, name: str, point: Point, *, collects: bool) -> Iterator[str]:
        """The instances of a step that stand where this one stands; all of them along what it collects over."""
        other = self.pipeline.steps[name]
        if not collects:
            yield self.names[name, tuple(point[dimension] for dimension in other.dimensions)]
            return
        for there, instance in self.points[name]:
            if all(there[dimension] == index for dimension, index in point.items() if dimension in there):
                yield instance


def _distinct(labels: Sequence[str]) -> list[str]:
    """The labels, numbered where several are the same."""
    seen: dict[str, int] = {}
    result = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        result.append(label if seen[label] == 1 else f"{label}#{seen[label]}")
    return result


@dataclass(frozen=True)
class _Pair:
    """What belongs to a dataset of the partner: all that match, the one to be taken first; or why none does."""

    all: Sequence[int]
    fault: str = ""


def _pairs(name: str, match: Mapping[str, Sequence[str]], inputs: Inputs) -> list[_Pair]:
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
) -> _Pair:
    """Where several match, the latest that is not younger than the item comes first; else the earliest."""
    values = _values(item, names)
    said = ", ".join(f"{field}={value or 'nothing'}" for field, value in zip(names, values, strict=True))
    if not all(values):
        return _Pair((), f"{item.label} cannot be matched with {name}: {said}")
    found = sorted(candidates.get(values, ()), key=lambda index: _id(items[index]))
    if not found:
        return _Pair((), f"input {name} has no dataset with {said}, as {item.label} has")
    earlier = [index for index in found if _id(items[index]) <= _id(item)]
    first = earlier[-1] if earlier else found[0]
    return _Pair((first, *(index for index in found if index != first)))


def _id(item: InputItem) -> str:
    return item.mfid or "~"  # what has no id yet is the youngest


def _values(item: InputItem, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(_value(item.fields, name) for name in names)


def _value(fields: Mapping[str, Any], name: str) -> str:
    """The value of `instrument_name` or `metadata.laser_nm`, as text; empty if there is none."""
    value: Any = fields
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)
