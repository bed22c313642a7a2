"""What a run is asked for and says of itself: which steps, events while it goes on, its result."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from crucible_lineage.pipeline.bind.model import BoundPipeline, descendants, require_names
from crucible_lineage.pipeline.job.progress import MADE, STARTED
from crucible_lineage.registration.outbox import WaitingResult

__all__ = [
    "AWAY",
    "DELIVERING",
    "EXECUTED",
    "FAILED",
    "LEFT_OUT",
    "MADE",
    "PASSING",
    "PLANNED",
    "QUEUED",
    "REGISTERING",
    "REUSED",
    "SKIPPED",
    "STARTED",
    "STOPPED",
    "STOPPING",
    "WAITING",
    "Listener",
    "RunResult",
    "StepChoice",
    "StepEvent",
]

EXECUTED = "executed"
REUSED = "reused"
FAILED = "failed"
SKIPPED = "skipped"
# On its way a step is handed to the engine, begun, and made; registered, it is executed.
QUEUED = "queued"
LEFT_OUT = "left out"  # by --only or --from
STOPPED = "stopped"  # it was under way when the run was stopped
# Said of a run, not of a step.
STOPPING, PLANNED, REGISTERING, DELIVERING = "stopping", "planned", "registering", "delivering"
WAITING = "waiting"  # a result that was made could not be delivered yet, for this reason
AWAY = "away"  # the service does not answer, and what the run does meanwhile
# What is of interest only to whoever looks on.
PASSING = (QUEUED, STARTED, MADE, PLANNED, REGISTERING, DELIVERING)


MOST_RETURNED = 12  # chosen: datasets of which a run tells what their steps returned


@dataclass(frozen=True)
class StepChoice:
    """Which steps a run makes: all that are not fresh, unless said otherwise.

    `forced` ones are made again; with `only`, just these; with `from_`, these and all that depend on them. Without
    `keep_going` nothing more is started once a step has failed. At the end a Crucible that is away is waited for, for
    `patience_s` in which it does not come back. Calibrations are those that were certified `as_of` a moment. What is
    made for a `campaign` counts once that is promoted.
    """

    forced: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    from_: tuple[str, ...] = ()
    keep_going: bool = True
    patience_s: float = 180.0
    as_of: str = ""
    campaign: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether it asks for the pipeline as it is declared."""
        return not (self.only or self.from_ or self.campaign or self.as_of)

    def steps(self, pipeline: BoundPipeline) -> Collection[str]:
        """The declared steps that may be made. InputError if a name is none."""
        instances = [name for name in self.only if "[" in name and name.partition("[")[0] in pipeline.steps]
        require_names(pipeline, (*self.only, *self.from_), instances)
        if not self.only and not self.from_:
            return pipeline.steps
        return {name.partition("[")[0] for name in self.only} | descendants(pipeline, self.from_)

    def makes(self, step: str, instance: str, pipeline: BoundPipeline) -> bool:
        """Return whether an instance of a step may be made."""
        if not self.only and not self.from_:
            return True
        return not {step, instance}.isdisjoint(self.only) or step in descendants(pipeline, self.from_)


@dataclass(frozen=True)
class StepEvent:
    """Something happened to an instance of a step (`outcome` is one of the words above), or to the run (no name)."""

    step: str
    outcome: str
    detail: str = ""
    seconds: float | None = None  # that it took, from its real beginning
    todo: Mapping[str, float | None] = field(default_factory=dict)  # PLANNED: what each step took on average before


Listener = Callable[[StepEvent], None]


@dataclass(frozen=True)
class RunResult:
    """Outcome of a run. `datasets` maps steps (their instances) to the ids of their datasets, by output.

    `logs` are what failed steps printed, in files; `tracebacks` theirs, from their functions on; `notes` is what
    one should know of steps that did not fail. `stopped` is True if it was told to end before it was done.
    `waiting` are results of this run that are made and not yet at Crucible, `delivered` are datasets that an earlier
    run had left so and that are there now, `not_ingested` says which files it could not read.
    `stayed` are steps after one that was made again, which stay since it gave the same bytes; `current_again` those
    whose earlier result holds again; `unseen` says why what was there when the run began could not be seen at Crucible,
    and went by what is known here; `undeclared` are slots of results that hold and are declared no more.
    `returned` is what the last steps returned, by step and output, as far as the run knows it itself; `input_notes`
    are what is to be said of measured files.
    `held` says of steps why nothing is made from their parents, or from their results: something is on hold.
    `unsigned` are results that wait for signatures.
    """

    run_id: str
    pipeline: str
    project: str
    inputs: Mapping[str, tuple[str, ...]]
    datasets: Mapping[str, Mapping[str, str]]
    outcomes: Mapping[str, str]
    errors: Mapping[str, str] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)
    tracebacks: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    stopped: bool = False
    waiting: tuple[WaitingResult, ...] = ()
    delivered: tuple[str, ...] = ()
    not_ingested: tuple[str, ...] = ()
    stayed: tuple[str, ...] = ()
    current_again: tuple[str, ...] = ()
    undeclared: tuple[str, ...] = ()
    unseen: str = ""
    returned: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    input_notes: tuple[str, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    unsigned: tuple[str, ...] = ()

    @property
    def is_held(self) -> bool:
        """True if all that is not made is not made since something is on hold, or a result of it is on hold now."""
        bad = [step for step, outcome in self.outcomes.items() if outcome not in (EXECUTED, REUSED, LEFT_OUT)]
        return bool(self.held) and not self.waiting and not self.stopped and all(step in self.held for step in bad)

    def error_line(self, step: str) -> str:
        """Return the error of a step, which names it once."""
        error = self.errors[step]
        return error if repr(step) in error else f"{step}: {error}"

    @property
    def executed(self) -> list[str]:
        """The steps that ran."""
        return [step for step, outcome in self.outcomes.items() if outcome == EXECUTED]

    @property
    def ok(self) -> bool:
        """Whether every step that was asked for has its result, seen at Crucible, and nothing waits to be delivered."""
        return not self.waiting and not self.unseen and not self.is_failed

    @property
    def is_failed(self) -> bool:
        """Whether a step that was asked for has no result."""
        return any(outcome not in (EXECUTED, REUSED, LEFT_OUT) for outcome in self.outcomes.values())

    def to_json(self) -> dict[str, Any]:
        """Return the result for `run --json`."""
        return {
            "run_id": self.run_id,
            "pipeline": self.pipeline,
            "project": self.project,
            "inputs": {name: list(mfids) for name, mfids in self.inputs.items()},
            "datasets": {step: dict(outputs) for step, outputs in self.datasets.items()},
            "outcomes": dict(self.outcomes),
            "executed": self.executed,
            "stopped": self.stopped,
            "errors": {step: {"message": message, "log": self.logs.get(step)} for step, message in self.errors.items()},
            "logs": dict(self.logs),
            "tracebacks": dict(self.tracebacks),
            "notes": dict(self.notes),
            "waiting": [one.to_json() for one in self.waiting],
            "delivered": list(self.delivered),
            "not_ingested": list(self.not_ingested),
            "stayed": list(self.stayed),
            "current_again": list(self.current_again),
            "undeclared": list(self.undeclared),
            "input_notes": list(self.input_notes),
            "unseen": self.unseen or None,
            "held": dict(self.held),
            "unsigned": list(self.unsigned),
        }
