"""The flow process-new on a real Prefect server: new datasets get their results, bad ones are parked."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.watch.new_data import SelectionMarks, each_selection, narrowed

RUN = """
import json, sys
from crucible_lineage.flows import process_new
from crucible_lineage.tasks import CrucibleConnection
states = []
for _ in range(int(sys.argv[3])):
    state = process_new(sys.argv[1], crucible=CrucibleConnection(data=sys.argv[2]), return_state=True)
    states.append([state.type.value, state.message])
print(json.dumps(states))
"""


def test_two_at_once_make_each_result_once_and_a_bad_dataset_is_parked_until_its_recipe_changes(
    selected: Path, data: Path, registered: Any, results: Any, prefect: Any, command: Any
) -> None:
    one, bad, two, three = registered("1\n", "no number\n", "2\n", "3\n")
    with ThreadPoolExecutor(2) as both:
        states = list(both.map(lambda _: prefect.run(RUN, selected, data, 1), range(2)))
    for ((state, message),) in states:
        assert state == "FAILED", message
        assert f"scaled[{bad}]" in message
        assert "1 failed" in message
    assert results() == {one: [3], two: [3], three: [3]}

    third, fourth = prefect.run(RUN, selected, data, 2)
    assert third[0] == "FAILED"
    assert fourth == ["COMPLETED", "pipeline selected: 0 executed, 3 reused, 1 parked (see crucible-lineage status)"]
    shown = json.loads(command("status", "--data", data, "--json", "--project", "lab").stdout)
    (parked,) = shown["failures"]
    assert (parked["parked"], parked["failures"], parked["subject"]) == (True, 3, [bad])
    assert "could not convert string to float" in parked["error"]
    assert [pipeline["pipeline"] for pipeline in shown["pipelines"]] == ["selected"]
    assert len(shown["runs"]) == 4

    selected.write_text(selected.read_text().replace("factor: 3", "factor: 4"))
    ((state, message),) = prefect.run(RUN, selected, data, 1)
    assert (state, "3 executed" in message, "1 failed" in message) == ("FAILED", True, True)
    (failing,) = json.loads(command("status", "--data", data, "--json").stdout)["failures"]
    assert (failing["parked"], failing["failures"]) == (False, 1), "another recipe starts anew"


def test_a_failed_check_is_in_the_log(selected: Path, data: Path, registered: Any, prefect: Any) -> None:
    registered("1\n")
    declared = selected.read_text()
    assert "params: {factor: 3}" in declared
    selected.write_text(
        declared.replace(
            "params: {factor: 3}", 'params: {factor: 3}\n    checks: {small: {that: "results.factor < 2"}}'
        )
    )
    prefect.environment = {**prefect.environment, "PREFECT_LOGGING_LEVEL": "INFO"}
    ran = prefect.python("-c", RUN, selected, data, 1)
    assert "check small failed: results.factor < 2" in ran.stderr


def fail(session: Any, pipeline: str, planned: str, subject: str) -> None:
    """Let a step fail, so that it is parked."""
    session.journal.begin_run("run", pipeline, "lab", Path("counting.yaml"))
    facts = {"error": "too dark", "log": None, "seconds": 1.0}
    facts |= {"name": planned, "about": json.dumps([subject]), "most": 1}
    session.journal.end_step("run", "lab", "scaled[x]", "failed", {}, **facts)


def test_what_is_parked_is_taken_out_by_the_id_of_its_dataset(data: Path, command: Any, session: Any) -> None:
    from crucible_lineage.ids import new_mfid

    planned, subject = new_mfid(), new_mfid()
    fail(session, "counting", planned, subject)
    shown = command("status", "--data", data)
    assert f"to try one again: crucible-lineage status --unpark {planned}" in shown.stdout
    assert "too dark" in shown.stdout
    assert command("status", "--data", data, "--unpark", subject).returncode == 0
    assert session.journal.failures() == {}
    again = command("status", "--data", data, "--unpark", subject)
    assert (again.returncode, "no failed result has the id" in again.stderr) == (2, True)


@pytest.fixture
def made(selected: Path, session: Any, registered: Any) -> Any:
    """Run the pipeline on the datasets that `SelectionMarks` selects, in this process, and return these."""
    from datetime import timedelta

    from crucible_lineage.pipeline.engines.local import LocalEngine
    from crucible_lineage.pipeline.run.run import plan_and_run

    def run(hours: float = 24) -> tuple[bool, set[str], Any]:
        bound = bind_file(selected, session.store)
        newest = SelectionMarks(bound, "counts", session, timedelta(hours=hours))
        full = newest.is_full
        result = plan_and_run(newest.look(full=full), session, lambda: LocalEngine(session, 2), lambda event: None)
        newest.note(result, (), full=full)
        return full, set(result.inputs["counts"]), result

    return run


def test_a_later_look_leaves_out_what_is_settled_and_takes_what_failed_again(
    made: Any, session: Any, registered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    monkeypatch.setattr("crucible_lineage.watch.new_data.OVERLAP", timedelta(0))
    old, settled = registered("1\n", "2\n")
    assert made()[:2] == (True, {old, settled})
    (bad,) = registered("no number\n")
    (good,) = registered("3\n")
    assert made()[:2] == (False, {settled, bad, good}), "the last one that was seen stands at the mark"
    assert made()[:2] == (False, {bad, good}), "what failed holds the mark"
    assert made(hours=0)[:2] == (True, {old, settled, bad, good})


def test_what_is_unparked_is_looked_at_again_though_newer_data_were_settled_since(
    made: Any, session: Any, registered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    from crucible_lineage.watch.folder import unpark

    monkeypatch.setattr("crucible_lineage.watch.new_data.OVERLAP", timedelta(0))
    (old,) = registered("1\n")
    assert made()[0]
    (newer,) = registered("2\n")
    assert made()[:2] == (False, {old, newer})
    assert made()[:2] == (False, {newer}), "the old one is not looked at any more"
    fail(session, "selected", old, old)
    assert unpark(session, old)
    assert made()[:2] == (True, {old, newer})


def test_another_code_or_declaration_looks_at_everything(made: Any, registered: Any, selected: Path) -> None:
    registered("1\n")
    assert made()[0]
    assert not made()[0]
    selected.write_text(selected.read_text().replace("factor: 3", "factor: 5"))
    assert made()[0]


def test_a_selection_of_which_all_are_taken_together_is_never_narrowed(lab: Any) -> None:
    declared = """
    pipeline: together
    project: lab
    inputs:
      counts: {select: {measurement: counting}, each: true}
    steps:
      scaled:
        uses: LABMODULE:scale
        inputs: {counts: counts}
      summed:
        run: cat {inputs.all} {out}
        inputs: {all: {from: scaled, collect: true}}
    """
    assert each_selection(bind_file(lab.declare(declared))) is None


def test_a_narrower_moment_of_the_declaration_stands(lab: Any, selected: Path) -> None:
    text = selected.read_text().replace("data_type: raw", 'data_type: raw, creation_time_gte: "2026-05-01T00:00:00Z"')
    bound = bind_file(lab.declare(text))
    earlier = narrowed(bound, "counts", {"creation_time_gte": "2026-04-01T00:00:00Z"})
    assert earlier.spec.inputs["counts"].select["creation_time_gte"] == "2026-05-01T00:00:00+00:00"
