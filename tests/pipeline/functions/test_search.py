"""Declarations in two folders with modules of the same names: each uses its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.pipeline.plan.bind import bind_file

COMMON = "FACTOR = {factor}\n"
STEPS = """
from pathlib import Path
from {module}_common import FACTOR


def scale(x: Path, *, out: Path) -> dict:
    (out / "x.txt").write_text(str(FACTOR * float(x.read_text())))
    return {{"factor": FACTOR}}
"""


@pytest.fixture
def two(tmp_path: Path, lab: Any) -> list[Path]:
    """A pipeline in each of two folders; the second one starts from the result of the first."""
    paths = []
    for number, (name, given) in enumerate(
        [
            ("one", '{file: x.txt, timestamp: "2024-05-01T12:00:00Z"}'),
            ("two", "{pipeline: ../one/one.yaml, from: scaled}"),
        ]
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "x.txt").write_text("1")
        (folder / f"{lab.module}_common.py").write_text(COMMON.format(factor=2 + number))
        (folder / f"{lab.module}_steps.py").write_text(STEPS.format(module=lab.module))
        text = f"pipeline: {name}\nproject: lab\ninputs: {{x: {given}}}\n"
        text += f"steps: {{scaled: {{uses: '{lab.module}_steps:scale', inputs: {{x: x}}}}}}\n"
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(text)
    return paths


def fingerprint(path: Path) -> str:
    """Return the fingerprint of the step's code."""
    return bind_file(path).steps["scaled"].inspection.fingerprint


def test_each_is_run_with_the_modules_beside_it(two: list[Path], tmp_path: Path, command: Any) -> None:
    returned = []
    for path in two:
        ran = command("run", path, "--data", tmp_path / "data", "--engine", "local", "--json")
        assert ran.returncode == 0, ran.stderr
        (mfid,) = json.loads(ran.stdout)["datasets"]["scaled"].values()
        shown = json.loads(command("show", mfid, "--data", tmp_path / "data", "--json").stdout)
        returned.append(shown["results"])
    assert returned == [{"factor": 2}, {"factor": 3}]
