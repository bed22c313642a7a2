"""Names and messages with control characters are printed escaped, by every command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crucible_lineage.cli import main

STEPS = r"""
from pathlib import Path

from crucible_lineage import step


@step
def mean(scans: list[Path], *, factor: float = 1, out: Path) -> dict:
    if factor < 0:
        raise ValueError(f"negative\a factor")
    (out / "mean.txt").write_text(scans[0].read_text())
    return {"fac\ator": factor}
"""
PIPELINE = """
pipeline: one
project: lab
inputs:
  scans: {select: {measurement: Raman}, each: true}
steps:
  mean: {uses: "LABMODULE:mean", inputs: {scans: {from: scans, group_by: session_name}}}
"""
NAME = "scan\a"  # a bell: unlike colours, click prints it wherever the output goes


@pytest.fixture
def cl(data: Path) -> Any:
    """Run a command, and check that its output has no bell."""

    def invoke(*arguments: object, code: int = 0) -> str:
        ran: Result = CliRunner().invoke(main, [*map(str, arguments), "--data", str(data)])
        assert ran.exit_code == code, ran.output
        assert "\a" not in ran.output, (arguments, ran.output)
        return ran.output

    return invoke


@pytest.fixture
def scan(lab: Any, cl: Any) -> str:
    lab.file(f"{lab.module}.py", STEPS)
    lab.declare(PIPELINE)
    options = ("--project", "lab", "--name", NAME, "--measurement", "Raman")
    mfid: str = cl("register", lab.file("scan.txt", "1"), *options).split()[0]
    cl("set", mfid, "session_name=A\a")
    return mfid


def test_instances_are_printed_escaped_in_plans_runs_and_failures(lab: Any, scan: str, cl: Any) -> None:
    run = ("run", lab.pipeline, "--engine", "local")
    assert r"mean[A\x07]" in cl("plan", lab.pipeline)
    assert r"fac\x07tor 1" in cl(*run)
    cl(*run, "--set", "mean.factor=2")
    assert r"current again: mean[A\x07]" in cl(*run)
    assert r"mean[A\x07]" in cl("why", "mean", lab.pipeline, "--set", "mean.factor=3")
    assert r"negative\x07 factor" in cl(*run, "--set", "mean.factor=-1", code=1)
    assert r"one: mean[A\x07], 1 time" in cl("status")
    assert r"fac\x07tor" in cl("table", "--step", "mean", "--project", "lab")
