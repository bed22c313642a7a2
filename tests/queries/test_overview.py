"""`status --all`: each pipeline of each project, over all machines, and what to do about it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from crucible_lineage.ask.status import PipelineOverview, overview
from crucible_lineage.core.folders import in_use, runs
from crucible_lineage.session import Session
from crucible_lineage.statements.statements import HOLD, About
from crucible_lineage.statements.stating import state
from tests.runs import run


def only(session: Session) -> PipelineOverview:
    (found,) = overview(session).pipelines
    return found


def test_a_healthy_pipeline_has_nothing_to_do(lab: Any, session: Session) -> None:
    assert overview(session).pipelines == []
    made = run(session, lab.pipeline)
    found = only(session)
    assert (found.project, found.pipeline, found.states, found.todo) == ("lab", "counting", {"current": 2}, ())
    assert found.run is not None
    assert (found.run.run_id, found.run.state) == (made.run_id, "complete")
    assert found.newest


def failing(lab: Any) -> Path:
    text = lab.pipeline.read_text().replace(":scale", ":fail").replace("    params: {factor: 3}\n", "")
    path: Path = lab.declare(text)
    return path


def test_failures_and_holds_are_listed_with_commands(lab: Any, session: Session) -> None:
    made = run(session, lab.pipeline)
    state(session, "lab", HOLD, About((made.datasets["total"]["out"],)), why="lamp")
    assert only(session).states == {"current": 1, "doubtful": 1}
    assert not run(session, failing(lab)).ok
    (failed,) = only(session).todo
    assert failed.what.startswith("scaled failed 1 time: RuntimeError: the lamp was off")
    assert failed.command == f"crucible-lineage run {lab.pipeline}"


def test_the_command_ends_with_code_1_if_something_needs_attention(
    lab: Any, data: Path, session: Session, command: Any
) -> None:
    run(session, lab.pipeline)
    shown = command("status", "--all", "--data", data)
    assert shown.returncode == 0, shown.stderr
    assert "counting" in shown.stdout
    assert "2 current" in shown.stdout
    run(session, failing(lab))
    shown = command("status", "--all", "--data", data, "--json")
    assert shown.returncode == 1
    (one,) = json.loads(shown.stdout)["pipelines"]
    assert "the lamp was off" in one["todo"][0]["what"]
    assert command("status", "--all", "--data", data, "--project", "other").stdout.endswith("no pipeline has run\n")


def test_a_run_under_way_for_much_longer_than_usual_is_said(
    lab: Any, data: Path, session: Session, command: Any
) -> None:
    run(session, lab.pipeline)
    write = session.journal.write
    write("UPDATE run SET started = '2024-05-01T12:00:00+00:00', ended = '2024-05-01T12:02:00+00:00'")
    session.journal.begin_run("hanging", "counting", "lab", lab.pipeline)
    with in_use(runs(data) / "hanging"):
        assert only(session).todo == ()
        write("UPDATE run SET started = '2024-05-02T12:00:00+00:00' WHERE id = 'hanging'")
        usual = r"under way for \d+\.\d h; the last runs took at most 2 min"
        shown = command("status", "--data", data)
        assert re.search(f"warning: run hanging of counting: {usual}", shown.stderr), shown.stderr
        shown = command("status", "--all", "--data", data)
        assert re.search(f"lab/counting: the last run here is {usual} since 2024-05-02", shown.stdout), shown.stdout
        assert f"crucible-lineage runs --pipeline counting --project lab --data {data}" in shown.stdout


def test_with_crucible_away_it_says_so(tmp_path: Path, command: Any) -> None:
    away = {"CRUCIBLE_API_URL": "http://127.0.0.1:9", "CRUCIBLE_API_KEY": "x", "CRUCIBLE_LINEAGE_RETRY_SECONDS": "1"}
    away["CRUCIBLE_LINEAGE_DATA"] = str(tmp_path)
    shown = command("status", "--all", **away)
    assert (shown.returncode, "no answer from" in shown.stderr) == (3, True)
    local = command("status", **away)
    assert (local.returncode, "while Crucible is away, it is unknown" in local.stderr) == (0, True)
    assert "nothing ran from this data folder yet" in local.stdout
