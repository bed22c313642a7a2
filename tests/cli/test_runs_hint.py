"""The hint of `runs` compares two runs of one pipeline."""

from __future__ import annotations

from crucible_lineage.cli.catalogue.listing import _comparable
from crucible_lineage.queries.catalogue.runs import ListedRun


def run(run_id: str, pipeline: str) -> ListedRun:
    return ListedRun(run_id, pipeline, "lab", "2024-05-01T12:00:00Z")


def test_the_hint_pairs_the_newest_two_runs_of_one_pipeline() -> None:
    assert _comparable([run("r4", "one"), run("r3", "two"), run("r2", "one"), run("r1", "two")]) == ("r2", "r4")


def test_runs_of_different_pipelines_are_no_pair() -> None:
    assert _comparable([run("r2", "one"), run("r1", "two")]) is None
