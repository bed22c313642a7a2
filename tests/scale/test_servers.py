"""A Prefect server: a scheduled run, killed with its worker, is made up for after restarts.

Deployed with a short interval; a tick starts a run; worker and run are killed in the middle of a step, the server is
restarted, and a new worker brings what is due to its end. Nothing is missing and nothing is there twice. By night; by
day tests/flows/test_ends.py kills worker and run.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from crucible_lineage.queries.verify.verify import verify_project
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.nights import by_night

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills process groups")

STEPS = """
import time
from pathlib import Path
from crucible_lineage import step


@step
def gated(counts: Path, *, gate: str, out: Path) -> dict:
    Path(gate, "started").touch()
    while not Path(gate, "open").exists():
        time.sleep(0.05)
    (out / "passed.txt").write_text(counts.read_text())
    return {}
"""
PIPELINE = """
pipeline: ticking
project: lab
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
steps:
  scaled: {uses: "LABMODULE:gated", inputs: {counts: first}, params: {gate: "GATE"}}
schedule: {interval: 5}
"""
POOL = "ticking-pool"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(happened: Callable[[], Any], what: str, seconds: float = 300) -> Any:
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end, what
        time.sleep(0.2)
    return found


class Prefect:
    """A server and its workers, each of which may die."""

    def __init__(self, folder: Path, python: Any) -> None:
        self._python = python
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/api"
        self.environment = {
            **os.environ,
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
            "PREFECT_SERVER_SERVICES_SCHEDULER_INSERT_BATCH_SIZE": "10",
            "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_RUNS": "2",
            "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_SCHEDULED_TIME": "PT10S",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "DO_NOT_TRACK": "1",
            "PREFECT_LOGGING_LEVEL": "WARNING",
        }
        self.folder = folder
        self.server = self.serve()

    def python(self, *arguments: object) -> Any:
        words, log = [str(one) for one in arguments], self.folder / "prefect.log"
        return self._python.start(words, self.environment, log, log, self.folder)

    def serve(self) -> Any:
        server = self.python("-m", "prefect", "server", "start", "--host", "127.0.0.1")
        wait_for(self.answers, (self.folder / "prefect.log").read_text, 180)
        return server

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def restart(self) -> None:
        self.server.send_signal(signal.SIGTERM)
        self.server.wait(30)
        self.server = self.serve()

    def worker(self) -> Any:
        return self.python("-m", "prefect", "worker", "start", "--pool", POOL, "--limit", "1")

    def states(self) -> list[str]:
        answer = httpx.post(f"{self.url}/flow_runs/filter", json={"limit": 200}, timeout=30)
        runs = answer.json() if answer.is_success else []  # 503 while another holds SQLite's file: asked again by all
        return [run["state_type"] for run in runs]


def kill(process: Any) -> None:
    """Killed with everything that it has started, at once."""
    there = psutil.Process(process.pid)
    for one in (there, *there.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait(30)


@by_night("a Prefect server of its own")
def test_a_scheduled_run_whose_worker_and_server_went_away_is_made_up_for(
    lab: Any, data: Path, tmp_path: Path, warm_python: Any
) -> None:
    (gate := tmp_path / "gate").mkdir()
    lab.file(f"{lab.module}.py", STEPS)
    path = lab.declare(PIPELINE.replace("GATE", str(gate)))
    prefect = Prefect(tmp_path, warm_python)
    processes = []
    try:
        httpx.post(f"{prefect.url}/work_pools/", json={"name": POOL, "type": "process"}).raise_for_status()
        deployed = prefect.python("-m", "crucible_lineage", "deploy", path, "--pool", POOL, "--data", data)
        assert deployed.wait(120) == 0, (tmp_path / "prefect.log").read_text()
        processes.append(prefect.worker())
        wait_for((gate / "started").exists, "no tick has started the step")
        kill(processes.pop())
        prefect.restart()
        (gate / "open").touch()
        processes.append(prefect.worker())
        wait_for(lambda: prefect.states().count("COMPLETED"), "no scheduled run has come to its end")
    finally:
        for process in processes:
            kill(process)
        kill(prefect.server)
    with Session(Settings(data)) as session:
        assert len(session.client.datasets.list(project_id="lab", limit=None)) == 2
        assert verify_project(session, "lab").findings == ()
