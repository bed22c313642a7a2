"""The service is away, refuses, or loses the process that delivers: nothing is lost, nothing is made twice."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.pipeline.engines import local
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.job import delivering
from crucible_lineage.pipeline.job.job import Outcome
from crucible_lineage.pipeline.job.materialize import materialize_now
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.run import run as running
from crucible_lineage.pipeline.run.result import RunResult, StepChoice
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.crash.conftest import COUNT
from tests.serving import RunningServer

CHAIN = """
pipeline: chain
project: lab
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
steps:
  one: {uses: "MODULE:count", inputs: {counts: first}, params: {number: 1}}
  two: {uses: "MODULE:count", inputs: {counts: one}, params: {number: 2}}
  three: {uses: "MODULE:count", inputs: {counts: two}, params: {number: 3}}
"""
STEP = int(os.environ.get("CRASH_STEP", "20"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat a call for a moment, not for 90 s."""
    monkeypatch.setenv("CRUCIBLE_LINEAGE_RETRY_SECONDS", "0.2")


@pytest.fixture
def chain(lab: Any) -> Path:
    """Three steps, one after the other, that note each call."""
    module = f"{lab.module}_chain"
    lab.file(f"{module}.py", COUNT.format(calls=str(lab.folder.parent / "calls")))
    path: Path = lab.declare(CHAIN.replace("MODULE", module))
    return path


def calls(lab: Any) -> list[str]:
    path: Path = lab.folder.parent / "calls"
    return sorted(path.read_text().split()) if path.exists() else []


def run(path: Path, session: Session, patience_s: float = 30.0) -> RunResult:
    bound = bind_file(path, session.store)
    engine = lambda: LocalEngine(session, 2)  # noqa: E731
    return plan_and_run(bound, session, engine, lambda event: None, StepChoice(patience_s=patience_s))


def reached_by(url: str, service: RunningServer, folder: Path) -> dict[str, str]:
    """The environment of commands on a machine that reaches the service there."""
    return {
        "CRUCIBLE_API_URL": url,
        "CRUCIBLE_API_KEY": service.api_key,
        "CRUCIBLE_LINEAGE_DATA": str(folder / "machine"),
    }


@pytest.fixture
def state(service: RunningServer, tmp_path: Path, state_of: Any) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        with Session(Settings(tmp_path / "direct", service.url, service.api_key)) as session:
            found: dict[str, Any] = state_of(session)
            return found

    return read


