"""A pipeline bound to its functions: its steps with what is known of their code, in the order in which they can run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from crucible_lineage.errors import Fault, InputError, nearest
from crucible_lineage.pipeline.functions.inspection import Inspection
from crucible_lineage.pipeline.spec.pipeline import PipelineSpec, Source, StepSpec


@dataclass(frozen=True)
class Variant:
    """A step with one combination of its swept parameters; the label tells them, and is empty if none is swept."""

    label: str
    given: Mapping[str, Any]
    inspection: Inspection


@dataclass(frozen=True)
class BoundStep:
    """A declared step with what is known of its function. `needs` are the steps it waits for.

    `dimensions` are the inputs with `each`, and the steps with a matrix, that it has one instance for each value of.
    `collected` are the roles that are given all instances of their sources as one list. `declared` is what records say
    of the declaration: name and hash of the pipeline, and what the step is called in it. `places` are where its inputs
    are declared, as file:line:column. `blocked` is why nothing is known of its function, so that it cannot be made.
    """

    name: str
    spec: StepSpec
    variants: tuple[Variant, ...]
    sources: Mapping[str, tuple[Source, ...]]
    needs: tuple[str, ...]
    collected: frozenset[str] = frozenset()
    dimensions: tuple[str, ...] = ()
    declared: Mapping[str, str] | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    blocked: Fault | None = None

    @property
    def inspection(self) -> Inspection:
        """The step as its function is; of its parameters, those of the first variant."""
        return self.variants[0].inspection


@dataclass(frozen=True)
class BoundPipeline:
    """A pipeline that can be planned and run. `steps` stand in the order in which they can run."""

    spec: PipelineSpec
    steps: Mapping[str, BoundStep]

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.spec.pipeline

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Return why some of its steps cannot be made, though the others can."""
        return tuple(step.blocked for step in self.steps.values() if step.blocked)


def declared_step(spec: PipelineSpec, name: str) -> dict[str, str]:
    """Return a step's declaration for records."""
    return {"name": spec.pipeline, "hash": spec.digest, "step": name}


def require_names(pipeline: BoundPipeline, names: Collection[str], instances: Collection[str] = ()) -> None:
    """InputError if one of the names is no step of the pipeline, nor one of the instances."""
    for name in names:
        if name not in pipeline.steps and name not in instances:
            hint = nearest(name, [*pipeline.steps, *instances])
            raise InputError(f"pipeline {pipeline.name!r} has no step {name!r}; {hint}")


def descendants(pipeline: BoundPipeline, names: Iterable[str]) -> set[str]:
    """Return these steps and all that depend on them."""
    found = set(names)
    for name, step in pipeline.steps.items():  # in an order in which they can run
        if not found.isdisjoint(step.needs):
            found.add(name)
    return found
