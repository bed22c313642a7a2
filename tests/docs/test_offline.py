"""The commands of docs/operations.md for work offline are run as written: in a data folder, then at a service."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.serving import start_server

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
PIPELINE = """
pipeline: copying
project: demo
inputs:
  counts: {file: counts.txt, measurement: counting}
steps:
  same: {run: "cp {inputs.counts} {out}/same.txt", inputs: {counts: counts}}
"""


def commands() -> list[list[str]]:
    blocks = re.findall(r"```console\n(.*?)```", PAGE.partition("## Working offline\n")[2], re.DOTALL)
    return [shlex.split(line.removeprefix("$ ")) for block in blocks for line in block.splitlines()]


def test_the_same_pipeline_gives_the_same_ids_offline_and_at_the_service(tmp_path: Path, warm_python: Any) -> None:
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    (tmp_path / "counts.txt").write_text("21")
    with start_server(tmp_path / "service") as service:
        online = {"CRUCIBLE_API_URL": service.url, "CRUCIBLE_API_KEY": service.api_key}
        online["CRUCIBLE_LINEAGE_DATA"] = str(tmp_path / "office")
        there = Settings(tmp_path / "office", service.url, service.api_key)
        with Session(there) as session:
            lead = session.client.account.whoami().user_unique_id
            session.client.projects.create(project_id="demo", organization="x", project_lead=lead)
        for command in commands():
            ran = warm_python.run(["-m", "crucible_lineage", *command[1:]], {**os.environ, **online}, tmp_path)
            assert ran.returncode == 0, ran.stderr
        found = []
        for settings in (there, Settings(tmp_path / "field")):
            with Session(settings) as session:
                found.append({dataset.unique_id for dataset in session.client.datasets.list(project_id="demo")})
        assert found[0] == found[1]
        assert len(found[0]) == 2
