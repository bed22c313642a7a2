"""process-new does not wait for superseded results."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.session import Session
from crucible_lineage.watch.new_data import OVERLAP, SelectionMarks

FOLLOWING = """
pipeline: following
project: lab
inputs:
  scaled: {select: {keyword: "pipeline:counting", data_type: scaled}, each: true}
steps:
  again:
    uses: LABMODULE:scale
    inputs: {counts: scaled}
"""


def test_a_superseded_result_is_not_waited_for(lab: Any, session: Session) -> None:
    def run(bound: Any) -> Any:
        return plan_and_run(bound, session, lambda: LocalEngine(session, 2), lambda event: None)

    first = run(bind_file(lab.pipeline)).datasets["scaled"]["out"]
    second = run(bind_file(lab.pipeline, None, {"scaled.factor": 4})).datasets["scaled"]["out"]
    bound = bind_file(lab.declare(FOLLOWING, "following.yaml"))
    newest = SelectionMarks(bound, "scaled", session, timedelta(hours=24))
    result = run(newest.look(full=True))
    assert result.inputs["scaled"] == (second,)
    assert newest._superseded() == {first}
    latest = max(seen.changed for seen in newest._seen.values())
    assert newest._since(result, set()) == latest - OVERLAP, "the next look begins after both"
    run(bind_file(lab.pipeline))  # back to the first result
    newest = SelectionMarks(bound, "scaled", session, timedelta(hours=24))
    assert run(newest.look(full=True)).inputs["scaled"] == (first,)
    assert newest._superseded() == {second}


def test_a_result_that_is_current_again_is_selected(
    lab: Any, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crucible_lineage.watch.new_data.OVERLAP", timedelta(0))

    def run(bound: Any) -> Any:
        return plan_and_run(bound, session, lambda: LocalEngine(session, 2), lambda event: None)

    bound = bind_file(lab.declare(FOLLOWING, "following.yaml"))

    def look() -> tuple[bool, tuple[str, ...]]:
        newest = SelectionMarks(bound, "scaled", session, timedelta(hours=24))
        full = newest.is_full
        result = run(newest.look(full=full))
        newest.note(result, (), full=full)
        return full, result.inputs["scaled"]

    first = run(bind_file(lab.pipeline)).datasets["scaled"]["out"]
    assert look() == (True, (first,))
    second = run(bind_file(lab.pipeline, None, {"scaled.factor": 4})).datasets["scaled"]["out"]
    assert look() == (False, (second,))
    assert look() == (False, (second,)), "the mark is at the last one"
    run(bind_file(lab.pipeline))  # back to the first result, which is older than the mark
    assert look() == (False, (first,))
