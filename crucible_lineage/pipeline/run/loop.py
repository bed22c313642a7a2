"""The loop of a run: executing steps that are not fresh when their parents are done, and delivering the results.

Only the thread of `Run.loop` changes the state of a run. Engine, deliverer and signals put events on its queue. A
failed step stops only its descendants; a result overtaken by another machine is made again from that machine's parents.
"""

from __future__ import annotations

import json
import math
import queue
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from crucible_lineage.core.journal import MADE, REFUSED, ResultRow
from crucible_lineage.errors import (
    TRANSIENT,
    ChecksumError,
    FileChangedError,
    ForbiddenError,
    InputError,
    LineageError,
    OnHoldError,
    StoppedError,
    UnauthorizedError,
    shortened,
)
from crucible_lineage.pipeline.job.job import Outcome
from crucible_lineage.pipeline.logs import listening_to_phases, record_fault
from crucible_lineage.pipeline.plan.bound import BoundPipeline, require_names
from crucible_lineage.pipeline.plan.inputs import InputItem
from crucible_lineage.pipeline.plan.plan import BLOCKED, PipelinePlan, StepPlan, plan_instance, used_datasets
from crucible_lineage.pipeline.run.currency import SlotWriter
from crucible_lineage.pipeline.run.result import MAX_RETURNED, Listener, StepChoice, StepEvent, Steps, Stop, ids_of
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.payload import Payload
from crucible_lineage.registration.queue import DROPPED
from crucible_lineage.session import Session

if TYPE_CHECKING:  # a run in which all is fresh makes and delivers nothing
    from crucible_lineage.pipeline.engines.local import Engine
    from crucible_lineage.registration.deliver import Deliverer

_PATIENCE_S = 1.0  # before a stopped run reports what it still waits for
_POLL_S = 0.25  # while only deliveries are waited for
_ENDED = "it was ended, because the run was stopped"
# Errors that are not the fault of the step or its data do not count as its failures.
_NOT_COUNTED = (
    *TRANSIENT,
    ChecksumError,
    FileChangedError,
    ForbiddenError,
    OnHoldError,
    StoppedError,
    UnauthorizedError,
)
Arrived = Callable[[Payload], None]


