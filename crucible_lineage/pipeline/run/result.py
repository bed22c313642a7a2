"""The choice of steps for a run, the events during it, a request to stop it, and its result."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from types import FrameType
from typing import TYPE_CHECKING

from crucible_lineage.core.journal import ResultRow
from crucible_lineage.errors import INTERRUPTED
from crucible_lineage.json_types import json_of
from crucible_lineage.pipeline import logs
from crucible_lineage.pipeline.plan.bound import BoundPipeline, require_names

if TYPE_CHECKING:
    from crucible_lineage.pipeline.plan.expand import Instance


class Outcome(StrEnum):
    """The outcome of a step, or its present phase; the last ones are of a run.

    A step is QUEUED when the engine has it, then STARTED, then MADE; when registered, it is EXECUTED.
    """

    EXECUTED = "executed"
    REUSED = "reused"
    FAILED = "failed"
    ON_HOLD = "on hold"  # of a run: nothing failed, and what is missing or doubtful is so because of statements
    SKIPPED = "skipped"
    QUEUED = "queued"
    STARTED = logs.STARTED
    MADE = logs.MADE
    LEFT_OUT = "left out"  # by --only or --from
    STOPPED = "stopped"  # under way when the run was stopped
    STOPPING = "stopping"
    PLANNED = "planned"
    REGISTERING = "registering"
    DELIVERING = "delivering"
    WAITING = "waiting"  # why a result could not be delivered yet
    AWAY = "away"  # why the service is away, and what the run does meanwhile


_DONE = (Outcome.EXECUTED, Outcome.REUSED, Outcome.LEFT_OUT)
PASSING = (  # of interest only while the run goes on
    *(Outcome.QUEUED, Outcome.STARTED, Outcome.MADE),
    *(Outcome.PLANNED, Outcome.REGISTERING, Outcome.DELIVERING),
)
MAX_RETURNED = 12  # chosen: datasets whose returned values a run reports


@dataclass(frozen=True)
class StepChoice:
    """The steps that a run executes: by default all that are not fresh.

    `forced` steps are executed again; with `only`, just these; with `from_`, these and their descendants. Without
    `keep_going`, nothing is started after a step has failed. At the end, the run waits up to `patience_s` for a
    Crucible that is away. Calibrations are those certified `as_of` a moment.
    """

    forced: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    from_: tuple[str, ...] = ()
    keep_going: bool = True
    patience_s: float = 180.0
    as_of: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether the choice is the complete pipeline as declared."""
        return not (self.only or self.from_ or self.as_of)

    def require_steps(self, pipeline: BoundPipeline) -> None:
        """Raise InputError for an unknown name of a step; instances are known only from a plan."""
        instances = [name for name in self.only if "[" in name and name.partition("[")[0] in pipeline.steps]
        require_names(pipeline, (*self.only, *self.from_), instances)

    def taking_part(self, pipeline: BoundPipeline, instances: Mapping[str, Instance]) -> frozenset[str]:
        """Return the instances that may be executed."""
        import networkx

        chosen = {*self.only, *self.from_}.union(*(networkx.descendants(pipeline.graph, name) for name in self.from_))
        return frozenset(
            name
            for name, instance in instances.items()
            if (not self.only and not self.from_) or not chosen.isdisjoint((name, instance.step.name))
        )


@dataclass(frozen=True)
class StepEvent:
    """An event of a step instance, or of the run (without a name); of its phase or outcome."""

    step: str
    outcome: Outcome
    detail: str = ""
    seconds: float | None = None  # from its actual start
    todo: Mapping[str, float | None] = field(default_factory=dict)  # PLANNED: the mean duration of each step before


Listener = Callable[[StepEvent], None]


