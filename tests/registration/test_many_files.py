"""A dataset of thousands of files is registered, reused and verified as one of two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.machine.process import traffic
from crucible_lineage.session import Session
from tests.nights import NIGHTLY

STEP = """
from pathlib import Path

from crucible_lineage import step


@step(measurement="sum")
def total(frames: list[Path], *, out: Path) -> dict:
    (out / "total.txt").write_text(str(sum(int(frame.read_text()) for frame in frames)))
    return {"frames": len(frames)}
"""
PIPELINE = """
pipeline: many
project: lab
inputs:
  frames: {file: "frame-*.txt", timestamp: "2024-05-01T12:00:00Z", ingest: false}
steps:
  total: {uses: "LABMODULE:total", inputs: {frames: frames}, output: {ingest: false}}
"""


@pytest.mark.parametrize("number", [1300, 1700, 2001, 20_000] if NIGHTLY else [300])
def test_a_step_over_many_files_is_registered_reused_and_verified(
    lab: Any, tmp_path: Path, command: Any, number: int
) -> None:
    lab.file(f"{lab.module}.py", STEP)
    for index in range(number):
        lab.file(f"frame-{index:05}.txt", str(index))
    run = ("run", lab.declare(PIPELINE), "--engine", "local", "--data", tmp_path / "data")
    for outcome in ("1 executed", "1 reused"):
        ran = command(*run)
        assert ran.returncode == 0, ran.stderr
        assert outcome in ran.stdout
    verified = command("verify", "--data", tmp_path / "data")
    assert verified.returncode == 0
    assert "no findings" in verified.stdout


def test_of_one_more_file_only_its_own_bytes_are_sent(session: Session, tmp_path: Path) -> None:
    session.ensure_project("lab")
    frame = tmp_path / "frame.txt"
    frame.write_text("7" * 1000)

    def sent(client: CrucibleClient, dataset: str) -> tuple[bool, int]:
        before = traffic.sent
        return client.files.upload(dataset, frame).existed, traffic.sent - before

    first, second = (
        session.client.datasets.create({"dataset_name": name, "project_id": "lab"}).dsid for name in ("one", "two")
    )
    assert sent(session.client, first) == (False, 1000)
    assert sent(session.client, second) == (False, 0)
    assert sent(session.client, second) == (True, 0)
    key = session.client.account.create("guest").api_key
    with CrucibleClient(session.client.api_url, key) as guest:
        theirs = guest.datasets.create({"dataset_name": "of a guest"}).dsid
        assert sent(guest, theirs) == (False, 1000), "what a guest may not read has to be sent"
