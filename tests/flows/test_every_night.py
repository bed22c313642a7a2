"""The README's commands for a nightly run, as they stand there, on a server that is running already."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULES = {"prefect": "prefect", "crucible-lineage": "crucible_lineage"}


def commands() -> list[list[str]]:
    section = README.partition("## Every night")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    return [shlex.split(line.removeprefix("$ ")) for line in block.splitlines()]


@pytest.mark.skipif(os.name == "nt", reason="the worker is ended by a signal")
def test_its_five_commands_let_the_pipeline_run_by_itself(
    lab: Any, data: Path, prefect: Any, tmp_path: Path, eventually: Any
) -> None:
    server, configure, *others, worker = commands()
    assert (len(others) + 3, server) == (5, ["prefect", "server", "start", "--background"])
    lab.declare(lab.pipeline.read_text() + 'schedule: {cron: "0 2 * * *", timezone: America/Los_Angeles}\n')
    environment = {key: value for key, value in prefect.environment.items() if key != "PREFECT_API_URL"}
    environment |= {"PREFECT_HOME": str(tmp_path / "home"), "CRUCIBLE_LINEAGE_DATA": str(data)}

    def start(command: list[str], **more: Any) -> Any:
        line = [sys.executable, "-m", MODULES[command[0]], *command[1:]]
        return subprocess.Popen(line, env=environment, cwd=lab.folder, stdout=subprocess.PIPE, text=True, **more)

    address = [part.replace("http://127.0.0.1:4200/api", prefect.url) for part in configure]
    for command in (address, *others):
        running = start(command)
        said, _ = running.communicate(timeout=300)
        assert running.returncode == 0, said
    assert "runs cron 0 2 * * * (America/Los_Angeles)" in said
    (now,) = re.findall(r"run one now: (.*)", said)
    working = start(worker, stderr=subprocess.STDOUT)
    try:
        asked = start(shlex.split(now))
        asked.communicate(timeout=300)
        (deployment,) = prefect.deployments("counting")
        eventually(lambda: any(run["state_type"] == "COMPLETED" for run in prefect.runs(deployment["id"])), 300)
    finally:
        working.terminate()
        working.communicate(timeout=180)
    with Session(Settings(data)) as session:
        assert session.client.datasets.count(project_id="lab") == 4