@dataclass(eq=False)
class Run:
    """One run of a pipeline: steps done, steps under way, and steps that wait for parents."""

    pipeline: BoundPipeline
    session: Session
    run_id: str
    planned: PipelinePlan
    inputs: Mapping[str, tuple[InputItem, ...]]
    listener: Listener
    choice: StepChoice

    def __post_init__(self) -> None:
        self.instances = self.planned.instances
        self.index = self.planned.index
        require_names(self.pipeline, self.choice.only, self.instances)
        self.taking_part = self.choice.taking_part(self.pipeline, self.instances)
        spec = self.pipeline.spec
        self.steps = Steps(self.instances, self.session.journal, self.run_id, spec.project, self.listener)
        declared_in = spec.path if spec.digest else None  # None if it was made from records
        self.slot_writer = SlotWriter(self.session, self.planned, self.pipeline.name, self.run_id, declared_in)
        self.unseen = ""
        self.held: dict[str, str] = {}
        self.stayed: list[str] = []
        self.delivered: list[str] = []
        self.stopped = False
        self.began = datetime.now(UTC)
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # what the loop is to do next
        self._engine: Engine | None = None  # once a step was started
        self._begun: dict[str, str] = {}  # start of the last job of each step
        self._early: dict[str, list[tuple[ResultRow, Payload | None]]] = {}  # of a step that has not ended yet
        self._own: set[str] = set()  # results of this run
        self.returned: dict[str, Mapping[str, Mapping[str, object]]] = {}
        self._reported: set[str] = set()
        self._arrived: Arrived | None = None

    # Before the loop

    def adopt(self) -> None:
        """Apply the plan: fresh steps are reused; blocked steps and those left out end; the others wait or begin."""
        reused, left_out, todo = [], [], []
        for step in self.planned.steps:
            if step.exists:
                self.steps.set_results(step.name, step.results)
                reused.append(step)
            elif step.name not in self.taking_part:
                left_out.append(step.name)
            else:
                todo.append(step)
        made = [step.instance for step in todo if step.state != BLOCKED]
        self.index.begin([key for instance in made for keys in instance.slots.values() for key in keys])
        self._reuse(reused)
        self.session.journal.note_present(self.run_id, Outcome.LEFT_OUT, {name: {} for name in left_out})
        for name in left_out:
            self.steps[name].outcome = Outcome.LEFT_OUT
            self.listener(StepEvent(name, Outcome.LEFT_OUT))
        for step in todo:
            if step.state == BLOCKED:
                self._end_blocked(step)
            else:
                self.steps.wait(step.name)

    @property
    def has_work(self) -> bool:
        """Whether any step is still to be executed."""
        return any(not state.outcome for state in self.steps.values())

    def _reuse(self, steps: list[StepPlan]) -> None:
        """Rely on existing results, all at once, since there may be thousands."""
        datasets = {step.name: ids_of(step.results) for step in steps}
        self.session.journal.note_present(self.run_id, Outcome.REUSED, datasets)
        for step in steps:
            self.slot_writer.rely_on(step)
            self.steps[step.name].outcome = Outcome.REUSED
            self.listener(StepEvent(step.name, Outcome.REUSED, ", ".join(datasets[step.name].values())))
        if self.has_work and not self.index.is_away:
            with self.session.client.repeating(0.0):  # what fails is tried again at the end, and waited for
                self.slot_writer.write(datasets)
        for step in steps:
            self.slot_writer.await_signatures(self.instances[step.name], step.results)

    def _end_blocked(self, step: StepPlan) -> None:
        if step.on_hold:
            self.held[step.name] = "; ".join(step.causes)
        self.steps.end(step.name, Outcome.FAILED, f"blocked: {'; '.join(step.causes)}")

    # The loop

    def note_delivery(self, row: ResultRow, payload: Payload | None) -> None:
        """Put the outcome of a delivery on the queue; called in threads of the deliverer."""
        self._events.put(partial(self._note_delivered, row, payload))

    def loop(self, engine: Callable[[], Engine], deliverer: Deliverer, stop: Stop, arrived: Arrived | None) -> None:
        """Execute and deliver until nothing is left, or nothing more can be done."""
        self._arrived = arrived
        self._own |= {mfid for state in self.steps.values() for mfid in state.mfids}
        if todo := tuple(name for name, state in self.steps.items() if not state.outcome):
            self.listener(StepEvent("", Outcome.PLANNED, todo=todo))
        idle_since: float | None = None
        try:
            with (
                stop.listened_to_by(lambda: self._events.put(self._stop)),
                listening_to_phases(
                    self.run_id,
                    lambda step, phase: self._events.put(partial(self._note_phase, step, phase, time.monotonic())),
                ),
            ):
                while True:
                    while self._may_begin(deliverer) and self.steps.ready and self._has_room():
                        if self._engine is None:
                            self._engine = engine()
                            self._engine.deliverer = deliverer
                        self._start_next(self._engine)
                    if self.steps.jobs:
                        idle_since = None
                    else:
                        idle_since = idle_since or time.monotonic()
                        if self.stopped or deliverer.is_settled(self.choice.patience_s, idle_since, self._own):
                            deliverer.give_up_lacking()
                            if self._events.empty():
                                break
                    self._apply_next(deliverer, idle_since)
        except BaseException as error:
            if self._engine is not None:
                self._engine.stop(self.run_id)
            self.stopped = not isinstance(error, Exception)
            raise
        finally:
            self._end_open()

    def _apply_next(self, deliverer: Deliverer, idle_since: float | None) -> None:
        """Apply the next event, or report what the run waits for if none comes."""
        try:
            # A signal just before a wait does not end the wait, so that every wait needs a timeout.
            apply = self._events.get(timeout=_PATIENCE_S if idle_since is None else _POLL_S)
        except queue.Empty:
            if self.stopped:
                names = shortened(sorted(self.steps.jobs), 3)
                message = f"waiting until {names} is ended or registered; press Ctrl-C again to exit at once"
                self.report_once(Outcome.STOPPING, message)
            elif idle_since and time.monotonic() - idle_since > _PATIENCE_S and (left := deliverer.waiting()):
                self.report_once(Outcome.DELIVERING, f"delivering {left} result{'s' if left > 1 else ''}")
        else:
            apply()

    def _may_begin(self, deliverer: Deliverer) -> bool:
        return not (self.stopped or deliverer.refuses_all or (self.steps.has_failed and not self.choice.keep_going))

    def _start_next(self, engine: Engine) -> None:
        ready, embedded = self.steps.ready, self.session.settings.embedded
        # Other machines may run the same: each starts with another step.
        name = ready.pop(0 if embedded else random.randrange(len(ready)))  # noqa: S311 (no secret)
        if not self.steps[name].outcome and name not in self.steps.jobs:
            self._start(engine, name)

    def _has_room(self) -> bool:
        return len(self.steps.jobs) < getattr(self._engine, "most_at_once", math.inf)

    def _start(self, engine: Engine, name: str) -> None:
        instance = self.instances[name]
        if not all(self.steps[need].results for need in instance.needs):  # refused or made again meanwhile
            self.steps.wait(name)
            return
        forced = name in self.choice.forced or instance.step.name in self.choice.forced
        results = {need: self.steps[need].results for need in instance.needs}
        try:
            used = used_datasets(instance, self.inputs, results)
            planned = plan_instance(instance, used, self.index, forced=forced)
        except (InputError, *TRANSIENT) as error:  # facts about a parent may need the service
            self.steps.end(name, Outcome.FAILED, str(error))
            return
        if planned.exists:  # its parents were made again with the same bytes
            self.stayed.append(name)
            self._rely_on(planned)
            return
        if planned.state == BLOCKED:
            self._end_blocked(planned)
            return
        self.listener(StepEvent(name, Outcome.QUEUED))
        slots = self.slot_writer.new_slots(instance)
        spec, run = self.pipeline.spec, {"run_id": self.run_id}
        job = replace(planned, project=spec.project, run=run, slots=slots, variables=tuple(spec.env))
        self.steps.jobs[name], self._begun[name] = job, datetime.now(UTC).isoformat()
        engine.start(job).add_done_callback(
            lambda running: self._events.put(partial(self._collect, engine, name, running))
        )

    def _note_phase(self, step: str, phase: str, at: float) -> None:
        if phase == Outcome.STARTED and self.steps[step].began is None:
            self.steps[step].began = at
        self.listener(StepEvent(step, Outcome(phase)))

    def _collect(self, engine: Engine, name: str, running: object) -> None:
        job, state = self.steps.jobs[name], self.steps[name]  # kept until the outcome is known
        try:
            made = engine.result(running)
        except StoppedError as error:
            state.log = error.log or ""
            if state.began is not None:
                self.steps.end(name, Outcome.STOPPED, _ENDED)
            else:
                self.steps.end(name, Outcome.SKIPPED, self.steps.skip_reason(name, stopped=self.stopped))
        except LineageError as error:
            state.log, state.trace = getattr(error, "log", None) or "", getattr(error, "trace", "")
            counted = {} if isinstance(error, _NOT_COUNTED) else _counted(job)
            self.steps.end(name, Outcome.FAILED, str(error), **counted)
        except (Exception, SystemExit) as error:
            message, state.log = record_fault(error, self.session.settings.data)
            self.steps.end(name, Outcome.FAILED, message, **_counted(job))
        else:
            state.note, state.took = made.note, made.took
            if made.outcome == Outcome.EXECUTED:
                self._own |= set(made.mfids)
                self.slot_writer.note_made(self.instances[name], made.results)
                self.returned[name] = made.returned  # of the last steps: they would be read back from Crucible
                if len(self.returned) > 4 * MAX_RETURNED:
                    del self.returned[next(iter(self.returned))]
                self._done(name, Outcome.EXECUTED, made.results)
            else:
                self._rely_on(replace(job, results=made.results))
        del self.steps.jobs[name]
        for row, payload in self._early.pop(name, ()):
            self._note_delivered(row, payload)

    def _rely_on(self, step: StepPlan) -> None:
        """Rely on existing results, and make them current."""
        self._own |= set(ids_of(step.results).values())
        self.slot_writer.rely_on(step)
        self._done(step.name, Outcome.REUSED, step.results)

    def _done(self, name: str, outcome: Outcome, outputs: Mapping[str, DatasetRef]) -> None:
        self.steps.set_results(name, outputs)
        self.steps.end(name, outcome)
        self.slot_writer.await_signatures(self.instances[name], outputs)
        self.steps.release(name)

    # Deliveries

    def _note_delivered(self, row: ResultRow, payload: Payload | None) -> None:
        """Apply the outcome of a delivery."""
        if row.step in self.steps.jobs and row.run == self.run_id and row.made >= self._begun[row.step]:
            self._early.setdefault(row.step, []).append((row, payload))
            return
        names = self.steps.makers(row.mfids)
        if row.state in (REFUSED, MADE):
            self._note_undelivered(row, names)
            return
        if row.state == DROPPED:
            if not names:
                self.report_once(Outcome.WAITING, f"{row.error}; the next run of its pipeline makes it again", row.step)
            for name in names:
                self.steps.make_again(name, row.error)
            return
        for name in names:
            results = self.steps[name].results
            self.steps.set_results(name, {out: row.refs.get(ref.mfid, ref) for out, ref in results.items()})
            if not row.is_ours:  # another machine's result has that machine's returned values
                self.returned.pop(name, None)
        if payload is not None and row.is_ours and not payload.supports:
            if row.run != self.run_id:
                self.delivered += row.mfids
            if self._arrived is not None:
                self._arrived(payload)

    def _note_undelivered(self, row: ResultRow, names: list[str]) -> None:
        """Report a result that waits; end the steps of a refused one."""
        if row.refused and names:
            self._reported.add(row.error)
        else:
            self.report_once(Outcome.WAITING, row.error, row.step)
        for name in names if row.refused else ():
            self.steps[name].log = row.log or self.steps[name].log
            self.steps.end(name, Outcome.FAILED, f"made, and not registered: {row.error}")
            self.steps[name].results = {}

    # Stopping

    def _stop(self) -> None:
        """Start no more steps, and end those under way."""
        self.stopped = True
        self.session.journal.end_run(self.run_id, "stopped")  # now, since the process may be killed
        self.listener(
            StepEvent("", Outcome.STOPPING, "stopping: no further steps are started, running ones are terminated")
        )
        if self._engine is not None:
            self._engine.stop(self.run_id)

    def _end_open(self) -> None:
        """End the open steps at the end of the loop; a step under way may have its result nevertheless."""
        for name, state in self.steps.items():
            if job := self.steps.jobs.pop(name, None):
                known = self.session.known
                made = {planned.output: found for planned in job.outputs if (found := known(planned.mfid))}
                if len(made) == len(job.outputs):
                    self.steps.set_results(name, made)
                    self.steps.end(name, Outcome.EXECUTED)
                else:
                    self.steps.end(name, Outcome.STOPPED, _ENDED)
            elif not state.outcome:
                self.steps.end(name, Outcome.SKIPPED, self.steps.skip_reason(name, stopped=self.stopped))

    # Reports

    def report_once(self, outcome: Outcome, message: str, step: str = "") -> None:
        if message not in self._reported:
            self._reported.add(message)
            self.listener(StepEvent(step, outcome, message))


def _counted(job: StepPlan) -> dict[str, str]:
    """Return the id under which failures of a step are counted, and what it is about."""
    return {"name": job.mfid, "about": json.dumps(job.instance.subject)}
