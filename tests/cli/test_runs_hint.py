"""The hint of `runs` compares two runs of one pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from crucible_lineage.cli import main


def test_the_hint_pairs_the_newest_two_runs_of_one_pipeline(lab: Any, data: Path) -> None:
    def cl(*arguments: object) -> str:
        ran = CliRunner().invoke(main, [*map(str, arguments), "--data", str(data)])
        assert ran.exit_code == 0, ran.output
        return ran.stdout

    one = lab.pipeline
    two = lab.declare(one.read_text().replace("pipeline: counting", "pipeline: other"), "other.yaml")
    for pipeline in (two, one):
        cl("run", pipeline, "--engine", "local")
    assert "to compare two" not in cl("runs"), "they are of different pipelines"
    for pipeline in (two, one):
        cl("run", pipeline, "--engine", "local")
    runs = json.loads(cl("runs", "--json"))["runs"]
    assert [run["pipeline"] for run in runs] == ["counting", "other", "counting", "other"]
    assert f"to compare two: crucible-lineage diff {runs[2]['run_id']} {runs[0]['run_id']}" in cl("runs")
