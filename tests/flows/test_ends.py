"""However a run ends, on whatever engine: the processes of its steps end with it. docs/running.md has the table.

By day functions and commands are tried in turn, and a worker gets one end.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually, has_ended
from tests.nights import NIGHTLY, share

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")

WITHIN_S = 30  # what docs/running.md promises for the slowest cell, on a machine that is busy with other tests

LONG = """
import os, sys, time
from pathlib import Path

def long(counts: Path, *, out: Path):
    folder = Path(__file__).parent
    if os.fork() == 0:  # one that left the session, as daemons do
        os.setsid()
        (folder / "daemon").write_text(str(os.getpid()))
        time.sleep(600)
    while not (folder / "daemon").exists():
        time.sleep(0.01)
    (folder / "pid.part").write_text(str(os.getpid()))
    (folder / "pid.part").rename(folder / "pid")
    time.sleep(600)

if __name__ == "__main__":
    long(None, out=None)
"""
KINDS = ("function", "command")
STATES = {"cancel": "CANCELLED", "kill the run": "CRASHED", "kill both": "CRASHED"}


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
WAYS = ("cancel", "kill the run", "kill both")


def in_turn(rows: Sequence[Any], columns: Sequence[Any]) -> list[tuple[Any, Any, str]]:
    """Pair each row with each column, and the pairs with one kind of step after the other, or with all kinds."""
    return [
        (row, column, kind)
        for down, row in enumerate(rows)
        for across, column in enumerate(columns)
        for kind in (KINDS if NIGHTLY else KINDS[(down + across) % 2 :][:1])
    ]


ENDS = [
    *in_turn(["local"], (*SIGNALS, signal.SIGHUP)),
    *in_turn(["prefect"], SIGNALS),
]


@pytest.fixture
def declare(lab: Any) -> Callable[[str], Path]:
    """A pipeline of one step that takes ten minutes."""

    def declared(kind: str) -> Path:
        name = f"{lab.module}_long"
        lab.file(f"{name}.py", LONG)
        command = f'run: ["{sys.executable}", {name}.py, "{{inputs.counts}}", "{{out}}"]'
        how = command if kind == "command" else f"uses: {name}:long"
        path: Path = lab.declare(
            f"""
            pipeline: long
            project: lab
            inputs: {{first: {{file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}}}
            steps:
              long: {{{how}, inputs: {{counts: first}}}}
            """
        )
        return path

    return declared


def pids(folder: Path) -> list[int]:
    """Return the ids of the step's process and its fork, once they exist."""
    files = [folder / name for name in ("pid", "daemon")]
    eventually(lambda: all(file.exists() and file.read_text() for file in files), 120)
    return [int(file.read_text()) for file in files]


def seconds_until_gone(processes: list[int], since: float) -> float:
    eventually(lambda: all(map(has_ended, processes)), WITHIN_S)
    return time.monotonic() - since


@pytest.mark.parametrize(("engine", "number", "kind"), ENDS, ids=lambda one: getattr(one, "name", one))
def test_a_signal_to_the_run_ends_its_step(
    declare: Any, data: Path, number: int, engine: str, kind: str, request: pytest.FixtureRequest, warm_python: Any
) -> None:
    path: Path = declare(kind)
    prefect = None if engine == "local" else request.getfixturevalue("prefect")
    environment = prefect.environment if prefect else {}
    words = ["-m", "crucible_lineage", "run", str(path), "--data", str(data)]
    words += ["--engine", engine]
    log = data.parent / "said"
    run = warm_python.start(words, {**os.environ, **environment}, log, log)
    processes = pids(path.parent)
    began = time.monotonic()
    run.send_signal(number)
    took = seconds_until_gone(processes, began)
    code = run.wait(60)
    print(
        f"{signal.Signals(number).name} {engine} {kind}: step gone {took:.1f} s, run {time.monotonic() - began:.1f} s"
    )
    output = log.read_text()
    if number in (signal.SIGINT, signal.SIGTERM):
        assert code == 130, output
        assert "Traceback" not in output
        assert "1 stopped" in output
        if prefect:
            of_no_deployment = {"deployment_id": {"is_null_": True}}  # others' schedules have runs that start later
            (run_of_flow,) = prefect.post(
                "flow_runs/filter", {"limit": 1, "sort": "START_TIME_DESC", "flow_runs": of_no_deployment}
            )
            assert run_of_flow["state_type"] == "CANCELLED"


@pytest.mark.parametrize(("how", "kind"), [(how, kind) for _, how, kind in in_turn(["a worker"], share(WAYS, 3))])
def test_what_a_worker_runs_ends_with_it(
    declare: Any,
    data: Path,
    prefect: Any,
    pool: str,
    how: str,
    kind: str,
    tmp_path: Path,
    warm_python: Any,
) -> None:
    path = declare(kind)
    words, log = ["-m", "prefect", "worker", "start", "--pool", pool, "--limit", "1"], tmp_path / "worker.log"
    worker = warm_python.start(words, prefect.environment, log, log, tmp_path)
    try:
        where = ("--pool", pool, "--data", data, "--limit", 2)  # one slot is the killed run's for some minutes
        deployed = prefect.python("-m", "crucible_lineage", "deploy", path, *where)
        assert deployed.returncode == 0, deployed.stderr
        (deployment,) = prefect.deployments("long")
        create, scheduled = f"deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}}
        run_id = prefect.post(create, scheduled)["id"]
        processes = pids(path.parent)
        began = time.monotonic()
        if how == "cancel":
            prefect.post(f"flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
        elif how == "kill both":
            worker.kill()
            os.kill(engine_of(processes[0]), signal.SIGKILL)
        else:
            os.kill(engine_of(processes[0]), signal.SIGKILL)
        took = seconds_until_gone(processes, began)
        print(f"{how} {kind}: step gone {took:.1f} s")
        if how == "kill both":
            worker.wait(60)
            worker = warm_python.start(words, prefect.environment, log, log, tmp_path)
            prefect.post(create, scheduled)
        asked = {"flow_runs": {"id": {"any_": [run_id]}}}
        eventually(lambda: prefect.post("flow_runs/filter", asked)[0]["state_type"] == STATES[how], 90)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)


def engine_of(pid: int) -> int:
    """Return the flow's process above a step's process, its supervisor and the supervisor's server."""
    for _ in range(3):
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert "prefect" in Path(f"/proc/{pid}/cmdline").read_text()
    return pid


def test_the_table_in_the_docs_names_the_limit() -> None:
    text = (Path(__file__).parents[2] / "docs" / "running.md").read_text()
    assert f"allow {WITHIN_S} s" in text
