"""A module of steps, measured files and a pipeline, in the current folder of the tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

STEPS = '''
"""Steps of the tests."""

import json
from pathlib import Path

from crucible_lineage import step


@step(measurement="counting")
def scale(counts: Path, *, factor: float = 2.0, out: Path) -> dict:
    values = [float(line) * factor for line in counts.read_text().split()]
    (out / "scaled.csv").write_text("value\\n" + "\\n".join(map(str, values)))
    (out / "about.json").write_text(json.dumps({"factor": factor}))
    return {"total_nm": sum(values), "steps": len(values)}


@step
def join(parts: list[Path], *, out: Path) -> dict:
    (out / "all.txt").write_text("".join(path.read_text() for path in parts if path.suffix == ".csv"))
    return {"parts": len(parts)}


@step(outputs=("low", "high"))
def split(counts: Path, *, low: Path, high: Path) -> dict:
    (low / "low.txt").write_text("low")
    (high / "high.txt").write_text("high")
    return {"low": {"n": 1}, "high": {"n": 2}}


@step
def fail(counts: Path, *, out: Path) -> dict:
    raise RuntimeError("the lamp was off")
'''

PIPELINE = """
pipeline: counting
project: lab
inputs:
  counts: {file: "*.txt", each: true, timestamp: "2024-05-01T12:00:00Z"}
steps:
  scaled: {uses: MODULE:scale, inputs: {counts: counts}, params: {factor: 3}}
"""


@pytest.fixture
def laboratory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Create the folder and change to it; `MODULE` in the declaration is its module."""
    folder = tmp_path / "lab"
    folder.mkdir()
    module = f"hand_{abs(hash(tmp_path))}"
    (folder / f"{module}.py").write_text(STEPS)
    (folder / "pipeline.yaml").write_text(PIPELINE.replace("MODULE", module))
    (folder / "first.txt").write_text("1\n2\n3\n")
    (folder / "second.txt").write_text("10\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop(module, None)


@pytest.fixture
def steps(laboratory: Path) -> object:
    """Return the module of steps."""
    import importlib

    return importlib.import_module(next(laboratory.glob("hand_*.py")).stem)
