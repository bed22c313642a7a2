"""Steps as instances: one for each value of `each` inputs and matrices, with the datasets and results that feed it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.bind.dimensions import fields_of, grouping, root_of
from crucible_lineage.pipeline.bind.from_parents import ParentField, from_parents
from crucible_lineage.pipeline.bind.model import BoundPipeline, BoundStep, Variant
from crucible_lineage.pipeline.functions.inspection import Inspection
from crucible_lineage.pipeline.inputs.groups import Group, groups_of
from crucible_lineage.pipeline.inputs.inputs import Inputs, value_of
from crucible_lineage.pipeline.inputs.pairs import pairs_of
from crucible_lineage.pipeline.plan.naming import Naming, Point
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

    `subject` holds the ids of the `each` datasets it is about; `places` are what each output is a result of, whichever
    dataset holds there; `blocked` says why it cannot be made at all.
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
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


Inspect = Callable[[BoundStep, Mapping[str, Any]], Inspection]


def expand(pipeline: BoundPipeline, inputs: Inputs, inspect: Inspect) -> dict[str, Instance]:
    """The instances of all steps, in an order in which they can run.

    `inspect` is asked for a step with the parameters that the records of its inputs give.
    """
    return _Expansion(pipeline, inputs, inspect).expand()


class _Expansion:
    def __init__(self, pipeline: BoundPipeline, inputs: Inputs, inspect: Inspect) -> None:
        self.inspect = inspect
        self.tells_parents = any(from_parents(step.spec) for step in pipeline.steps.values())
        self.pipeline = pipeline
        self.inputs = inputs
        self.instances: dict[str, Instance] = {}
        self.points: dict[str, list[tuple[Point, str]]] = {}  # step -> where its instances stand
        self.names: dict[tuple[str, tuple[int, ...]], str] = {}
        self.groups: dict[str, tuple[Group, ...]] = {}
        self.naming = Naming(pipeline, inputs, self.groups)
        self.group_at: dict[str, dict[int, int]] = {}  # dimension -> dataset of the input -> its group
        self.about: dict[str, tuple[tuple[str, int], ...]] = {}  # instance -> the datasets of inputs that it is about
        self.partners = {
            name: pairs_of(name, declared.match, inputs)
            for name, declared in pipeline.spec.inputs.items()
            if declared.match
        }

    def expand(self) -> dict[str, Instance]:
        for step in self.pipeline.steps.values():
            self._group(step)
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

    def _group(self, step: BoundStep) -> None:
        """The groups are known that the step, or one of its inputs, speaks of."""
        named = {grouping(root, source.group_by) for given in step.sources.values() for source in given
                 if source.group_by for root in self._roots(source.source)}  # fmt: skip
        for dimension in {*named, *(one for one in step.dimensions if fields_of(one))} - self.groups.keys():
            groups = groups_of(self.inputs[root_of(dimension)], fields_of(dimension))
            self.groups[dimension] = groups
            self.group_at[dimension] = {index: number for number, one in enumerate(groups) for index in one.indices}

    def _roots(self, source: str) -> list[str]:
        if source in self.inputs:
            return [source]
        roots = map(root_of, self.pipeline.steps[source].dimensions)
        return [root for root in roots if root in self.inputs]

    def _size(self, dimension: str) -> int:
        if dimension in self.inputs:
            return len(self.inputs[dimension])
        return len(self.groups[dimension] if dimension in self.groups else self.pipeline.steps[dimension].variants)

    def _add(self, step: BoundStep, point: Point, indices: tuple[int, ...]) -> None:
        variant = step.variants[point.get(step.name, 0)]
        labels = [self.naming.label(dimension, index) for dimension, index in point.items()]
        name = f"{step.name}[{', '.join(labels)}]" if labels else step.name
        feeds, faults = [], [str(step.blocked)] if step.blocked else []
        faults += [self.groups[one][index].fault for one, index in point.items() if one in self.groups]
        for role, sources in step.sources.items():
            for source in sources:
                found, fault = self._feeds(step, role, source, point)
                feeds += found
                if found or role in step.inspection.required:  # what may be missing is no fault where it is not there
                    faults.append(fault)
                faults.append(self._unexpected(role, source, found))
        about = [(root, index) for root in dict.fromkeys(map(root_of, point)) if root in self.inputs
                 for index in self._members(root, point) or ()]  # fmt: skip
        if self.tells_parents:
            self.about[name] = tuple(about or dict.fromkeys(self._behind(feeds)))
        given, inspection = variant.given, variant.inspection
        if (asked := from_parents(step.spec)) and not any(faults):
            given, inspection, fault = self._given(step, variant, asked, feeds)
            faults.append(fault)
        blocked = next(filter(None, faults), "")
        if not feeds and not any(faults):
            faults.append("none of its inputs is there; a derived dataset needs a parent")
        self.instances[name] = Instance(
            name=name,
            step=step,
            label=self.naming.told_apart(step, point),
            given=given,
            inspection=inspection,
            feeds=tuple(feeds),
            needs=tuple(dict.fromkeys(feed.instance for feed in feeds if feed.instance)),
            subject=tuple(mfid for root, index in about if (mfid := self.inputs[root][index].mfid)),
            blocked=blocked,
            places=self.naming.places(step, point),
        )
        self.points[step.name].append((point, name))
        self.names[step.name, indices] = name

    def _behind(self, feeds: Sequence[Feed]) -> Iterator[tuple[str, int]]:
        """The datasets of inputs that parents are, or lead back to."""
        for feed in feeds:
            if feed.instance is not None:
                yield from self.about[feed.instance]
            elif feed.input is not None:
                yield feed.input, feed.index

    def _given(
        self, step: BoundStep, variant: Variant, asked: Mapping[str, ParentField], feeds: Sequence[Feed]
    ) -> tuple[Mapping[str, object], Inspection, str]:
        """The parameters with what is taken from records, the step with them, and what is wrong if it is so."""
        given = dict(variant.given)
        for param, field_of in asked.items():
            behind = dict.fromkeys(self._behind([feed for feed in feeds if feed.role == field_of.role]))
            items = [self.inputs[root][index] for root, index in behind]
            values = {
                str(value): value for item in items if (value := value_of(item.fields, field_of.name)) is not None
            }
            lacking = next((item for item in items if value_of(item.fields, field_of.name) is None), None)
            if lacking or len(values) != 1:
                told = f"{lacking.label} has none" if lacking else f"they differ: {', '.join(values)}"
                fault = f"parameter {param!r} is {{{field_of.role}.{field_of.name}}}, and {told}"
                return given, variant.inspection, f"{fault}; group by {field_of.name}" if len(values) > 1 else fault
            (given[param],) = values.values()
        try:
            return given, self.inspect(step, given), ""
        except InputError as error:
            return given, variant.inspection, "; ".join(fault.message for fault in error.faults) or str(error)

    def _unexpected(self, role: str, source: Source, feeds: Sequence[Feed]) -> str:
        if source.expect is None or len(feeds) == source.expect:
            return ""
        labels = [feed.instance or self.inputs[feed.input or ""][feed.index].label for feed in feeds]
        shown = f": {', '.join(labels)}" if 0 < len(labels) <= 12 else ""
        return f"{role}: {source.expect} of {source.source} are expected, and there are {len(labels)}{shown}"

    def _members(self, root: str, point: Point, fields: Sequence[str] = ()) -> Sequence[int] | None:
        """The datasets of an input that an instance is about, or the whole group of them by `fields`; None for all."""
        members = self._about(root, point)
        if members is None or not fields:
            return members
        dimension = grouping(root, fields)
        return self.groups[dimension][self.group_at[dimension][members[0]]].indices

    def _about(self, root: str, point: Point) -> Sequence[int] | None:
        if root in point:
            return (point[root],)
        return next((self.groups[one][index].indices for one, index in point.items()
                     if one in self.groups and root_of(one) == root), None)  # fmt: skip

    def _at(self, dimension: str, point: Point) -> int:
        """Where an instance stands along a dimension of one of its parents, which may be a coarser one than its own."""
        if dimension in point:
            return point[dimension]
        members = self._about(root_of(dimension), point)
        assert members  # the dimensions of a step are as fine as those of its parents
        return self.group_at[dimension][members[0]]

    def _feeds(self, step: BoundStep, role: str, source: Source, point: Point) -> tuple[list[Feed], str]:
        """The parents that a source gives, and why there are none if that is so."""
        collects = role in step.collected
        if source.source in self.inputs:
            indices, fault = self._items(source, point, collects=collects)
            feeds = [Feed(role, source.files, input=source.source, index=index) for index in indices]
            if len(indices) > 1 and step.inspection.roles[role] == "file":
                fault = f"input {source.source} has {len(indices)} datasets, but {role!r} of the step is one file"
                fault += "; give the input `each: true`, or annotate the role list[Path]"
            blocked = next((b for index in indices if (b := self.inputs[source.source][index].blocked)), "")
            return feeds, fault or blocked
        names = list(self._instances(source, point, collects=collects))
        fault = "" if names else f"there is nothing to collect: {source.source} has no instances"
        return [Feed(role, source.files, instance=name, output=source.output) for name in names], fault

    def _items(self, source: Source, point: Point, *, collects: bool) -> tuple[Sequence[int], str]:
        name = source.source
        declared, every = self.pipeline.spec.inputs[name], range(len(self.inputs[name]))
        partner = declared.partner
        if partner is not None:
            members = self._about(partner, point)
            pairs = self.partners[name] if members is None else [self.partners[name][index] for index in members]
            fault = next((pair.fault for pair in pairs if pair.fault), "") if members is not None else ""
            if members is not None and not collects:
                return pairs[0].all[:1], fault
            return sorted({index for pair in pairs for index in pair.all}), fault
        members = self._members(name, point, source.group_by or ())
        if members is not None and (source.group_by or not collects or name not in point):
            return members, ""
        return every, "" if every else f"input {name} has no dataset"

    def _instances(self, source: Source, point: Point, *, collects: bool) -> Iterator[str]:
        """The instances of a step that stand where this one stands; all of them along what it collects over."""
        name = source.source
        other = self.pipeline.steps[name]
        if not collects:
            yield self.names[name, tuple(self._at(dimension, point) for dimension in other.dimensions)]
            return
        roots = [root for root in self._roots(name) if self._about(root, point) is not None]
        wanted = {root: set(self._members(root, point, source.group_by or ()) or ()) for root in roots}
        for there, instance in self.points[name]:
            together = all(wanted[root].intersection(self._about(root, there) or ()) for root in roots)
            if together and all(
                there[one] == index for one, index in point.items() if one in there and one not in roots
            ):
                yield instance
