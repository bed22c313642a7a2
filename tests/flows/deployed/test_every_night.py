"""The README's five commands for a nightly run work as written; only the port differs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.nights import by_night

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULES = {"prefect": "prefect", "crucible-lineage": "crucible_lineage"}


def commands() -> list[list[str]]:
    section = README.partition("## Every night")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    return [shlex.split(line.removeprefix("$ "), comments=True) for line in block.splitlines()]


@pytest.fixture
def port() -> int:
    """Return a free port, in case a Prefect server already uses the usual one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@by_night("a server and a worker of its own")
@pytest.mark.skipif(os.name == "nt", reason="the worker is ended by a signal")
def test_its_five_commands_let_the_pipeline_run_by_itself(
    lab: Any,
    data: Path,
    port: int,
    tmp_path: Path,
    eventually: Any,
    warm_python: Any,
    prefect: Any,
    prefect_database: Path,
) -> None:
    server, configure, *others, worker = commands()
    assert len(others) + 3 == 5
    lab.declare(lab.pipeline.read_text() + 'schedule: {cron: "0 2 * * *", timezone: America/Los_Angeles}\n')
    url = f"http://127.0.0.1:{port}/api"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "CRUCIBLE_LINEAGE_DATA": str(data),
    }
    environment.pop("PREFECT_API_URL", None)
    output = tmp_path / "output.txt"

    def start(command: list[str]) -> Any:
        output.unlink(missing_ok=True)
        words = ["-m", MODULES[command[0]], *command[1:]]
        return warm_python.start(words, environment, output, output, lab.folder)

    def run(command: list[str]) -> str:
        running = start(command)
        assert running.wait(300) == 0, output.read_text()
        return output.read_text()

    def completed() -> bool:
        asked = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        answer = httpx.post(f"{url}/flow_runs/filter", json=asked, timeout=60)
        return answer.is_success and bool(answer.json())

    (tmp_path / "home").mkdir()
    shutil.copyfile(prefect_database, tmp_path / "home" / "prefect.db")  # it takes seconds to make one
    try:
        run(server)
        run([part.replace("http://127.0.0.1:4200/api", url) for part in configure])
        eventually(lambda: answers(f"{url}/health"))
        printed = [run(command) for command in others][-1]
        assert "runs cron 0 2 * * * (America/Los_Angeles)" in printed
        (now,) = re.findall(r"run one now: (.*)", printed)
        run(shlex.split(now))  # instead of waiting for the night
        working = start(worker)
        try:
            eventually(completed, 300)
        finally:
            working.send_signal(signal.SIGTERM)
            working.wait(180)
    finally:
        run(["prefect", "server", "stop"])
    with Session(Settings(data)) as session:
        assert session.client.datasets.count(project_id="lab") == 4


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
