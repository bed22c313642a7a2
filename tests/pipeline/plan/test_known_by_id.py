"""Existing results are found by id, whatever the name of the pipeline, with few requests."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.core.datasets import ONE_BY_ONE
from crucible_lineage.notebook.catalogue import Catalogue, registering
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.runs import run

STEPS = '''"""Steps of this test."""
from pathlib import Path
from crucible_lineage import step

@step
def scale(part: Path, *, factor: int = 3, out: Path) -> dict:
    (out / "scaled.txt").write_text(str(factor * float(part.read_text())))
    return {}

@step
def total(parts: list[Path], *, out: Path) -> dict:
    (out / "total.txt").write_text(str(sum(float(path.read_text()) for path in parts)))
    return {}
'''
PIPELINE = """
pipeline: one-name
project: lab
inputs:
  part: {file: "part-*.txt", timestamp: "2026-03-01T12:00:00Z", ingest: false, each: true}
steps:
  scaled: {uses: "LABMODULE_many:scale", inputs: {part: part}, output: {ingest: false}}
  total: {uses: "LABMODULE_many:total", inputs: {parts: scaled}, output: {ingest: false}}
"""


def declared(lab: Any, parts: int) -> Path:
    for number in range(parts):
        lab.file(f"part-{number:02}.txt", f"{number}\n")
    lab.file(f"{lab.module}_many.py", STEPS)
    path: Path = lab.declare(PIPELINE)
    return path


def renamed(lab: Any) -> Path:
    path: Path = lab.declare(lab.pipeline.read_text().replace("pipeline: one-name", "pipeline: another-name"))
    return path


@pytest.mark.parametrize("parts", [3, ONE_BY_ONE + 4])
def test_a_pipeline_under_another_name_finds_existing_results_by_id(
    lab: Any, machines: tuple[Session, Session], parts: int
) -> None:
    alpha, beta = machines
    first = run(alpha, declared(lab, parts))
    assert len(first.executed) == parts + 1

    second = run(beta, renamed(lab))

    assert second.executed == []
    assert second.datasets == first.datasets
    assert run(beta, lab.pipeline).executed == [], "the results are also found under the original name"
    assert run(alpha, lab.pipeline).executed == []


def test_existing_results_are_found_after_the_loss_of_mirror_and_store(lab: Any, data: Path) -> None:
    with Session(Settings(data)) as session:
        first = run(session, declared(lab, 3))
    for path in (*(data / "mirror").glob("*"), data / "store.sqlite"):
        path.unlink()
    with Session(Settings(data)) as session:
        second = run(session, renamed(lab))
        assert (second.executed, second.datasets) == ([], first.datasets)


def test_a_step_called_on_another_machine_uses_the_existing_result(
    lab: Any, machines: tuple[Session, Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha, beta = machines
    first = run(alpha, declared(lab, 1))
    step = importlib.import_module(f"{lab.module}_many").scale

    def execute(*_: object) -> None:
        raise AssertionError("the result exists")

    monkeypatch.setattr("crucible_lineage.pipeline.job.materialize._execute", execute)
    with Catalogue(beta) as catalogue, registering("lab", catalogue=catalogue):
        (measured,) = first.inputs["part"]
        assert step(measured).mfid == first.datasets["scaled[part-00.txt]"]["out"]
