"""`show --log` prints the output of the step that made a result; a failure is printed once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TALKING = """
import logging
from pathlib import Path

def talking(counts: Path, *, fails: bool = False, out: Path) -> None:
    print("first words")
    logging.getLogger("lab").info("converged")
    if fails:
        raise ValueError("no lamp")
    (out / "x.txt").write_text("1")
"""
HEAD = """
pipeline: talking
project: lab
inputs: {first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}
steps:
"""


def test_output_and_logs_of_a_step_are_shown(lab: Any, data: Path, command: Any) -> None:
    lab.file(f"{lab.module}_talks.py", TALKING)
    path = lab.declare(f"{HEAD}  talked: {{uses: {lab.module}_talks:talking, inputs: {{counts: first}}}}\n")
    made = json.loads(command("run", path, "--data", data, "--engine", "local", "--json").stdout)
    assert command("show", "--log", made["datasets"]["talked"]["out"], "--data", data).stdout == (
        "first words\nINFO lab: converged\n"
    )
    failed = command("run", path, "--data", data, "--engine", "local", "--set", "talked.fails=true")
    assert "Traceback (most recent call last)" in failed.stderr
    assert "crucible_lineage" not in failed.stderr.partition("Traceback")[2].partition("ValueError: no lamp")[0]
    nothing = command("show", "--log", made["inputs"]["first"][0], "--data", data)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "has no log" in nothing.stderr


def test_each_failure_is_reported_once(lab: Any, data: Path, command: Any) -> None:
    lab.file(
        f"{lab.module}.py",
        (lab.folder / f"{lab.module}.py")
        .read_text()
        .replace("the lamp was off", "dark {counts.name}")
        .replace('RuntimeError("', 'RuntimeError(f"'),
    )
    for number in range(3):
        lab.file(f"lamp-{number}.dat", f"{number}\n")
    pipeline = lab.declare(
        """
        pipeline: lamps
        project: lab
        inputs: {counts: {file: "*.dat", each: true}}
        steps:
          broken: {uses: LABMODULE:fail, inputs: {counts: counts}}
        """,
        "lamps.yaml",
    )
    ran = command("run", pipeline, "--data", data)
    assert ran.returncode == 1
    for number in range(3):
        assert ran.stderr.count(f"dark lamp-{number}.dat") == 1, ran.stderr
    assert ran.stderr.count("in fail") == 1, "the same traceback is shown once"
