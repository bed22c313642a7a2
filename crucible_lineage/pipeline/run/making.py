"""The steps of a run, made: each as soon as its parents are done, as wide as the engine allows.

A failed step stops only its descendants. What another machine has overtaken is made again from what is there.
"""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.disk import storage_error
from crucible_lineage.errors import TRANSIENT, InputError, LineageError, StoppedError
from crucible_lineage.pipeline.bind.model import BoundPipeline
from crucible_lineage.pipeline.engines.engine import Engine
from crucible_lineage.pipeline.inputs.inputs import InputItem
from crucible_lineage.pipeline.job.job import Job, job_of
from crucible_lineage.pipeline.job.phases import hearing_phases
from crucible_lineage.pipeline.plan.plan import BLOCKED, FRESH, PipelinePlan, StepPlan, plan_instance
from crucible_lineage.pipeline.plan.planner import Planned
from crucible_lineage.pipeline.plan.used import used_datasets
from crucible_lineage.pipeline.run.choice import Choice
from crucible_lineage.pipeline.run.currency import Reliance, Relied
from crucible_lineage.pipeline.run.outcomes import Outcomes, ids_of
from crucible_lineage.pipeline.run.redescribed import described_anew
from crucible_lineage.pipeline.run.relying import Relying
from crucible_lineage.pipeline.run.result import (
    DELIVERING,
    EXECUTED,
    FAILED,
    LEFT_OUT,
    MADE,
    PLANNED,
    QUEUED,
    REUSED,
    SKIPPED,
    STARTED,
    STOPPED,
    STOPPING,
    WAITING,
    Listener,
    StepEvent,
)
from crucible_lineage.pipeline.run.stopping import Stop
from crucible_lineage.pipeline.run.troubles import Troubles
from crucible_lineage.pipeline.run.waiting import WaitingSteps
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.refs import DatasetRef
from crucible_lineage.session import Session

if TYPE_CHECKING:  # a run in which all is fresh delivers nothing
    from crucible_lineage.registration.delivery.deliveries import Deliveries

__all__ = ["Making"]

_PATIENCE_S = 1.0  # before it is said what a run that was stopped still waits for
_ENDED = "ended"
_MOST_ROUNDS = 3  # chosen: how often what another machine has overtaken is made again in one run


