"""A step executed again with the same recipe: whether the result is the same, and which numbers differ."""

from __future__ import annotations

from typing import Any

from crucible_lineage.ask.explain import explain
from crucible_lineage.pipeline.run.result import StepChoice
from crucible_lineage.session import Session

STEPS = """

import os
from pathlib import Path

from crucible_lineage import step


@step
def walk(counts: Path, *, out: Path) -> dict:
    number = len(os.listdir(TRIES))
    (Path(TRIES) / str(number)).write_text("")
    (out / "walk.csv").write_text(f"at,value\\n0,1.5\\n1,{2 + number / 2}\\n")
    return {"mean": (4, 5.0)[number], "count": 2, "fit": {"slopes": [1.0, number]}}


@step
def fixed(counts: Path, *, out: Path) -> dict:
    (out / "fixed.txt").write_text("1")
    return {"mean": 1.5}
"""
PIPELINE = """
pipeline: again
project: lab
inputs:
  scan: {file: scan.txt, timestamp: "2024-05-01T12:00:00Z"}
steps:
  walk: {uses: "LABMODULE:walk", inputs: {counts: scan}}
  fixed: {uses: "LABMODULE:fixed", inputs: {counts: scan}}
"""


def test_why_names_the_numbers_that_differ(lab: Any, run: Any, session: Session, tmp_path: Any) -> None:
    tries = tmp_path / "tries"
    tries.mkdir()
    lab.file(f"{lab.module}.py", STEPS.replace("TRIES", repr(str(tries))))
    lab.file("scan.txt", "1")
    run(lab.declare(PIPELINE))
    result = run(lab.pipeline, StepChoice(forced=("walk", "fixed")))
    story = str(explain(session, result.datasets["walk"]["out"]))
    assert "not deterministic" in story
    assert "mean: 4 -> 5 (+1)" in story
    assert "fit.slopes: [1" in story
    assert "file walk.csv has other bytes" in story
    assert "count" not in story.partition("not deterministic")[2]
    assert "nothing differs" not in story
    assert "same values and bytes" in str(explain(session, result.datasets["fixed"]["out"]))
