"""Engines of other packages, by entry points."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

MODULE = """
import sys

from crucible_lineage.pipeline.engines.local import LocalEngine

class Counting(LocalEngine):
    started = 0

    def start(self, job):
        Counting.started += 1
        return super().start(job)

    def result(self, running):
        print(f"COUNTED {Counting.started}", file=sys.stderr)
        return super().result(running)
"""
POINTS = """
[crucible_lineage.engines]
counting = lab_extras:Counting
local = lab_extras:absent
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which a package with an engine is installed."""
    info = tmp_path / "lab_extras-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-extras\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    (tmp_path / "lab_extras.py").write_text(MODULE)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])}


def test_an_engine_of_another_package_runs_the_steps(installed: dict[str, str], command: Any, tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    assert command("init", folder, **installed).returncode == 0
    arguments = ("run", folder / "pipeline.yaml", "--data", tmp_path / "data", "--engine")
    refused = command(*arguments, "countin", **installed)
    assert (refused.returncode, "did you mean 'counting'?" in refused.stderr) == (2, True)
    assert not (tmp_path / "data").exists(), "it is refused before anything starts"
    done = command(*arguments, "counting", **installed)
    assert (done.returncode, "COUNTED" in done.stderr) == (0, True), done.stderr
    again = command(*arguments, "local", "--force", "mean", **installed)
    assert "COUNTED" not in again.stderr, "ours cannot be replaced"