class Making:
    """The state of one run: what is done, what is under way, what waits for which parents."""

    def __init__(
        self,
        pipeline: BoundPipeline,
        session: Session,
        run_id: str,
        planned: Planned,
        inputs: Mapping[str, tuple[InputItem, ...]],
        listener: Listener,
        choice: Choice,
    ) -> None:
        self.pipeline = pipeline
        self.session = session
        self.run_id = run_id
        self.instances = planned.instances
        self.knowledge = planned.knowledge
        self.inputs = inputs
        self.listener = listener
        self.choice = choice
        self.chosen = choice.steps(pipeline)
        self.outcomes = Outcomes(run_id, planned.instances, session.store, listener)
        self.reliance = Reliance(session, planned.knowledge, pipeline.name, run_id, _declared_in(pipeline))
        self.relying = Relying(self.reliance, session.outbox)
        self.waiting = WaitingSteps()
        self.stayed: list[str] = []
        self.delivered: tuple[str, ...] = ()
        self.stopped = False
        self._jobs: dict[str, Job] = {}
        self._news: queue.SimpleQueue[tuple[str, str, Any]] = queue.SimpleQueue()
        wake = partial(self._news.put, (WAITING, "", None))  # who waits for a step looks
        self.troubles = Troubles(self.outcomes, listener, wake)

    def adopt(self, planned: PipelinePlan) -> None:
        """Steps whose results are there are done; those that cannot or shall not be made are named."""
        reused, todo = [], []
        for step in planned.steps:
            if step.state == FRESH:
                self.outcomes.results[step.name] = step.results
                reused.append(step)
            elif step.step not in self.chosen:
                self.outcomes.end(step.name, LEFT_OUT, {})
            elif step.state == BLOCKED:
                self.outcomes.end(step.name, FAILED, {}, f"it cannot be made: {'; '.join(step.causes)}")
            else:
                todo.append(step.name)
        self._reused(reused)
        for name in todo:
            self._wait(name)

    def _reused(self, steps: list[StepPlan]) -> None:
        """Said and written down in one go, since there may be thousands."""
        names = [step.name for step in steps]
        datasets = {name: ids_of(self.outcomes.results[name]) for name in names}
        self.session.store.record_reused(self.run_id, datasets)
        errors = self.relying.rely([Relied(self.instances[step.name], step.results, step.used) for step in steps])
        there = [step for step in steps if not self.relying.waits(step.results.values())]
        again = described_anew(self.pipeline, there, self.instances, self.reliance.known, self.session, self.run_id)
        errors |= again.errors
        self.outcomes.notes |= again.told
        for name in names:
            if name in errors:
                self.outcomes.end(name, FAILED, datasets[name], errors[name])
                continue
            self.outcomes.of[name] = REUSED
            self.listener(StepEvent(name, REUSED, ", ".join(datasets[name].values())))

    def _wait(self, name: str) -> None:
        needs = self.instances[name].needs
        left_out = [need for need in needs if self.outcomes.of.get(need) == LEFT_OUT]
        if left_out:
            message = f"its parent {left_out[0]} is not there and was left out; run without --only, or --from it"
            self.outcomes.end(name, FAILED, {}, message)
            return
        self.waiting.wait(name, [need for need in needs if need not in self.outcomes.results])

    def make(self, engine: Engine | None, deliveries: Deliveries, stop: Stop) -> None:
        """What waits is made and delivered; what another machine has overtaken is made again from what is there."""
        if engine is not None and hasattr(engine, "deliveries"):
            engine.deliveries = deliveries
        self.relying.client = deliveries.desk.client
        with stop.heard_by(lambda: self._news.put((STOPPING, "", None))):
            for left in reversed(range(_MOST_ROUNDS)):
                if engine is not None and self.waiting:
                    self.execute(engine)
                self.stopped = self.stopped or stop.asked
                if not self.stopped:
                    deliveries.drain(self.choice.patience_s, self._tell_left, lambda: stop.asked)
                    self.stopped = stop.asked
                self.troubles.take()
                self._rely_on_arrived()
                self.outcomes.forget_returned(deliveries.under_way.theirs)
                if engine is None or self.stopped or not left or not self._start_over(deliveries):
                    break
        self.delivered = tuple(deliveries.under_way.delivered)

    def execute(self, engine: Engine) -> None:
        """Every other step is started as soon as its parents are done."""
        news = self._news
        self._tell_planned()
        try:
            with hearing_phases(self.run_id, lambda name, phase: news.put((phase, name, time.monotonic()))):
                self._work(engine, news)
        except BaseException as error:
            engine.stop(self.run_id)
            self.stopped = not isinstance(error, Exception)
            raise
        finally:
            for name in self.instances:
                if job := self._jobs.get(name):
                    self._end_under_way(name, job)
                elif name not in self.outcomes.of:
                    self.outcomes.end(name, SKIPPED, {}, self._why_skipped(name))

    def _end_under_way(self, name: str, job: Job) -> None:
        """A step that was under way when the run was ended has its result all the same, or was stopped."""
        made = {planned.output: self.session.known(planned.mfid) for planned in job.outputs}
        if all(made.values()):
            self.outcomes.end(name, EXECUTED, ids_of({output: dataset for output, dataset in made.items() if dataset}))
        else:
            self.outcomes.end(name, STOPPED, {}, "it was ended, since the run was stopped")

    def _tell_planned(self) -> None:
        took = self.session.store.took(self.pipeline.name)
        todo = {name: took.get(self.instances[name].step.name, (None, 0))[0] for name in self.waiting}
        self.listener(StepEvent("", PLANNED, todo=todo))

    def _work(self, engine: Engine, news: queue.SimpleQueue[tuple[str, str, Any]]) -> None:
        waited = False  # and it was said for what
        while True:
            while self._may_begin() and (ready := self.waiting.take_ready()):
                if not self.session.settings.embedded:  # another machine may run the same: each starts elsewhere
                    random.shuffle(ready)
                for name in ready:
                    self._start(engine, name, news)
            if not self._jobs:
                return
            try:
                kind, name, what = news.get(timeout=_PATIENCE_S)  # a signal just before a wait does not end it
            except queue.Empty:
                if self.stopped and not waited:
                    self._tell_waiting()
                    waited = True
                continue
            if kind == _ENDED:
                self._collect(engine, name, what)
            elif kind in (STARTED, MADE):
                self._got_to(name, kind, what)
            elif kind == STOPPING and not self._stop(engine):
                return
            self.troubles.take()

    def _may_begin(self) -> bool:
        failed = self.troubles.stops or (self.outcomes.has_failure and not self.choice.keep_going)
        return not failed and not self.stopped

    def _tell_left(self, number: int) -> None:
        results = "1 result" if number == 1 else f"{number} results"
        self.listener(StepEvent("", DELIVERING, f"delivering {results}"))

    def _start_over(self, deliveries: Deliveries) -> bool:
        """True if steps are to be made again, since other bytes of a parent are registered than they were made from."""
        under_way = deliveries.under_way
        dropped, under_way.dropped = set(under_way.dropped), []
        self.outcomes.results = {
            name: {output: under_way.adopted.get(one.mfid, one) for output, one in outputs.items()}
            for name, outputs in self.outcomes.results.items()
        }
        again = [name for name, outputs in self.outcomes.results.items() if dropped & set(ids_of(outputs).values())]
        for name, instance in self.instances.items():  # parents come before their children
            if self.outcomes.of.get(name) in (FAILED, SKIPPED) and set(again) & set(instance.needs):
                again.append(name)
        self.waiting = WaitingSteps()
        for name in again:
            self.outcomes.forget(name)
        for name in again:
            self._wait(name)
        return bool(again)

    def _rely_on_arrived(self) -> None:
        for name, error in self.relying.rely_on_arrived(self.outcomes.results).items():
            self.outcomes.end(name, FAILED, ids_of(self.outcomes.results[name]), error)

    def _got_to(self, name: str, phase: str, when: float) -> None:
        if name in self._jobs:
            if phase == STARTED:
                self.outcomes.begin(name, when)
            self.listener(StepEvent(name, phase))

    def _stop(self, engine: Engine) -> bool:
        """True if the steps that are under way are to be waited for; else they have been ended."""
        self.stopped = True
        self.session.store.end_run(self.run_id, "stopped")  # so it is, should nobody be left to say so later
        self.listener(StepEvent("", STOPPING, "stopping: no step is begun any more, what runs is ended"))
        if engine.stop(self.run_id):
            return True
        for name in list(self._jobs):
            del self._jobs[name]
            self.outcomes.end(name, STOPPED, {}, "it was ended, since the run was stopped")
        return False

    def _tell_waiting(self) -> None:
        names = sorted(self._jobs)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        message = f"waiting until {', '.join(names[:3])}{more} is ended or registered; Ctrl-C again to leave at once"
        self.listener(StepEvent("", STOPPING, message))

    def _why_skipped(self, name: str) -> str:
        if self.stopped:
            return "the run was stopped before it was begun"
        bad = next(
            (need for need in self.instances[name].needs if self.outcomes.of.get(need) in (FAILED, SKIPPED)), None
        )
        return f"{bad}, which it needs, has no result" if bad else "a step failed, and no more were to be begun"

    def _start(self, engine: Engine, name: str, news: queue.SimpleQueue[tuple[str, str, object]]) -> None:
        instance = self.instances[name]
        if any(need not in self.outcomes.results for need in instance.needs):  # refused meanwhile: it is skipped
            return
        forced = name in self.choice.forced or instance.step.name in self.choice.forced
        project = self.pipeline.spec.project
        try:
            used = used_datasets(instance, self.inputs, self.outcomes.results)
            planned = plan_instance(project, instance, used, self.knowledge, forced=forced)
        except (InputError, *TRANSIENT) as error:  # facts about a parent that only the service knows
            self.outcomes.end(name, FAILED, {}, str(error))
            return
        if planned.state == FRESH:  # its parents were made again, with the same bytes
            self.stayed.append(name)
            self._relied_on(name, planned.results, used)
            return
        if planned.state == BLOCKED:
            self.outcomes.end(name, FAILED, {}, f"it cannot be made: {'; '.join(planned.causes)}")
            return
        self.listener(StepEvent(name, QUEUED))
        places = self.reliance.new_places(instance)
        job = job_of(self.pipeline, instance, used, planned.outputs, {"run_id": self.run_id}, places)
        self._jobs[name] = job
        engine.start(job).add_done_callback(lambda running: news.put((_ENDED, name, running)))

    def _collect(self, engine: Engine, name: str, running: object) -> None:
        job = self._jobs[name]  # until it is known how it ended: a run that is suspended hears nothing of it
        try:
            made = engine.result(running)
        except StoppedError as error:
            self.outcomes.logs |= {name: error.log} if error.log else {}
            if self.outcomes.has_begun(name):
                self.outcomes.end(name, STOPPED, {}, "it was ended, since the run was stopped")
            else:
                self.outcomes.end(name, SKIPPED, {}, self._why_skipped(name))
        except LineageError as error:
            self.outcomes.logs |= {name: log} if (log := getattr(error, "log", None)) else {}
            self.outcomes.tracebacks |= {name: trace} if (trace := getattr(error, "trace", "")) else {}
            self.outcomes.end(name, FAILED, {}, str(error))
        except (Exception, SystemExit) as error:
            refused = storage_error(error) if isinstance(error, OSError) else None
            self.outcomes.end(name, FAILED, {}, str(refused or self._told_fault(name, error)))
        else:
            self.outcomes.notes |= {name: made.note} if made.note else {}
            self.outcomes.took |= {name: made.seconds} if made.seconds is not None else {}
            if made.executed:
                self.reliance.note_made(self.instances[name], made.outputs)
                self.outcomes.note_returned(name, made.returned)
                self._done(name, EXECUTED, made.outputs)
            else:
                self._relied_on(name, made.outputs, job.used)
        del self._jobs[name]

    def _told_fault(self, name: str, error: BaseException) -> str:
        from crucible_lineage.pipeline.logs.fault import (
            told_fault,
        )  # a run in which nothing is wrong starts faster

        fault = told_fault(error, self.session.settings.data, self.session.settings.api_key)
        self.outcomes.logs |= {name: str(fault.log)} if fault.log else {}
        return fault.message

    def _relied_on(self, name: str, outputs: Mapping[str, DatasetRef], used: tuple[UsedDataset, ...]) -> None:
        """The results were there already; they hold from now on."""
        errors = self.relying.rely([Relied(self.instances[name], outputs, used)])
        if name in errors:
            self.outcomes.end(name, FAILED, ids_of(outputs), errors[name])
        else:
            self._done(name, REUSED, outputs)

    def _done(self, name: str, outcome: str, outputs: Mapping[str, DatasetRef]) -> None:
        self.outcomes.results[name] = outputs
        self.outcomes.end(
            name, outcome, ids_of(outputs), size=sum(f.size for dataset in outputs.values() for f in dataset.files)
        )
        self.waiting.done(name)


def _declared_in(pipeline: BoundPipeline) -> Path | None:
    """The file that declares it; None if records do."""
    return pipeline.spec.path if pipeline.spec.digest else None
