"""A step to be made: everything that decides what it does and what its outputs are called. A value, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crucible_lineage.pipeline.inspection import Inspection
from crucible_lineage.pipeline.spec import OutputFields
from crucible_lineage.recipe import UsedDataset, step_recipe
from crucible_lineage.step import Step

__all__ = ["StepJob"]


@dataclass(frozen=True)
class StepJob:
    """A step to be made: the function with its checked parameters, its parents, and how its outputs are described."""

    name: str
    project: str
    step: Step[..., Any] | None  # None for a command
    inspection: Inspection
    given: Mapping[str, Any]  # the parameters as they were given; the function gets them validated
    used: tuple[UsedDataset, ...]
    output: OutputFields
    keywords: tuple[str, ...] = ()
    pipeline: Mapping[str, Any] | None = None
    run: Mapping[str, Any] | None = None
    attempt: int = 0
    timeout_s: float | None = None
    declared_in: Path = field(default_factory=Path)
    command: str | tuple[str, ...] = ()
    supersedes: Mapping[str, str] = field(default_factory=dict)

    def recipes(self) -> dict[str, dict[str, Any]]:
        """The recipe of each output."""
        inspection = self.inspection
        return {
            output: step_recipe(self.project, inspection.code, output, inspection.params, self.used, self.attempt)
            for output in inspection.outputs
        }
