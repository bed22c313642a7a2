"""Names of instances, and slots of their results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from crucible_lineage.core.slots import slot
from crucible_lineage.errors import shortened
from crucible_lineage.lineage.fields import value_of
from crucible_lineage.pipeline.declare.inputs import DatasetInput, FileInput, PipelineInput, ResultInput
from crucible_lineage.pipeline.plan.bind import label_of
from crucible_lineage.pipeline.plan.bound import BoundPipeline, BoundStep
from crucible_lineage.pipeline.plan.inputs import InputItem, Inputs
from crucible_lineage.text.amounts import value_text

Point = Mapping[str, int]  # dimension -> index of its value


class DimensionLabels:
    """Labels of the values of all dimensions. `groups` holds the groups of dimensions, added as they are formed."""

    def __init__(self, pipeline: BoundPipeline, inputs: Inputs, groups: Mapping[str, tuple[Group, ...]]) -> None:
        self.pipeline = pipeline
        self.inputs = inputs
        self.groups = groups
        self.labels = {name: _distinct([item.shown or item.label for item in items]) for name, items in inputs.items()}
        self.scopes = {name: _distinct(_scopes(items)) for name, items in inputs.items()}

    def own_label(self, step: BoundStep, point: Point) -> str:
        """Return what distinguishes an instance, beside its group or the dataset of its first input."""
        items = [self.label(name, index) for name, index in point.items() if name in self.inputs]
        variants = self._variants(step, point)
        return ", ".join((*items[0 if self.group(point) else 1 :], *variants))

    def group(self, point: Point) -> str:
        """Return the labels of the groups at a point; empty if there are none."""
        return ", ".join(self.label(name, index) for name, index in point.items() if name in self.groups)

    def slots(self, step: BoundStep, point: Point) -> dict[str, tuple[str, ...]]:
        """Return the slots of each output."""
        if step.declared is None:
            return {}
        scope = self._scope(step, point)
        pipeline, name = step.declared["name"], step.declared["step"]
        return {output: (slot(pipeline, name, output, scope),) for output in step.inspection.outputs}

    def _scope(self, step: BoundStep, point: Point) -> str:
        """Return the scope: the items or groups of its point, else its first input; then its variant."""
        items = [
            self.scopes[name][index] if name in self.inputs else self.groups[name][index].label
            for name, index in point.items()
            if name in self.inputs or name in self.groups
        ]
        return ", ".join((*(items or [self._first_input(step)]), *self._variants(step, point)))

    def _variants(self, step: BoundStep, point: Point) -> list[str]:
        """Return the labels of the combinations of swept parameters, including matrices with a single one."""
        swept = dict.fromkeys(self._swept(step))
        swept |= dict.fromkeys(name for name in point if name in self.pipeline.steps)  # also upstream of groups
        return [self.pipeline.steps[name].variants[point.get(name, 0)].label for name in swept]

    def _swept(self, step: BoundStep) -> Iterator[str]:
        """Yield the steps with a matrix that it is connected to instance by instance."""
        for role, sources in step.sources.items():
            for source in sources if role not in step.collected else ():
                if source.source in self.pipeline.steps:
                    yield from self._swept(self.pipeline.steps[source.source])
        if step.variants[0].label:
            yield step.name

    def _first_input(self, step: BoundStep) -> str:
        """Return the scope of the item behind a step's first input, or the input's name if that is several items."""
        while step.sources:
            role, sources = next(iter(step.sources.items()))
            source = sources[0].source
            if source in self.inputs:
                single = len(sources) == 1 and _is_single(self.pipeline.spec.inputs[source]) and self.inputs[source]
                return self.scopes[source][0] if single else source
            if len(sources) > 1 or role in step.collected:
                return source
            step = self.pipeline.steps[source]
        return ""

    def label(self, dimension: str, index: int) -> str:
        """Return the label of a value of a dimension."""
        if dimension in self.inputs:
            return self.labels[dimension][index]
        if dimension in self.groups:
            return self.groups[dimension][index].label
        return self.pipeline.steps[dimension].variants[index].label


def _is_single(declared: PipelineInput) -> bool:
    """Return whether an input is one named item: under another name it is other data and supersedes nothing."""
    if isinstance(declared, FileInput):
        return len(declared.file) == 1 and not declared.is_pattern
    return isinstance(declared, ResultInput) or (isinstance(declared, DatasetInput) and len(declared.dataset) == 1)


def _scopes(items: Sequence[InputItem]) -> list[str]:
    """Return the scopes of the items' results; files of the same name are distinguished by folder."""
    names = Counter(item.scope for item in items)
    return [item.scope if names[item.scope] == 1 else item.path_scope for item in items]


def _distinct(labels: Sequence[str]) -> list[str]:
    """Return the labels, numbered where several are equal."""
    seen: dict[str, int] = {}
    result = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        result.append(label if seen[label] == 1 else f"{label}#{seen[label]}")
    return result


@dataclass(frozen=True)
class Group:
    """The members of a group by index, and its label; `fault` says why they cannot be grouped."""

    label: str
    indices: tuple[int, ...]
    fault: str = ""


def groups_of(items: Sequence[InputItem], fields: Sequence[str]) -> tuple[Group, ...]:
    """Return the groups, sorted by their values. Items without a field form a group with a fault."""
    members: dict[str, list[int]] = {}
    order: dict[str, tuple[tuple[bool, object], ...]] = {}
    incomplete: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        values = [value_of(item.fields, name) for name in fields]
        missing = next((name for name, value in zip(fields, values, strict=True) if value in (None, "")), None)
        if missing:
            incomplete.setdefault(missing, []).append(index)
            continue
        label = ", ".join(map(value_text, values))
        members.setdefault(label, []).append(index)
        order.setdefault(label, tuple(map(_order, values)))
    groups = [Group(label, tuple(members[label])) for label in sorted(members, key=order.__getitem__)]
    for name, indices in incomplete.items():
        named = shortened([items[index].label for index in indices], 1)
        fault = items[indices[0]].blocked or f"{named} cannot be grouped: there is no {name} in the record"
        groups.append(Group(f"without {name}", tuple(indices), fault))
    return tuple(groups)


def groups_of_variants(combinations: Iterable[Mapping[str, object]], names: Sequence[str]) -> tuple[Group, ...]:
    """Group combinations of swept parameters by the values of these, in their own order."""
    members: dict[str, list[int]] = {}
    for index, combination in enumerate(combinations):
        label = label_of({name: combination[name] for name in names if name in combination})
        members.setdefault(label, []).append(index)
    return tuple(Group(label, tuple(indices)) for label, indices in members.items())


def _order(value: object) -> tuple[bool, object]:
    """Return a sort key: numbers first, then texts."""
    return (False, value) if isinstance(value, int | float) else (True, str(value))
