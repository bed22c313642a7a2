"""What a run holds of its results while they wait: little of each, and the same whether they are few or many."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.engines.local import AHEAD, LocalEngine
from crucible_lineage.pipeline.run.result import EXECUTED, QUEUED, StepEvent
from crucible_lineage.pipeline.run.run import plan_and_run, plan_for_run
from crucible_lineage.registration import outbox
from crucible_lineage.registration.delivery import DeliveryContext
from crucible_lineage.session import Session

FEW, MANY = 15, 60
WIDTH = 4
STEP = '''"""A step that counts."""
from pathlib import Path
from crucible_lineage import step

@step
def count(part: Path, *, number: int, out: Path) -> dict:
    (out / "count.txt").write_text(f"{number}")
    return {"number": number}
'''


def declared(lab: Any, width: int) -> Any:
    """So many steps, of which `width` may run at once, at any time."""
    lab.file(f"{lab.module}_count.py", STEP)
    steps = [
        f"  s{number}: {{uses: 'LABMODULE_count:count', params: {{number: {number}}},"
        f" inputs: {{part: {f's{number - width}' if number >= width else 'first'}}}, output: {{ingest: false}}}}"
        for number in range(MANY)
    ]
    text = ["pipeline: counts", "project: lab", "inputs: {first: {file: first.txt, ingest: false}}", "steps:", *steps]
    return lab.declare("\n".join(text) + "\n")


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


def test_a_result_that_waits_takes_less_than_the_plan_of_its_step(
    lab: Any, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MOST_OPEN", WIDTH)
    all_made, register = threading.Event(), DeliveryContext.register

    def late(self: DeliveryContext, *args: Any) -> Any:
        all_made.wait(60)
        return register(self, *args)

    monkeypatch.setattr(DeliveryContext, "register", late)
    bound = bind_file(declared(lab, WIDTH), session.store, {})
    before = objects()
    planned = plan_for_run(bound, session, lambda event: None)
    a_plan = (objects() - before) / MANY
    held: list[int] = []

    def listener(event: StepEvent) -> None:
        if event.outcome == EXECUTED:
            held.append(objects() if len(held) + 1 in (FEW, MANY) else 0)
            if len(held) == MANY:
                all_made.set()

    del planned
    result = plan_and_run(bound, session, lambda: LocalEngine(session, WIDTH), listener)

    assert len(result.executed) == MANY
    assert result.ok
    a_result = (held[MANY - 1] - held[FEW - 1]) / (MANY - FEW)
    assert a_result < a_plan, f"{a_result:.1f} objects a result, {a_plan:.1f} a planned step"


def test_of_many_steps_that_could_begin_only_some_are_started(lab: Any, session: Session) -> None:
    events: list[str] = []
    bound = bind_file(declared(lab, MANY), session.store, {})

    result = plan_and_run(bound, session, lambda: LocalEngine(session, 2), lambda event: events.append(event.outcome))

    assert result.ok
    assert result.executed == [f"s{number}" for number in range(MANY)]
    begun = [outcome for outcome in events if outcome in (QUEUED, EXECUTED)]
    started = [begun[:end].count(QUEUED) - begun[:end].count(EXECUTED) for end in range(len(begun))]
    assert AHEAD < max(started) <= 2 * AHEAD
