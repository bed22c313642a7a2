"""The code that runs is the fingerprinted source, never bytecode of an earlier version."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

STEP = """
from pathlib import Path
from crucible_lineage import step
import helper

@step
def one(raw: Path, out: Path) -> dict:
    import later
    (out / "r.txt").write_text("{0}")
    return {{"own": {0}, "helper": helper.VALUE, "later": later.VALUE}}
"""
PIPELINE = (
    "pipeline: p\nproject: lab\ninputs: {scan: {file: raw.txt}}\nsteps: {one: {uses: work:one, inputs: {raw: scan}}}\n"
)
SECOND = 1_700_000_000


def write(folder: Path, value: int) -> None:
    """Write modules of the same size within the same second."""
    (folder / "work.py").write_text(STEP.format(value))
    for name in ("work.py", "helper.py", "later.py"):
        if name != "work.py":
            (folder / name).write_text(f"VALUE = {value}\n")
        os.utime(folder / name, ns=(0, SECOND * 10**9 + value * 10**8))


def test_an_edit_of_the_same_size_within_a_second_takes_effect(
    tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    (tmp_path / "raw.txt").write_text("1")
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    for value in (1, 2, 3):
        write(tmp_path, value)
        ran = command("run", tmp_path / "pipeline.yaml", "--engine", "local", "--data", tmp_path / "data")
        assert ran.returncode == 0, ran.stderr
        assert f"own {value}  helper {value}  later {value}" in ran.stdout, ran.stdout
