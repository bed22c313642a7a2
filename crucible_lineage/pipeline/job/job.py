"""A step to be made: everything that decides what it does and what its outputs are called. A value, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crucible_lineage.pipeline.bind.inspection import Inspection
from crucible_lineage.pipeline.spec.pipeline import OutputFields
from crucible_lineage.provenance.recipe import UsedDataset, step_recipe
from crucible_lineage.step import Step

__all__ = ["StepJob"]


@dataclass(frozen=True)
class StepJob:
    """A step to be made: what it runs with which parameters, its parents, and how its outputs are described.

    `name` is its name in the run, `label` tells the combination of swept parameters. `given` are the parameters as they
    were given; the function gets them validated. `step` is the function, where it is at hand; else `inspection.uses`
    names it, and `command` is what runs if it is no function. `declared` is what its record keeps of the declaration,
    so that it can be made again from there.
    """

    name: str
    project: str
    inspection: Inspection
    given: Mapping[str, Any]
    used: tuple[UsedDataset, ...]
    output: OutputFields = OutputFields()
    label: str = ""
    step: Step[..., Any] | None = None
    command: str | tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    declared_in: Path = field(default_factory=Path)
    keywords: tuple[str, ...] = ()
    pipeline: Mapping[str, Any] | None = None
    declared: Mapping[str, Any] | None = None
    run: Mapping[str, Any] | None = None
    attempt: int = 0
    timeout_s: float | None = None
    supersedes: Mapping[str, str] = field(default_factory=dict)

    def recipes(self) -> dict[str, dict[str, Any]]:
        """The recipe of each output."""
        inspection = self.inspection
        return {
            output: step_recipe(self.project, inspection.code, output, inspection.params, self.used, self.attempt)
            for output in inspection.outputs
        }
