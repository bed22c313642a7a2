"""Workers are reused for suitable calls, and replaced when dead, unclean, or with outdated code."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crucible_lineage.errors import StepError, StoppedError
from crucible_lineage.pipeline.declare.pipeline import StepSpec
from crucible_lineage.pipeline.job import worker
from crucible_lineage.pipeline.job.worker import call_function
from crucible_lineage.pipeline.logs import STEP_LOG, StepLog
from crucible_lineage.pipeline.processes.child import CallOutcome
from crucible_lineage.pipeline.processes.supervised import stop_run
from tests.golden.stored import run_examples

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are forked")

CODE = """
import os, threading, time
from pathlib import Path

def who(counts: Path, *, out: Path) -> dict:
    return {"pid": os.getpid(), "folder": os.getcwd(), "mode": os.environ.get("MODE"), "value": 1}

def moves(counts: Path, *, out: Path) -> dict:
    os.chdir("/")
    os.environ["MODE"] = "changed"
    return {"pid": os.getpid()}

def leaves_a_thread(counts: Path, *, out: Path) -> dict:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    return {"pid": os.getpid()}

def leaves_a_process(counts: Path, *, out: Path) -> dict:
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            time.sleep(1)
            (out / "later.txt").write_text("written when nobody looks any more")
            time.sleep(60)
        os._exit(0)
    os.wait()
    return {"pid": os.getpid()}

def comes_back_twice(counts: Path, *, fails: bool = False, out: Path) -> dict:
    first = os.getpid()
    os.fork()
    if os.getpid() != first:
        if fails:
            raise SystemExit("of no interest")
        return {"pid": os.getpid()}
    time.sleep(1)
    return {"pid": os.getpid()}

def closes_everything(counts: Path, *, out: Path) -> dict:
    print("before")
    os.closerange(0, 3)
    return {"pid": os.getpid()}

def reads(counts: Path, *, out: Path) -> dict:
    return {"read": open(0).read()}

def sleeps(counts: Path, *, out: Path) -> dict:
    time.sleep(60)

def large(counts: Path, *, text: str, out: Path) -> dict:
    return {"size": len(text)}
"""


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., CallOutcome]:
    """Calls a function of the module in a folder of its own."""
    module = f"steps_{abs(hash(tmp_path))}"
    (tmp_path / f"{module}.py").write_text(CODE)
    number = iter(range(100))

    def calling(name: str, timeout_s: float | None = 60, run_id: str = "", **params: Any) -> CallOutcome:
        attempt = tmp_path / f"attempt{next(number)}"
        (attempt / "out").mkdir(parents=True)
        files = (str(tmp_path / f"{module}.py"),)
        asked: Any = {"inputs": {"counts": [(1, tmp_path / "none.txt")]}, "outputs": {"out": attempt / "out"}}
        spec = StepSpec(uses=f"{module}:{name}", folder=tmp_path, timeout=timeout_s)
        inspection = SimpleNamespace(params=params, files=files)
        job: Any = SimpleNamespace(
            name=name,
            spec=spec,
            inspection=inspection,
            run_id=run_id,
        )
        with closing(StepLog(attempt / STEP_LOG)) as log:
            return call_function(job, asked | {"facts": None, "params": params}, attempt, log)

    return calling


def test_what_a_call_leaves_and_how_its_failure_is_told() -> None:
    run_examples(Path(__file__).with_name("calls.txt"))


def test_a_worker_is_reused_with_its_environment_restored(call: Any) -> None:
    first = call("who").result
    assert call("moves").result["pid"] == first["pid"]
    assert call("who").result == first


@pytest.mark.parametrize("name", ["leaves_a_thread", "leaves_a_process", "closes_everything"])
def test_an_unclean_worker_is_replaced_and_its_processes_are_ended(call: Any, name: str, tmp_path: Path) -> None:
    first = call("who").result
    called = call(name)
    assert called.result["pid"] == first["pid"]
    assert call("who").result["pid"] != first["pid"]
    if name == "leaves_a_process":
        assert called.note() == "it left 1 process running, which was ended"
        time.sleep(1.5)
        assert not list(tmp_path.rglob("later.txt"))


@pytest.mark.parametrize("fails", [False, True])
def test_only_the_first_process_of_a_function_that_forks_answers(call: Any, fails: bool) -> None:
    first = call("who").result
    assert call("comes_back_twice", fails=fails).result["pid"] == first["pid"]
    assert call("who").result["value"] == 1


def test_changed_code_is_read_again(call: Any, tmp_path: Path) -> None:
    assert call("who").result["value"] == 1
    (path,) = tmp_path.glob("steps_*.py")
    path.write_text(CODE.replace('"value": 1', '"value": 22'))
    assert call("who").result["value"] == 22


def test_another_environment_needs_another_worker(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = call("who").result
    monkeypatch.setenv("MODE", "fast")
    second = call("who").result
    assert (second["mode"], second["pid"] != first["pid"]) == ("fast", True)


def test_a_call_that_times_out_ends_its_worker(call: Any) -> None:
    first = call("who").result
    began = time.monotonic()
    with pytest.raises(StepError, match=r"took longer than its timeout of 0\.5 s and was stopped"):
        call("sleeps", 0.5)
    assert time.monotonic() - began < 10
    assert call("who").result["pid"] != first["pid"]


def test_no_call_is_started_for_a_stopped_run(call: Any) -> None:
    stop_run("this run")
    with pytest.raises(StoppedError, match="was not begun"):
        call("who", run_id="this run")
    assert call("who", run_id="another run").result["value"] == 1


def test_standard_input_is_empty_and_parameters_may_be_large(call: Any) -> None:
    assert call("reads").result == {"read": ""}
    assert call("large", text="x" * 3_000_000).result == {"size": 3_000_000}


def test_an_idle_worker_ends(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = call("who").result["pid"]
    (idle,) = [one for one in worker._idle if one.take_over("x", "")][-1:]
    idle.finish()
    assert idle.wait(30)
    assert call("who").result["pid"] != pid
