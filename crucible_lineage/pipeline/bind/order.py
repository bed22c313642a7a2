"""The order in which steps can run, and the cycle that leaves none."""

from __future__ import annotations

from collections.abc import Mapping

from crucible_lineage.pipeline.spec.pipeline import PipelineSpec, StepSpec

__all__ = ["ordered", "source_names"]


def ordered(spec: PipelineSpec) -> tuple[list[str], list[str]]:
    """Steps in an order in which they can run, that of the declaration where there is a choice; and a cycle, if any."""
    waiting = {
        name: {source for source in source_names(step) if source in spec.steps and source != name}
        for name, step in spec.steps.items()
    }
    order: list[str] = []
    while ready := [name for name, needs in waiting.items() if needs.isdisjoint(waiting)]:
        for name in ready:
            del waiting[name]
        order += ready
    return order, _cycle(waiting) if waiting else []


def source_names(step: StepSpec) -> set[str]:
    """The inputs and steps that a step takes files from."""
    return {source.source for given in step.sources.values() for source in given}


def _cycle(waiting: Mapping[str, set[str]]) -> list[str]:
    """One cycle, in the direction in which data flows."""
    path = [next(iter(waiting))]
    while (following := min(name for name in waiting[path[-1]] if name in waiting)) not in path:
        path.append(following)
    loop = path[path.index(following) :]
    return [loop[0], *reversed(loop)]
