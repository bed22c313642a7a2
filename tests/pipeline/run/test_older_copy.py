"""An older copy of the embedded Crucible that is restored manually is noticed, even if it has changed since."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.run.result import RunResult, StepEvent
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

Heard = Callable[[StepEvent], None]


def run(path: Path, data: Path, heard: Heard = lambda event: None) -> RunResult:
    with Session(Settings(data)) as session:
        return plan_and_run(bind_file(path, session.store), session, lambda: LocalEngine(session, 1), heard)


def put_back(copy: Path, data: Path) -> None:
    shutil.rmtree(data / "crucible")
    shutil.copytree(copy, data / "crucible")


@pytest.mark.parametrize(("is_synced", "has_more"), [(True, False), (False, True)])
def test_lost_results_are_made_again(
    lab: Any, data: Path, tmp_path: Path, is_synced: bool, has_more: bool, caplog: pytest.LogCaptureFixture
) -> None:
    run(lab.pipeline, data)
    shutil.copytree(data / "crucible", tmp_path / "copy")
    lab.declare(lab.pipeline.read_text().replace("factor: 3", "factor: 5"))
    made = run(lab.pipeline, data)
    if is_synced:
        assert run(lab.pipeline, data).executed == []
    put_back(tmp_path / "copy", data)
    if has_more:  # as many as are lost, of another machine
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "crucible").symlink_to(data / "crucible")
        text = (
            lab.pipeline.read_text().replace("pipeline: counting", "pipeline: others").replace("factor: 5", "factor: 7")
        )
        assert len(run(lab.declare(text, "others.yaml"), elsewhere).executed) == 2
    with caplog.at_level(logging.WARNING):
        again = run(lab.pipeline, data)
    assert (again.ok, sorted(again.executed), again.datasets) == (True, ["scaled", "total"], made.datasets)
    assert "2 datasets of pipeline:counting that were at this Crucible are missing" in caplog.text
    assert run(lab.pipeline, data).executed == []


def test_a_copy_without_the_project_is_noticed(lab: Any, data: Path, tmp_path: Path) -> None:
    with Session(Settings(data)) as session:
        session.client.account.whoami()
    shutil.copytree(data / "crucible", tmp_path / "copy")
    made = run(lab.pipeline, data)
    assert run(lab.pipeline, data).executed == []
    put_back(tmp_path / "copy", data)
    again = run(lab.pipeline, data)
    assert (again.ok, sorted(again.executed), again.datasets) == (True, ["scaled", "total"], made.datasets)
