"""Two machines make the same with steps that give other bytes each time: a run that says done lacks nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.verify import verify_project
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.job import delivering
from crucible_lineage.pipeline.job.job import Outcome
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.run.result import Listener, RunResult, StepChoice
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.registration import register
from crucible_lineage.registration.deliver import Deliverer
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.eventually import eventually
from tests.serving import RunningServer

PAIRS = """
pipeline: pairs
project: lab
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
steps:
  noisy: {uses: "MODULE:noisy", inputs: {counts: first}, matrix: {number: [1, 2, 3]}}
  after: {uses: "MODULE:after", inputs: {counts: noisy}}
  last: {uses: "MODULE:after", inputs: {counts: after}}
"""
STEPS = """
import secrets
from pathlib import Path

from crucible_lineage import step


@step
def noisy(counts: Path, *, number: int, out: Path) -> dict:
    token = secrets.token_hex(8)
    (out / "out.txt").write_text(token)
    return {"number": number, "token": token}


@step
def after(counts: Path, *, out: Path) -> dict:
    (out / "out.txt").write_text(counts.read_text() + "+")
    return {}
"""
RACES = int(os.environ.get("RACES", "2"))


@pytest.fixture
def pairs(lab: Any) -> Path:
    module = f"{lab.module}_pairs"
    lab.file(f"{module}.py", STEPS)
    path: Path = lab.declare(PAIRS.replace("MODULE", module))
    return path


@pytest.fixture
def machine(tmp_path: Path, service: RunningServer) -> Callable[..., Session]:
    def open_session(name: str, url: str | None = None) -> Session:
        return Session(Settings(tmp_path / name, url or service.url, service.api_key))

    return open_session


def run(path: Path, session: Session, listener: Listener = lambda event: None, patience_s: float = 60.0) -> RunResult:
    bound = bind_file(path, session.store)
    return plan_and_run(bound, session, lambda: LocalEngine(session, 2), listener, StepChoice(patience_s=patience_s))


def require_all_there(result: RunResult, session: Session, begun: frozenset[str] = frozenset()) -> None:
    """Each dataset that the run names is there, complete, made of what is there; others only if they were begun."""
    assert result.ok, result.errors
    assert len(result.datasets) == 9
    for mfid in (mfid for outputs in result.datasets.values() for mfid in outputs.values()):
        dataset = session.client.datasets.get(mfid, include_metadata=True)
        record: Any = (dataset.scientific_metadata or {})["crucible_lineage"]
        assert record["status"] == "complete"
        for used in record["used"]:
            there = {file.filename: file.sha256_hash for file in session.client.files.list(used["mfid"])}
            assert {file["name"]: file["sha256"] for file in used["files"]}.items() <= there.items()
    for step, outputs in result.returned.items():  # of what the other machine registered, what it returned there
        for output, values in outputs.items():
            metadata = session.client.metadata.get(result.datasets[step][output]) or {}
            assert {name: metadata[name] for name in values} == values
    assert session.outbox.all(again=True) == []
    findings = verify_project(session, "lab")
    assert [
        finding for finding in findings.findings if finding.severity == "error" and not begun.issuperset(finding.ids)
    ] == []


def test_parents_that_another_machine_registers_while_ours_wait_are_used_and_all_is_made_from_them(
    lab: Any,
    pairs: Path,
    machine: Callable[..., Session],
    service: RunningServer,
    misbehaving: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivering, "ONE_CALL_S", 0.2)
    monkeypatch.setattr(register, "PATIENCE_S", 0.5)  # theirs waits so long for what ours has begun
    proxy = misbehaving(service.url, 1, 0.0)
    made = threading.Event()
    executed: set[str] = set()

    def hear(event: Any) -> None:
        executed.update({event.step} if event.outcome == Outcome.EXECUTED else ())
        if len(executed) == 9:
            made.set()

    known = pairs.read_text().partition("  after:")[0].replace("pipeline: pairs", "pipeline: known")
    known = known.replace("[1, 2, 3]", "[0]")
    with machine("ours", proxy.url) as ours, machine("theirs") as theirs:
        assert run(lab.declare(known, "known.yaml"), ours).ok  # ids are kept there: what is made is used at once
        proxy.away_after("POST", "/metadata")
        results: list[RunResult] = []
        thread = threading.Thread(target=lambda: results.append(run(pairs, ours, hear)))
        thread.start()
        assert made.wait(60), executed
        result = run(pairs, theirs)
        require_all_there(result, theirs, frozenset(mfid for row in ours.outbox.all() for mfid in row.mfids))
        proxy.back()
        thread.join(120)
        (result,) = results
        require_all_there(result, ours)


def test_what_is_delivered_before_its_step_has_ended_counts_as_another_machine_registered_it(
    pairs: Path, machine: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Deliverer.add

    def add_and_wait(deliverer: Deliverer, payload: Any) -> None:
        add(deliverer, payload)
        eventually(lambda: not deliverer.context.outbox.waits(payload.name), 60)

    with machine("ours") as ours, machine("theirs") as theirs:

        def hear(event: Any) -> None:
            if event.outcome == Outcome.PLANNED:
                require_all_there(run(pairs, theirs), theirs)
                monkeypatch.setattr(Deliverer, "add", add_and_wait)

        require_all_there(run(pairs, ours, hear), ours)


def _lose(client: Any, mfid: str, unfinish: Any) -> None:
    client.deletions.delete(mfid, force=True, elevated=True)


def _begin(client: Any, mfid: str, unfinish: Any) -> None:
    unfinish(client, mfid)


def _change(client: Any, mfid: str, unfinish: Any) -> None:
    metadata = client.datasets.get(mfid, include_metadata=True).scientific_metadata
    record = metadata["crucible_lineage"]
    generated = [{**file, "sha256": "0" * 64} for file in record["generated"]]
    client.metadata.replace(mfid, {**metadata, "crucible_lineage": {**record, "generated": generated}})


LOST = [(_lose, "is not there"), (_begin, "is incomplete"), (_change, "has other files")]


@pytest.mark.parametrize(("change", "why"), LOST)
def test_what_crucible_has_no_more_when_the_run_ends_has_failed(
    change: Any, why: str, lab: Any, machine: Callable[..., Session], unfinish: Any
) -> None:
    with machine("ours") as ours:

        def arrived(payload: Any) -> None:
            if payload.step == "total":
                change(ours.client, payload.name, unfinish)

        bound = bind_file(lab.pipeline, ours.store)
        result = plan_and_run(bound, ours, lambda: LocalEngine(ours, 2), lambda event: None, arrived=arrived)
        assert (result.outcomes["scaled"], result.outcomes["total"], result.ok) == ("executed", "failed", False)
        assert "made, and not seen at Crucible" in result.errors["total"]
        assert why in result.errors["total"]


@pytest.mark.parametrize("race", range(RACES))
def test_two_machines_that_race_end_with_all_there(pairs: Path, machine: Callable[..., Session], race: int) -> None:
    with machine(f"one-{race}") as one, machine(f"two-{race}") as two:
        results: dict[str, RunResult] = {}
        threads = [
            threading.Thread(target=lambda name=name, session=session: results.update({name: run(pairs, session)}))
            for name, session in (("one", one), ("two", two))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(180)
        require_all_there(results["one"], one)
        require_all_there(results["two"], two)
        assert results["one"].datasets == results["two"].datasets
