"""What a run says of itself: events while it goes on, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["EXECUTED", "FAILED", "LEFT_OUT", "REUSED", "SKIPPED", "STARTED", "Listener", "RunResult", "StepEvent"]

EXECUTED, REUSED, FAILED, SKIPPED, STARTED = "executed", "reused", "failed", "skipped", "started"
LEFT_OUT = "left out"  # by --only or --from


@dataclass(frozen=True)
class StepEvent:
    """Something happened to an instance of a step: it was started, executed, reused, failed, skipped or left out."""

    step: str
    outcome: str
    detail: str = ""


Listener = Callable[[StepEvent], None]


@dataclass(frozen=True)
class RunResult:
    """What a run did. `datasets` maps steps (their instances) to the ids of their datasets, by output.

    `logs` are what failed steps printed, in files; `notes` is what one should know of steps that did not fail.
    """

    run_id: str
    pipeline: str
    project: str
    inputs: Mapping[str, tuple[str, ...]]
    datasets: Mapping[str, Mapping[str, str]]
    outcomes: Mapping[str, str]
    errors: Mapping[str, str] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def executed(self) -> list[str]:
        """The steps that ran."""
        return [step for step, outcome in self.outcomes.items() if outcome == EXECUTED]

    @property
    def ok(self) -> bool:
        """True if every step that was asked for has its result."""
        return all(outcome in (EXECUTED, REUSED, LEFT_OUT) for outcome in self.outcomes.values())

    def to_json(self) -> dict[str, Any]:
        """What `run --json` prints."""
        return {
            "run_id": self.run_id,
            "pipeline": self.pipeline,
            "project": self.project,
            "inputs": {name: list(mfids) for name, mfids in self.inputs.items()},
            "datasets": {step: dict(outputs) for step, outputs in self.datasets.items()},
            "outcomes": dict(self.outcomes),
            "executed": self.executed,
            "errors": dict(self.errors),
            "logs": dict(self.logs),
            "notes": dict(self.notes),
        }
