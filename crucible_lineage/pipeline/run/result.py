"""The choice of steps for a run, the states of all, the events during it, a request to stop it, and its result."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from crucible_lineage.core import journal as rows
from crucible_lineage.core.journal import ResultRow
from crucible_lineage.errors import INTERRUPTED
from crucible_lineage.json_types import json_of
from crucible_lineage.pipeline.job.job import Outcome, StepState
from crucible_lineage.pipeline.plan.bound import BoundPipeline, graph_of, require_names
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.plan.plan import StepPlan
from crucible_lineage.refs import DatasetRef

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
    is_request: bool = False  # for one dataset of an input

    @property
    def is_whole(self) -> bool:
        """Whether the choice is the complete pipeline as declared."""
        return not (self.only or self.from_ or self.as_of or self.is_request)

    def require_steps(self, pipeline: BoundPipeline) -> None:
        """Raise InputError for an unknown name of a step; instances are known only from a plan."""
        instances = [name for name in self.only if "[" in name and name.partition("[")[0] in pipeline.steps]
        require_names(pipeline, (*self.only, *self.from_), instances)

    def taking_part(self, pipeline: BoundPipeline, instances: Mapping[str, Instance]) -> frozenset[str]:
        """Return the instances that may be executed."""
        if not self.only and not self.from_:
            return frozenset(instances)
        import networkx

        chosen = {*self.only, *self.from_}.union(*(networkx.descendants(pipeline.graph, name) for name in self.from_))
        found = instances.items()
        return frozenset(name for name, instance in found if not chosen.isdisjoint((name, instance.step.name)))


@dataclass(frozen=True)
class StepEvent:
    """An event of a step instance, or of the run (without a name); of its phase or outcome."""

    step: str
    outcome: Outcome
    detail: str = ""
    seconds: float | None = None  # from its actual start
    todo: tuple[str, ...] = ()  # PLANNED: the steps to execute


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


_MAX_REMADE = 5  # chosen: how often a run makes a step again because others registered other parents
_ROW: Mapping[str, str] = {
    Outcome.FAILED: rows.FAILED,
    Outcome.SKIPPED: rows.SKIPPED,
    Outcome.STOPPED: rows.STOPPED,
    Outcome.REUSED: rows.OVERTAKEN,
}


class Steps(dict[str, StepState]):
    """The states of all step instances of a run, by name. Outcomes are recorded in the journal, and reported.

    `jobs` are those of the steps under way, `ready` are the steps whose parents are done.
    """

    def __init__(
        self, instances: Mapping[str, Instance], journal: rows.Journal, run_id: str, project: str, listener: Listener
    ) -> None:
        super().__init__((name, StepState()) for name in instances)
        self.instances = instances
        self.journal = journal
        self.run_id = run_id
        self.project = project
        self.listener = listener
        self.jobs: dict[str, StepPlan] = {}
        self.ready: list[str] = []
        self.has_failed = False
        self._made_by: dict[str, str] = {}  # dataset -> step
        self._children: dict[str, list[str]] = {name: [] for name in instances}
        for name, instance in instances.items():
            for need in instance.needs:
                self._children[need].append(name)

    def set_results(self, name: str, outputs: Mapping[str, DatasetRef]) -> None:
        """Set the results of a step."""
        self[name].results = outputs
        self._made_by |= dict.fromkeys((dataset.mfid for dataset in outputs.values()), name)

    def makers(self, mfids: Collection[str]) -> list[str]:
        """Return the steps whose results are among these datasets."""
        made_by = dict.fromkeys(self._made_by.get(mfid, "") for mfid in mfids)
        return [name for name in made_by if name and not set(self[name].mfids).isdisjoint(mfids)]

    def wait(self, name: str) -> None:
        """Let a step begin when its parents are done, or end it if one cannot be."""
        state, needs = self[name], self.instances[name].needs
        if left_out := [need for need in needs if self[need].outcome == Outcome.LEFT_OUT]:
            message = f"its parent {left_out[0]} is missing and was left out; run without --only, or --from it"
            self.end(name, Outcome.FAILED, message)
            return
        state.needs = {need for need in needs if not self[need].results}
        if not state.needs:
            self.ready.append(name)
        elif bad := self._bad_parent(name):
            self.end(name, Outcome.SKIPPED, _missing(bad))

    def release(self, name: str) -> None:
        """Let the steps begin for which this one, now done, was the last parent."""
        for child in self._children[name]:
            state = self[child]
            if name in state.needs:
                state.needs.discard(name)
                if not state.needs and not state.outcome:
                    self.ready.append(child)

    def end(self, name: str, outcome: Outcome, error: str = "", /, **failed: object) -> None:
        """Record the outcome of a step; skip the descendants of a failed one. `failed` identifies a failure's count."""
        state, mfids = self[name], ids_of(self[name].results)
        state.outcome, state.error = outcome, error
        seconds = state.took
        if seconds is None and state.began is not None:
            seconds = time.monotonic() - state.began
        if outcome in _ROW:
            facts = {"error": error or None, **failed}
            self.journal.end_step(self.run_id, self.project, name, _ROW[outcome], mfids, **facts)
        self.listener(StepEvent(name, outcome, error or ", ".join(mfids.values()), seconds))
        if outcome in (Outcome.FAILED, Outcome.SKIPPED):
            self.has_failed = self.has_failed or outcome == Outcome.FAILED
            for child in self._children[name]:
                if not self[child].outcome and child not in self.jobs and self[child].needs:
                    self.end(child, Outcome.SKIPPED, _missing(name))

    def make_again(self, name: str, reason: str) -> None:
        """Reset a step and its descendants, and let them begin again."""
        import networkx

        fixed = {other for other, state in self.items() if other in self.jobs or state.outcome == Outcome.LEFT_OUT}
        below = networkx.descendants(networkx.restricted_view(graph_of(self.instances), fixed - {name}, ()), name)
        names = [step for step in self.instances if step == name or step in below]
        for step in names:
            state = self[step]
            state.remade += bool(state.results)
            state.outcome, state.error, state.results, state.took, state.began = "", "", {}, None, None
        for step in names:
            if self[step].remade > _MAX_REMADE:
                self.end(step, Outcome.FAILED, f"it was made {_MAX_REMADE} times, and each time {reason}")
            elif not self[step].outcome:
                self.wait(step)

    def skip_reason(self, name: str, *, stopped: bool) -> str:
        """Return why a step was not begun."""
        if stopped:
            return "the run was stopped before it was begun"
        bad = self._bad_parent(name)
        return _missing(bad) if bad else "not started, because another step failed"

    def _bad_parent(self, name: str) -> str | None:
        needs = self.instances[name].needs
        return next((need for need in needs if self[need].outcome in (Outcome.FAILED, Outcome.SKIPPED)), None)


def ids_of(outputs: Mapping[str, DatasetRef]) -> dict[str, str]:
    """Return {output: id of its dataset}."""
    return {output: dataset.mfid for output, dataset in outputs.items()}


def _missing(need: str) -> str:
    return f"{need}, which it needs, has no result"


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
