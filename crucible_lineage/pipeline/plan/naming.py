"""What the instances of steps are called, and which places their results have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from crucible_lineage.core.slots import place
from crucible_lineage.pipeline.bind.dimensions import root_of
from crucible_lineage.pipeline.bind.model import BoundPipeline, BoundStep
from crucible_lineage.pipeline.inputs.groups import Group
from crucible_lineage.pipeline.inputs.inputs import InputItem, Inputs
from crucible_lineage.pipeline.spec.inputs import DatasetInput, FileInput, PipelineInput, ResultInput

__all__ = ["Naming", "Point"]

Point = Mapping[str, int]  # dimension -> index of its value


class Naming:
    """The labels of all values of dimensions. `groups` are those of the dimensions that are groups, once known."""

    def __init__(self, pipeline: BoundPipeline, inputs: Inputs, groups: Mapping[str, tuple[Group, ...]]) -> None:
        self.pipeline = pipeline
        self.inputs = inputs
        self.groups = groups
        self.labels = {name: _distinct([item.shown or item.label for item in items]) for name, items in inputs.items()}
        self.scopes = {name: _distinct(_scopes(items)) for name, items in inputs.items()}

    def told_apart(self, step: BoundStep, point: Point) -> str:
        """Return what tells its results from those of other instances, beside its group, or its first input's data."""
        items = [self.label(name, index) for name, index in point.items() if name in self.inputs]
        variants = self._variants(step, point)
        return ", ".join((*items[0 if self.group(point) else 1 :], *variants))

    def group(self, point: Point) -> str:
        """Return the labels of the groups at a point; empty if there are none."""
        return ", ".join(self.label(name, index) for name, index in point.items() if name in self.groups)

    def places(self, step: BoundStep, point: Point) -> dict[str, tuple[str, ...]]:
        """Return the places of each output, whichever dataset holds there."""
        if step.declared is None:
            return {}
        scope = self._scope(step, point)
        pipeline, name = step.declared["name"], step.declared["step"]
        return {output: (place(pipeline, name, output, scope),) for output in step.inspection.outputs}

    def _scope(self, step: BoundStep, point: Point) -> str:
        """Return the scope: the items it is taken for one at a time, else its first input; and its variant."""
        items = [
            self.scopes[name][index] if name in self.inputs else self.groups[name][index].label
            for name, index in point.items()
            if name in self.inputs or name in self.groups
        ]
        return ", ".join((*(items or [self._first_input(step)]), *self._variants(step, point)))

    def of(self, root: str, point: Point) -> str:
        """Return the label of the datasets of an input at a point: their group."""
        return next((self.label(one, index) for one, index in point.items() if root_of(one) == root), root)

    def _variants(self, step: BoundStep, point: Point) -> list[str]:
        """The combinations of swept parameters that it is made with, also where only one is left of several."""
        swept = dict.fromkeys(self._swept(step))
        swept |= dict.fromkeys(name for name in point if name in self.pipeline.steps)  # those above a group, too
        return [self.pipeline.steps[name].variants[point.get(name, 0)].label for name in swept]

    def _swept(self, step: BoundStep) -> Iterator[str]:
        """The steps with a matrix that it hangs together with, one instance with one."""
        for role, sources in step.sources.items():
            for source in sources if role not in step.collected else ():
                if source.source in self.pipeline.steps:
                    yield from self._swept(self.pipeline.steps[source.source])
        if step.variants[0].label:
            yield step.name

    def _first_input(self, step: BoundStep) -> str:
        """The item that the first input of a step leads back to, or the input's name if that takes several together."""
        while step.sources:
            role, sources = next(iter(step.sources.items()))
            source = sources[0].source
            if source in self.inputs:
                alone = len(sources) == 1 and _is_single(self.pipeline.spec.inputs[source]) and self.inputs[source]
                return self.scopes[source][0] if alone else source
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
    """True if an input stands for one item that was named: another name is other data, and supersedes nothing."""
    if isinstance(declared, FileInput):
        return isinstance(declared.file, str) and not declared.is_pattern
    return isinstance(declared, ResultInput) or (isinstance(declared, DatasetInput) and len(declared.dataset) == 1)


def _scopes(items: Sequence[InputItem]) -> list[str]:
    """Return the scope of the results of each item: files of one name get their folders."""
    names = Counter(item.scope for item in items)
    return [item.scope if names[item.scope] == 1 else item.path_scope for item in items]


def _distinct(labels: Sequence[str]) -> list[str]:
    """The labels, numbered where several are the same."""
    seen: dict[str, int] = {}
    result = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        result.append(label if seen[label] == 1 else f"{label}#{seen[label]}")
    return result
