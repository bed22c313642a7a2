"""The commands of docs/operations.md for work offline are run as written: copy data, work, send the results."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.serving import start_server

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
STEPS = """
from pathlib import Path

from crucible_lineage import step


@step
def double(counts: Path, *, out: Path) -> dict:
    (out / "twice.txt").write_text(str(2 * int(counts.read_text())))
    return {"by": 2}
"""
PIPELINE = """
pipeline: doubling
project: demo
inputs:
  counts: {select: {measurement: counting}, each: true}
steps:
  twice: {uses: "offline_steps:double", inputs: {counts: counts}}
"""


def commands() -> list[list[str]]:
    blocks = re.findall(r"```console\n(.*?)```", PAGE.partition("## Working offline\n")[2], re.DOTALL)
    return [shlex.split(line.removeprefix("$ ")) for block in blocks for line in block.splitlines()]


def test_the_commands_of_the_page_work(tmp_path: Path, warm_python: Any) -> None:
    (tmp_path / "offline_steps.py").write_text(STEPS)
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    (tmp_path / "counts.txt").write_text("21")
    with start_server(tmp_path / "service") as service:
        (tmp_path / "KEYFILE").write_text(service.api_key)
        with Session(Settings(tmp_path / "direct", service.url, service.api_key)) as session:
            lead = session.client.account.whoami().user_unique_id
            session.client.projects.create(project_id="demo", organization="x", project_lead=lead)
            raw = session.client.datasets.create(
                {"dataset_name": "Monday", "measurement": "counting", "project_id": "demo"},
                files=[tmp_path / "counts.txt"],
                wait=True,
            ).dsid
        online = {"CRUCIBLE_API_URL": service.url, "CRUCIBLE_API_KEY": service.api_key}
        outputs = []
        for command, environment in zip(commands(), (online, {}, {}, {}), strict=True):
            assert command[0] == "crucible-lineage"
            words = [service.url if word == "URL" else word for word in command[1:]]
            ran = warm_python.run(["-m", "crucible_lineage", *words], {**os.environ, **environment}, tmp_path)
            assert ran.returncode == 0, ran.stderr
            outputs.append(ran.stdout)
        assert "offline: crucible-lineage run pipeline.yaml --data" in outputs[0]
        assert "1 already there, 1 would be sent" in outputs[2]
        assert "1 sent" in outputs[3]
        with Session(Settings(tmp_path / "direct", service.url, service.api_key)) as session:
            (child,) = session.client.datasets.list_children(raw)
            (file,) = [file for file in session.client.files.list(child.unique_id) if file.filename == "twice.txt"]
            assert session.client.files.download_bytes(file) == b"42"
    assert json.dumps(outputs).count("error") == 0
