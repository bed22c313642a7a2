"""Memory of a run for waiting results: little for each, and bounded however many there are."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.engines.local import AHEAD, LocalEngine
from crucible_lineage.pipeline.run.result import EXECUTED, QUEUED, StepEvent
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.registration import outbox
from crucible_lineage.registration.delivery import DeliveryContext
from crucible_lineage.registration.payload import Payload, read_payload
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


def test_a_waiting_result_takes_at_most_a_third_of_its_payload(
    lab: Any, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_OPEN", WIDTH)
    all_made, register = threading.Event(), DeliveryContext.register

    def late(self: DeliveryContext, *args: Any) -> Any:
        all_made.wait(60)
        return register(self, *args)

    monkeypatch.setattr(DeliveryContext, "register", late)
    made, held = 0, dict[int, int]()
    payloads: list[Payload] = []

    def listener(event: StepEvent) -> None:
        nonlocal made
        if event.outcome != EXECUTED:
            return
        made += 1
        if made in (FEW, MANY):
            held[made] = objects()
        if made == MANY:
            payloads.extend(read_payload(label.folder) for label in session.outbox.all())
            held[MANY + len(payloads)] = objects()
            all_made.set()

    result = plan_and_run(
        bind_file(declared(lab, WIDTH), session.store, {}), session, lambda: LocalEngine(session, WIDTH), listener
    )

    assert result.ok
    assert len(result.executed) == MANY
    assert len(payloads) > MANY / 2, "they do not wait"
    a_result = (held[MANY] - held[FEW]) / (MANY - FEW)
    a_payload = (held[MANY + len(payloads)] - held[MANY]) / len(payloads)
    assert a_result < a_payload / 3, f"{a_result:.1f} objects a result, {a_payload:.1f} a payload"


def test_only_some_of_many_ready_steps_are_started(lab: Any, session: Session) -> None:
    events: list[str] = []
    bound = bind_file(declared(lab, MANY), session.store, {})

    result = plan_and_run(bound, session, lambda: LocalEngine(session, 2), lambda event: events.append(event.outcome))

    assert result.ok
    assert result.executed == [f"s{number}" for number in range(MANY)]
    begun = [outcome for outcome in events if outcome in (QUEUED, EXECUTED)]
    started = [begun[:end].count(QUEUED) - begun[:end].count(EXECUTED) for end in range(len(begun))]
    assert AHEAD < max(started) <= 2 * AHEAD