@dataclass(frozen=True)
class RunResult:
    """Outcome of a run. `datasets` maps step instances to the ids of their datasets, by output.

    `logs` are the log files of failed steps, `tracebacks` their tracebacks, starting at their functions; `notes` are
    messages about steps that did not fail. `stopped` is True if the run was stopped before it was done.
    `waiting` are results of this run that are not yet at Crucible, `delivered` are datasets of earlier runs that were
    delivered now, `not_ingested` describes files that Crucible could not read.
    `stayed` are steps that were not executed because a parent that was made again has the same bytes; `current_again`
    are those whose earlier result is current again. `unseen` says why reused results could not be confirmed at
    Crucible, so that the run relied on local knowledge; `undeclared` are slots with current results that are no longer
    declared. `returned` are the values that the last steps returned, by step and output, if known to the run;
    `input_notes` are messages about measured files.
    `held` has the steps whose parents or results are on hold, or wait for a signature, with the reason.
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
    waiting: tuple[ResultRow, ...] = ()
    delivered: tuple[str, ...] = ()
    not_ingested: tuple[str, ...] = ()
    stayed: tuple[str, ...] = ()
    current_again: tuple[str, ...] = ()
    undeclared: tuple[str, ...] = ()
    unseen: str = ""
    returned: Mapping[str, Mapping[str, Mapping[str, object]]] = field(default_factory=dict)
    input_notes: tuple[str, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)

    @property
    def end(self) -> str:
        """How the run ended, in the words of `runs`: stopped, on hold, complete or failed."""
        held = self.is_held and not self.unseen
        return "stopped" if self.stopped else Outcome.ON_HOLD if held else "complete" if self.ok else Outcome.FAILED

    @property
    def is_held(self) -> bool:
        """Whether every step without a result is prevented by a hold, or some result is on hold or doubtful."""
        bad = [step for step, outcome in self.outcomes.items() if outcome not in _DONE]
        return bool(self.held) and not self.waiting and not self.stopped and all(step in self.held for step in bad)

    def error_line(self, step: str) -> str:
        """Return the error of a step, with its name exactly once."""
        error = self.errors[step]
        return error if repr(step) in error else f"{step}: {error}"

    @property
    def executed(self) -> list[str]:
        """The executed steps."""
        return [step for step, outcome in self.outcomes.items() if outcome == Outcome.EXECUTED]

    @property
    def ok(self) -> bool:
        """Whether every requested step has its result, confirmed at Crucible, and nothing waits for delivery."""
        return not self.waiting and not self.unseen and not self.is_failed

    @property
    def is_failed(self) -> bool:
        """Whether a requested step has no result."""
        return any(outcome not in _DONE for outcome in self.outcomes.values())

    def to_json(self) -> dict[str, object]:
        """Return the result for `run --json`."""
        plain = {name: value for name, value in vars(self).items() if name != "returned"}
        return plain | {
            "executed": self.executed,
            "errors": {step: {"message": message, "log": self.logs.get(step)} for step, message in self.errors.items()},
            "waiting": json_of(self.waiting),
            "unseen": self.unseen or None,
        }


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """A request to stop a run. It calls the listener (see `listened_to_by`); without one, it is a KeyboardInterrupt."""

    def __init__(self) -> None:
        self.is_requested = False
        self._listener: Callable[[], None] | None = None
        self._on_signals = False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM request the stop in this block; the second signal ends the process within a second."""
        self._on_signals = threading.current_thread() is threading.main_thread()
        with self._handling():
            try:
                yield
            finally:
                self._on_signals = False

    @contextmanager
    def listened_to_by(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call `listener`, perhaps within a signal handler, when a stop is requested in this block."""
        self._listener = listener
        if self.is_requested:
            listener()
        with self._handling():  # again, since Prefect installs its own handlers during a flow
            try:
                yield
            finally:
                self._listener = None

    @contextmanager
    def _handling(self) -> Iterator[None]:
        if not self._on_signals:
            yield
            return
        before = {number: signal.signal(number, self._signalled) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def request(self) -> None:
        """Request the stop, now or as soon as there is a listener."""
        self.is_requested = True
        if self._listener is not None:
            self._listener()

    def _signalled(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (Python's signature)
        if self.is_requested:  # end this process despite its threads; the processes of steps end with it
            clear = "\r\x1b[2K\x1b[?25h" if sys.stderr.isatty() else ""
            end = "stopped immediately; registered results are kept; run the same command again to continue"
            os.write(2, f"{clear}{end}\n".encode())
            os._exit(INTERRUPTED)
        self.is_requested = True
        if self._listener is None:
            raise KeyboardInterrupt
        self._listener()
