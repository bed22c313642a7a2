"""Values of dimensions: their labels in the names of instances, and their scopes in the slots of results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from crucible_lineage.errors import shortened
from crucible_lineage.lineage.records import value_of
from crucible_lineage.pipeline.declare.inputs import DatasetInput, FileInput, ResultInput
from crucible_lineage.pipeline.plan.bind import label_of
from crucible_lineage.pipeline.plan.bound import PARAMS_PREFIX, BoundPipeline, BoundStep, Dimension
from crucible_lineage.pipeline.plan.inputs import InputItem
from crucible_lineage.text.amounts import value_text


@dataclass(frozen=True)
class Value:
    """A value of a dimension: its label, the scope of its results, and its members by index.

    The members are items of an input or combinations of swept parameters, several in a group. `fault` says why they
    cannot be grouped.
    """

    label: str
    scope: str
    members: tuple[int, ...]
    fault: str = ""


def values_of_input(items: Sequence[InputItem]) -> tuple[Value, ...]:
    """Return each item as a value; in scopes, files of the same name are distinguished by folder."""
    scopes = [item.about or item.label for item in items]
    names = Counter(scopes)
    for index, item in enumerate(items):
        if names[scopes[index]] > 1 and item.raw and len(item.raw.files) == 1:
            scopes[index] = f"{item.raw.files[0].path.parent.name}/{scopes[index]}"
    scopes = _distinct(scopes)
    labels = _distinct([item.label for item in items])
    return tuple(Value(label, scope, (n,)) for n, (label, scope) in enumerate(zip(labels, scopes, strict=True)))


def groups_of(items: Sequence[InputItem], fields: Sequence[str]) -> tuple[Value, ...]:
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
    groups = [Value(label, label, tuple(members[label])) for label in sorted(members, key=order.__getitem__)]
    for name, indices in incomplete.items():
        named = shortened([items[index].label for index in indices], 1)
        fault = items[indices[0]].blocked or f"{named} cannot be grouped: there is no {name} in the record"
        groups.append(Value(f"without {name}", f"without {name}", tuple(indices), fault))
    return tuple(groups)


def groups_of_combinations(combinations: Iterable[Mapping[str, object]], fields: Iterable[str]) -> tuple[Value, ...]:
    """Group combinations of swept parameters by the values of these, in their own order."""
    names = [name.removeprefix(PARAMS_PREFIX) for name in fields]
    members: dict[str, list[int]] = {}
    for index, combination in enumerate(combinations):
        label = label_of({name: combination[name] for name in names if name in combination})
        members.setdefault(label, []).append(index)
    return tuple(Value(label, label, tuple(indices)) for label, indices in members.items())


def swept_above(step: BoundStep, pipeline: BoundPipeline) -> Iterator[str]:
    """Yield the steps with a matrix that a step is connected to instance by instance, itself included."""
    for role, source in step.spec.edges:
        if role not in step.collected and source.source in pipeline.steps and not source.is_partner:
            yield from swept_above(pipeline.steps[source.source], pipeline)
    if step.variants[0].label:
        yield step.name


def first_scope(step: BoundStep, pipeline: BoundPipeline, columns: Mapping[Dimension, Sequence[Value]]) -> str:
    """Return the scope of the item behind a step's first input, or the input's name if that is several items.

    One named item is a scope: under another name it is other data, and its results supersede nothing.
    """
    while step.spec.inputs:
        role, sources = next(iter(step.spec.inputs.items()))
        source = sources[0].source
        if source in pipeline.spec.inputs:
            declared = pipeline.spec.inputs[source]
            is_single = len(sources) == 1 and (
                isinstance(declared, ResultInput)
                or (isinstance(declared, FileInput) and len(declared.file) == 1 and not declared.is_pattern)
                or (isinstance(declared, DatasetInput) and len(declared.dataset) == 1)
            )
            values = columns[Dimension(source)]
            return values[0].scope if is_single and values else source
        if len(sources) > 1 or role in step.collected:
            return source
        step = pipeline.steps[source]
    return ""


def _distinct(labels: Sequence[str]) -> list[str]:
    """Return the labels, numbered where several are equal."""
    seen: Counter[str] = Counter()
    result = []
    for label in labels:
        seen[label] += 1
        result.append(label if seen[label] == 1 else f"{label}#{seen[label]}")
    return result


def _order(value: object) -> tuple[bool, object]:
    """Return a sort key: numbers first, then texts."""
    return (False, value) if isinstance(value, int | float) else (True, str(value))
