"""A dataset of thousands of files is registered, reused and verified as one of two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
