"""Datasets whose registration was cut short, and that no second run of the same comes by: each has a way out."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.verify import verify_project
from crucible_lineage.errors import InputError, UnreachableError
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.rerun import plan_rerun
from crucible_lineage.pipeline.run.result import RunResult, StepChoice
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.registration.claim import Claim
from crucible_lineage.registration.register import Submission
from crucible_lineage.session import Session

TOTAL = """
pipeline: totals
project: lab
inputs:
  scan: {file: "scan-*.txt", each: true, timestamp: "since 2024-05-01T12:00:00Z"}
steps:
  scaled: {uses: "LABMODULE:scale", inputs: {counts: scan}}
  joined: {uses: "LABMODULE_join:joined", inputs: {parts: {from: scaled, group_by: []}}}
"""
JOIN = """
from pathlib import Path
from crucible_lineage import step


@step
def joined(parts: list[Path], *, out: Path) -> dict:
    (out / "all.txt").write_text(" ".join(path.read_text() for path in parts))
    return {"parts": len(parts)}
"""


@pytest.fixture
def run(session: Session) -> Callable[[Path], RunResult]:
    def run_file(path: Path) -> RunResult:
        bound = bind_file(path, session.store)
        choice = StepChoice(patience_s=0.0)
        return plan_and_run(bound, session, lambda: LocalEngine(session, 1), lambda event: None, choice)

    return run_file


@pytest.fixture
def cut_short(monkeypatch: pytest.MonkeyPatch) -> Any:
    """In its block the service is lost when this dataset is to be marked complete, with all bytes there already."""

    @contextmanager
    def losing(name: str) -> Iterator[None]:
        really = Submission.fill

        def fill(own: Submission, claimed: Claim) -> dict[str, str]:
            filled = really(own, claimed)
            if name in own.new.name:
                raise UnreachableError("no answer")
            return filled

        with monkeypatch.context() as broken:
            broken.setattr(Submission, "fill", fill)
            yield

    return losing


def test_measured_files_of_unknown_time_are_finished_under_the_id_that_they_had(
    lab: Any, run: Any, session: Session, cut_short: Any
) -> None:
    path = lab.declare(lab.pipeline.read_text().replace(', timestamp: "2024-05-01T12:00:00Z"', ""))
    with cut_short("first"), pytest.raises(UnreachableError):
        run(path)
    (half,) = session.client.datasets.list(project_id="lab")
    again = run(path)
    assert again.ok, again.errors
    assert again.inputs["first"] == (half.unique_id,)
    assert verify_project(session, "lab").findings == ()


@pytest.fixture
def left_behind(lab: Any, run: Any, session: Session, cut_short: Any) -> str:
    """A result that was begun from one scan, before there was another one."""
    lab.file(f"{lab.module}_join.py", JOIN)
    lab.file("scan-1.txt", "1\n")
    path = lab.declare(TOTAL)
    with cut_short("joined"):
        assert not run(path).ok
    shutil.rmtree(session.outbox.folder)  # as if that had been another machine, which does not come back
    session.close()
    lab.file("scan-2.txt", "2\n")
    assert run(path).ok
    (finding,) = verify_project(session, "lab").findings
    (mfid,) = finding.ids
    assert (finding.check, finding.command) == ("incomplete", f"crucible-lineage rerun {mfid}")
    return mfid


def test_a_result_whose_pipeline_has_gone_on_with_more_data_is_finished_by_rerun(
    left_behind: str, session: Session
) -> None:
    found = plan_rerun(left_behind, session, None, {})
    engine = lambda: LocalEngine(session, 1)  # noqa: E731
    made = plan_and_run(found.pipeline, session, engine, lambda event: None, found.choice, planned=found.planned)
    assert made.ok, made.errors
    assert [dataset["out"] for dataset in made.datasets.values()] == [left_behind]
    assert verify_project(session, "lab").findings == ()


def test_a_result_whose_code_has_changed_meanwhile_is_told_apart(left_behind: str, lab: Any, session: Session) -> None:
    lab.file(f"{lab.module}_join.py", JOIN.replace('" ".join', '", ".join'))
    sys.modules.pop(f"{lab.module}_join")
    with pytest.raises(InputError, match="the code of its step has changed"):
        plan_rerun(left_behind, session, None, {})
