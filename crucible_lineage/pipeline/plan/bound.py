"""Pipelines bound to their functions: steps with inspections of their code, in an order of execution."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from crucible_lineage.errors import InputError, nearest
from crucible_lineage.pipeline.declare.pipeline import PipelineSpec, Source, StepSpec
from crucible_lineage.pipeline.plan.inspect import Inspection


@dataclass(frozen=True)
class Variant:
    """A step with one combination of its swept parameters. The label lists them; it is empty if none is swept."""

    label: str
    given: Mapping[str, object]
    inspection: Inspection


@dataclass(frozen=True)
class BoundStep:
    """A declared step with the inspection of its function. `needs` are the steps it depends on.

    `dimensions` are the inputs with `each` and the steps with a matrix for whose values it has instances. `collected`
    are the roles that take all instances of their sources as one list. `declared` is the entry in records: name and
    hash of the pipeline, and the step's name in it. `locations` are those of its inputs, as file:line:column.
    """

    name: str
    spec: StepSpec
    variants: tuple[Variant, ...]
    sources: Mapping[str, tuple[Source, ...]]
    needs: tuple[str, ...]
    collected: frozenset[str] = frozenset()
    dimensions: tuple[str, ...] = ()
    declared: Mapping[str, str] | None = None
    locations: Mapping[str, str] = field(default_factory=dict)

    @property
    def inspection(self) -> Inspection:
        """The inspection of the first variant; all variants share the function."""
        return self.variants[0].inspection


@dataclass(frozen=True)
class BoundPipeline:
    """A pipeline that can be planned and run. `steps` are in an order of execution."""

    spec: PipelineSpec
    steps: Mapping[str, BoundStep]

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.spec.pipeline


def require_names(pipeline: BoundPipeline, names: Collection[str], instances: Collection[str] = ()) -> None:
    """Raise InputError if a name is neither a step of the pipeline nor one of the instances."""
    for name in names:
        if name not in pipeline.steps and name not in instances:
            hint = nearest(name, [*pipeline.steps, *instances])
            raise InputError(f"pipeline {pipeline.name!r} has no step {name!r}; {hint}")


def descendants(pipeline: BoundPipeline, names: Iterable[str]) -> set[str]:
    """Return these steps and all that depend on them."""
    found = set(names)
    for name, step in pipeline.steps.items():  # in an order of execution
        if not found.isdisjoint(step.needs):
            found.add(name)
    return found
