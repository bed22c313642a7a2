"""The course of runs: what each reports while it goes on, and its whole result, as stored in the folder `course`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import OnHoldError, StepError, StoppedError, UnreachableError
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.logs import report_phase
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.run.result import RunResult, StepChoice, StepEvent, Stop
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.session import Session
from crucible_lineage.statements.statements import HOLD, About
from crucible_lineage.statements.stating import lift, sign, state
from tests.golden.stored import compare, normal, run_examples


class Diary:
    """Runs of one declaration, one after the other, and what they tell."""

    def __init__(self, lab: Any, session: Session) -> None:
        self.lab, self.session = lab, session
        self.text, self.ids = "", dict[str, str]()

    def run(
        self,
        title: str,
        choice: StepChoice = StepChoice(),
        engine: Callable[[], LocalEngine] | None = None,
        stop: Stop | None = None,
        **overrides: Any,
    ) -> RunResult:
        events: list[StepEvent] = []
        given = {name.replace("__", "."): value for name, value in overrides.items()}
        bound = bind_file(self.lab.pipeline, self.session.store, given)
        make = engine or (lambda: LocalEngine(self.session, 1))
        result = plan_and_run(bound, self.session, make, events.append, choice, stop)
        lines = [f"# {title}: {result.end}{', ok' * result.ok}{', failed' * result.is_failed}"]
        for event in events:
            if event.outcome != "delivering":  # reported only if it takes long
                took = "" if event.seconds is None else "after <duration>"
                told = filter(None, (event.detail.partition("traceback is in")[0], took, ", ".join(event.todo)))
                lines.append(f"{event.step or 'run'}: {event.outcome} {'; '.join(told)}")
        document = json.loads(json.dumps(result.to_json()))  # as the command writes it
        for name, mfids in document["inputs"].items():
            self.ids |= dict.fromkeys(mfids, name)
        for step, outputs in document["datasets"].items():
            for output, mfid in outputs.items():
                name = step if output == "out" else f"{step}.{output}"
                of_it = [one for one in self.ids.values() if one.partition(" ")[0] == name]
                self.ids.setdefault(mfid, f"{name} {len(of_it) + 1}" if of_it else name)
        document = {name: value for name, value in document.items() if value not in ({}, [], None, False)}
        lines += [f"  {name}: {value}" for name, value in {**document, "returned": result.returned}.items()]
        self.tell("\n".join(lines))
        return result

    def tell(self, text: str) -> None:
        """Note text without what differs from run to run."""
        told = normal(text.replace(self.lab.module, "steps"), self.ids, self.lab.folder.parent)
        self.text += re.sub(r"-[0-9a-f]{8}/step.log|-\d{8}T\d+.log", ".log", told)

    def edit(self, old: str, new: str, name: str = "") -> None:
        """Change the steps, or the declaration."""
        path = self.lab.folder / (name or f"{self.lab.module}.py")
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        sys.modules.pop(self.lab.module, None)


@pytest.fixture
def diary(lab: Any, session: Session) -> Diary:
    return Diary(lab, session)


def test_steps_fail_are_left_out_and_are_made_once_they_can_be(diary: Diary, lab: Any) -> None:
    steps = "  broken: {uses: LABMODULE:fail, inputs: {counts: second}}\n"
    steps += "  after: {uses: LABMODULE:scale, inputs: {counts: broken}}\n"
    steps += "  parts: {uses: LABMODULE:split, inputs: {counts: scaled}}\n"
    lab.declare(lab.pipeline.read_text().replace("steps:\n", f"steps:\n{steps}"))
    diary.run("a step fails, and no other one is begun", StepChoice(keep_going=False))
    diary.run("only what needs it", StepChoice(only=("after", "total")))
    diary.run("from what failed", StepChoice(from_=("broken",)))
    diary.edit('raise RuntimeError("the lamp was off")', '(out / "lamp.txt").write_text("1")')
    diary.run("repaired")
    diary.run("nothing to do")
    diary.run("forced", StepChoice(forced=("after",)))
    compare("../pipeline/run/course/failures.txt", diary.text)


def test_results_stay_become_current_again_and_are_held(diary: Diary, lab: Any, session: Session) -> None:
    first = diary.run("first").inputs["first"][0]
    diary.edit("float(line) * factor", "factor * float(line)")
    diary.run("other code, the same bytes")
    diary.run("another parameter", scaled__factor=4)
    diary.run("back again")
    state(session, "lab", HOLD, About((first,)), why="saturated")
    diary.run("its data are on hold", StepChoice(forced=("scaled", "total")))
    lift(session, [first], "")
    diary.edit("params: {factor: 3}", "params: {factor: 5}\n    approve: {}", "pipeline.yaml")
    scaled = diary.run("a result that needs a signature").datasets["scaled"]["out"]
    sign(session, [scaled])
    diary.run("signed")
    diary.edit("    params: {factor: 5}\n    approve: {}", "    matrix: {factor: [2, 5]}", "pipeline.yaml")
    diary.run("swept")
    diary.edit("[2, 5]", "[2]", "pipeline.yaml")
    diary.run("and no longer declared")
    compare("../pipeline/run/course/changes.txt", diary.text)


def test_what_the_states_of_steps_mean_together() -> None:
    run_examples(Path(__file__).with_name("states.txt"))


ENDINGS: dict[str, BaseException] = {
    "failed": StepError("no lamp", step="failed", log="/lab/step.log", trace="Traceback: no lamp"),
    "away": UnreachableError("no answer"),
    "held": OnHoldError("held meanwhile"),
    "odd": KeyError("nobody thought of this"),
    "left": SystemExit(3),
    "ended": StoppedError("stopped", log="/lab/ended.log"),
    "begun": StoppedError("stopped"),
}


@pytest.mark.parametrize("when", ["by itself", "when stopped"])
def test_what_an_engine_says_of_a_step_is_its_outcome(diary: Diary, lab: Any, session: Session, when: str) -> None:
    """Only failures that are the fault of a step or its data count."""
    stop, cancelled = Stop(), Future[Any]()

    class Scripted(LocalEngine):
        def start(self, job: Any) -> Any:
            if job.name not in ENDINGS:
                return cancelled if when == "when stopped" else super().start(job)
            ended: Future[Any] = Future()
            if job.name == "begun":
                report_phase(job.run_id, job.name, "started")
                if when == "when stopped":
                    stop.is_requested = True
                    assert stop._listener is not None
                    stop._listener()
            ended.set_exception(ENDINGS[job.name])
            return ended

        def stop(self, run_id: str) -> None:
            cancelled.cancel()
            super().stop(run_id)

    scaled = "{uses: LABMODULE:scale, inputs: {counts: first}, params: {factor: NUMBER}}"
    steps = "".join(f"  {name}: {scaled.replace('NUMBER', str(n))}\n" for n, name in enumerate([*ENDINGS, "good"], 1))
    steps += "  after: {uses: LABMODULE:add, inputs: {left: good, right: second}}\n"
    lab.declare(f"{lab.pipeline.read_text().partition('steps:')[0]}steps:\n{steps}")
    diary.run(when, engine=lambda: Scripted(session, 1), stop=stop)
    failures = sorted(session.journal.failures().values(), key=lambda failure: failure.step)
    diary.tell("\n".join(map(str, [*failures, *session.journal.recent_runs("lab", 5)])))
    compare(f"../pipeline/run/course/{when.replace(' ', '-')}.txt", diary.text)