@pytest.mark.usefixtures("impatient")
def test_away_from_the_second_step_on_the_others_are_made_and_the_next_run_delivers(
    lab: Any,
    chain: Path,
    service: RunningServer,
    tmp_path: Path,
    misbehaving: Any,
    state: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy = misbehaving(service.url, 1, 0.0)
    with Session(Settings(tmp_path / "machine", proxy.url, service.api_key)) as session:
        proxy.away_after("POST", "/children/")
        result = run(chain, session, 0.0)
        assert (result.executed, result.ok) == (["one", "two", "three"], False)
        assert [row.step for row in result.waiting] == ["one", "two", "three"]
        assert "no answer from" in result.waiting[0].error
        proxy.back()
        again = run(chain, session)
        assert (again.executed, again.ok, again.waiting) == ([], True, ())
        assert sorted(again.delivered) == sorted(mfid for row in result.waiting for mfid in row.mfids)
        assert run(chain, session).delivered == ()
    assert "older copy" not in caplog.text, "what only waited here was never there"
    assert calls(lab) == ["1", "2", "3"]
    assert [row["status"] for row in state().values()] == ["complete"] * 4


def test_away_and_back_within_the_patience_the_run_ends_well(
    lab: Any, chain: Path, service: RunningServer, tmp_path: Path, misbehaving: Any, state: Any
) -> None:
    proxy = misbehaving(service.url, 1, 0.0)
    with Session(Settings(tmp_path / "machine", proxy.url, service.api_key)) as session:
        proxy.away_after("POST", "/children/", back_after=4)
        assert run(chain, session).ok
    assert calls(lab) == ["1", "2", "3"]
    assert [row["status"] for row in state().values()] == ["complete"] * 4


@pytest.mark.usefixtures("impatient")
def test_the_command_names_what_waits_and_push_delivers_it(
    lab: Any, chain: Path, service: RunningServer, tmp_path: Path, misbehaving: Any, state: Any, command: Any
) -> None:
    proxy = misbehaving(service.url, 1, 0.0)
    proxy.away_after("POST", "/children/")
    here = reached_by(proxy.url, service, tmp_path)
    ran = command("run", chain, "--engine", "local", "--patience", "0", **here)
    assert ran.returncode == 1, ran.stderr
    assert "not at Crucible yet: 3 datasets" in ran.stderr
    assert "no answer from" in ran.stderr
    assert "crucible-lineage push" in ran.stderr
    told = json.loads(command("status", "--json", **here).stdout)
    assert [one["step"] for one in told["waiting"]] == ["one", "two", "three"]
    assert all(one["since"] for one in told["waiting"])
    still = command("push", "--patience", "0", **here)
    assert (still.returncode, "0 delivered" in still.stdout) == (1, True), still.stderr
    proxy.back()
    pushed = command("push", "--json", **here)
    assert pushed.returncode == 0, pushed.stderr
    assert len(json.loads(pushed.stdout)["mfids"]) == 3
    assert calls(lab) == ["1", "2", "3"]
    assert [row["status"] for row in state().values()] == ["complete"] * 4
    assert "nothing waits here" in command("push", **here).stdout


@pytest.mark.parametrize("status", [403])
def test_what_is_refused_for_good_is_told_at_once_and_kept(
    lab: Any, chain: Path, service: RunningServer, tmp_path: Path, misbehaving: Any, state: Any, status: int
) -> None:
    proxy = misbehaving(service.url, 1, 0.0)
    with Session(Settings(tmp_path / "machine", proxy.url, service.api_key)) as session:
        proxy.refuse_after("POST", "/children/", status)
        result = run(chain, session, 600.0)
        assert not result.ok
        assert f"answered {status}" in result.errors["one"]
        assert result.waiting[0].refused
        proxy.back()
        assert run(chain, session).ok
    assert calls(lab) == ["1", "2", "3"], "what was made is kept"
    assert [row["status"] for row in state().values()] == ["complete"] * 4


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("when", ["before", "after"])
def test_push_killed_at_any_request_and_done_again_delivers_everything_once(
    lab: Any,
    chain: Path,
    service: RunningServer,
    tmp_path: Path,
    misbehaving: Any,
    state: Any,
    dying: str,
    when: str,
    warm_python: Any,
) -> None:
    proxy = misbehaving(service.url, 1, 0.0)
    settings = Settings(tmp_path / "machine", proxy.url, service.api_key)
    with Session(settings) as session:
        proxy.away_after("POST", "/children/")
        assert len(run(chain, session, 0.0).waiting) == 3
    proxy.back()
    environment = {
        **os.environ,
        "CRUCIBLE_API_URL": service.url,
        "CRUCIBLE_API_KEY": service.api_key,
        "CRUCIBLE_LINEAGE_DATA": str(tmp_path / "machine"),
    }
    # what waits is for the proxy's address, under which it is delivered
    environment["CRUCIBLE_API_URL"] = proxy.url
    for number in itertools.count(1, max(1, STEP // 2)):
        killed = warm_python.run(["-c", dying, "push"], {**environment, "DIE": f"{when} {number}"})
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert calls(lab) == ["1", "2", "3"]
    found = state()
    assert [one["status"] for one in found.values()] == ["complete"] * 4
    assert [len(one["files"]) for one in found.values()] == [1] * 4


def changed(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.mark.usefixtures("impatient")
def test_away_in_a_later_run_that_makes_all_again_no_step_waits_and_it_is_known_what_they_replace(
    lab: Any, chain: Path, service: RunningServer, tmp_path: Path, misbehaving: Any
) -> None:
    lab.file(
        f"{lab.module}_chain.py", COUNT.format(calls=str(tmp_path / "calls"))
    )  # not beside the code: it is no part
    proxy = misbehaving(service.url, 1, 0.0)
    settings = Settings(tmp_path / "machine", proxy.url, service.api_key)
    with Session(settings) as session:
        first = run(chain, session)
        assert first.ok
    changed(chain, "params: {number: 1}", "params: {number: 7}")
    with Session(settings) as session:
        proxy.away_after("POST", "/datasets")
        away = run(chain, session, 0.0)
        assert (away.executed, [row.step for row in away.waiting]) == (["one", "two", "three"],) * 2, away.errors
        proxy.back()
        again = run(chain, session)
        assert (again.executed, again.ok) == ([], True)
    assert sorted((tmp_path / "calls").read_text().split()) == ["1", "2", "2", "3", "3", "7"]
    with Session(Settings(tmp_path / "direct", service.url, service.api_key)) as session:
        for step, outputs in again.datasets.items():
            record = (session.client.metadata.get(outputs["out"]) or {})["crucible_lineage"]
            assert record["supersedes"] == first.datasets[step]["out"]


def test_away_when_a_result_that_stays_is_to_be_noted_it_is_noted_at_the_end(
    lab: Any, service: RunningServer, tmp_path: Path, misbehaving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRUCIBLE_LINEAGE_RETRIES", "3")
    module = f"{lab.module}_stays"
    counting = COUNT.format(calls=str(tmp_path / "calls"))
    code = counting.replace("def count(", "def same(")
    lab.file(f"{module}.py", code)
    lab.file(f"{module}_two.py", counting)
    text = CHAIN.replace("MODULE:count", f"{module}_two:count").replace(f"{module}_two:count", f"{module}:same", 1)
    path = lab.declare(text)
    proxy = misbehaving(service.url, 1, 0.0)
    settings = Settings(tmp_path / "machine", proxy.url, service.api_key)
    with Session(settings) as session:
        first = run(path, session)
        assert first.ok, first.errors
    lab.file(f"{module}.py", code.replace("+ str(number)", '+ f"{number}"'))
    # As on another machine, where results are delivered before they are handed on.
    monkeypatch.setattr(local, "materialize_step", lambda job, session, *_: materialize_now(job, session))
    two = first.datasets["two"]["out"]
    with Session(settings) as session:
        proxy.away_after("PATCH", f"/resources/{two}/metadata", back_after=2)
        again = run(path, session)
        assert (again.executed, again.stayed, again.ok) == (["one"], ("two", "three"), True), again.errors
    with Session(Settings(tmp_path / "direct", service.url, service.api_key)) as session:
        found = session.client.datasets.get(two, include_metadata=True)
    record = (found.scientific_metadata or {})["crucible_lineage"]
    assert again.datasets["one"]["out"] in record["equal_parents"]


def test_a_service_that_stops_answering_in_mid_run_keeps_no_step_from_beginning(
    lab: Any, service: RunningServer, tmp_path: Path, misbehaving: Any
) -> None:
    module = f"{lab.module}_slow"
    slow = COUNT.format(calls=str(tmp_path / "calls")).replace("    (out /", "    time.sleep(0.5)\n    (out /")
    slow = slow.replace("from pathlib", "import time\nfrom pathlib")
    lab.file(f"{module}.py", slow)
    proxy = misbehaving(service.url, 1, 0.0)
    seen: dict[tuple[str, str], float] = {}

    def hear(event: Any) -> None:
        seen.setdefault((event.step, event.outcome), time.monotonic())
        if (event.step, event.outcome) == ("three", Outcome.EXECUTED):
            proxy.back()

    with Session(Settings(tmp_path / "machine", proxy.url, service.api_key)) as session:
        assert run(lab.declare(CHAIN.partition("  two:")[0].replace("MODULE", module)), session).ok  # ids are kept
        bound = bind_file(lab.declare(CHAIN.replace("MODULE", module)), session.store)
        proxy.hang_after("POST", "/datasets")
        result = plan_and_run(bound, session, lambda: LocalEngine(session, 2), hear, StepChoice(patience_s=60.0))
        assert result.ok, result.errors
    assert seen["three", Outcome.STARTED] - seen["two", Outcome.MADE] < 3.0, "the step waited for an answer"


def declared_otherwise(lab: Any, chain: Path) -> None:
    """Let the last step have another parameter, and one more step follow it."""
    module = f"{lab.module}_chain"
    changed = chain.read_text().replace("params: {number: 3}", "params: {number: 4}").rstrip()
    lab.declare(f'{changed}\n  four: {{uses: "{module}:count", inputs: {{counts: three}}, params: {{number: 5}}}}\n')


@pytest.fixture
def known(
    lab: Any, chain: Path, service: RunningServer, tmp_path: Path, misbehaving: Any, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """The proxy of a service at which the chain is, which is away; the last step is declared otherwise since.

    That it is away is known at once, and not after five seconds, of which test_commands_in_an_outage... is.
    """
    monkeypatch.setattr(running, "_SOON_S", 0.2)
    monkeypatch.setattr(delivering, "ONE_CALL_S", 0.2)
    proxy = misbehaving(service.url, 1, 0.0)
    with Session(Settings(tmp_path / "machine", proxy.url, service.api_key)) as session:
        proxy.first = run(chain, session)
    declared_otherwise(lab, chain)
    proxy.away_after("GET", "/")
    return proxy


def begin(lab: Any, session: Session, listen: Callable[[Any], None], patience_s: float, stop: Any = None) -> RunResult:
    bound = bind_file(lab.pipeline, session.store)
    return plan_and_run(
        bound, session, lambda: LocalEngine(session, 2), listen, StepChoice(patience_s=patience_s), stop
    )


def test_away_before_a_run_begins_what_can_be_made_is_made_and_waits(
    lab: Any, known: Any, service: RunningServer, tmp_path: Path, state: Any
) -> None:
    told: list[Any] = []
    began = time.monotonic()
    with Session(Settings(tmp_path / "machine", known.url, service.api_key)) as session:
        result = begin(lab, session, told.append, 0.0)
        assert (result.executed, result.ok, result.is_failed) == (["three", "four"], False, False)
        assert [row.step for row in result.waiting] == ["three", "four"]
        assert "no answer from" in result.unseen
        away = [event.detail for event in told if event.outcome == Outcome.AWAY]
        assert any("going on with what is known here" in detail for detail in away)
        assert time.monotonic() - began < 30, "not for the 90 s of a single call"
        known.back()
        again = run(lab.pipeline, session)
        assert (again.executed, again.ok, again.waiting, again.unseen) == ([], True, (), "")
        assert len(again.delivered) == 2
    assert calls(lab) == ["1", "2", "3", "4", "5"]
    assert [row["status"] for row in state().values()] == ["complete"] * 6


@pytest.mark.parametrize("deleted", [False, True])
def test_a_service_that_comes_back_during_the_run_has_all_seen_at_its_end(
    lab: Any, known: Any, service: RunningServer, tmp_path: Path, deleted: bool
) -> None:
    if deleted:
        with Session(Settings(tmp_path / "direct", service.url, service.api_key)) as direct:
            direct.client.deletions.request(known.first.datasets["one"]["out"], "a test")

    def listen(event: Any) -> None:
        if event.step == "four" and event.outcome == Outcome.EXECUTED:
            known.back()

    with Session(Settings(tmp_path / "machine", known.url, service.api_key)) as session:
        result = begin(lab, session, listen, 60.0)
    assert result.executed == ["three", "four"]
    if deleted:
        assert not result.ok
        assert "is no longer at Crucible" in result.errors["one"]
    else:
        assert (result.ok, result.unseen, result.errors) == (True, "", {})


def test_commands_in_an_outage_go_by_what_is_known_or_wait_as_long_as_they_are_told(
    lab: Any, chain: Path, service: RunningServer, tmp_path: Path, misbehaving: Any, command: Any
) -> None:
    proxy = misbehaving(service.url, 1, 0.0)
    here = reached_by(proxy.url, service, tmp_path)
    assert command("run", chain, "--engine", "local", **here).returncode == 0
    proxy.away_after("GET", "/")
    nothing_known = {**here, "CRUCIBLE_LINEAGE_DATA": str(tmp_path / "new")}
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(command, "run", chain, "--engine", "local", "--patience", "1s", **nothing_known)
        ran = command("run", chain, "--engine", "local", **here)
    assert ran.returncode == 3, ran.stderr
    assert "going on with what is known here" in ran.stderr
    assert "Crucible was not asked" in ran.stderr
    assert waiting.result().returncode == 3
    assert "does not suffice, waiting for it for 1 s (--patience)" in waiting.result().stderr
    assert time.monotonic() - began < 30
    assert calls(lab) == ["1", "2", "3"]
