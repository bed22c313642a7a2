"""Names of steps that somebody gave: checked, with the nearest one that there is."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from crucible_lineage.errors import InputError, nearest
from crucible_lineage.pipeline.bind.model import BoundPipeline

__all__ = ["descendants", "require_names"]


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
