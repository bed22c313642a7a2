"""Checks: evaluated once per condition, recorded, not part of the identity; failures are flagged or on hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.cli.run import exit_code
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.declare.parts import Check
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.session import Session
from crucible_lineage.statements.stating import lift
from tests.runs import listed_states as states

Run = Callable[..., RunResult]


def checking(lab: Any, text: str, name: str = "checked.yaml") -> Any:
    """The laboratory's pipeline, with checks of its first step."""
    declared = lab.pipeline.read_text().replace("params: {factor: 3}", f"params: {{factor: 3}}\n    checks: {text}")
    return lab.declare(declared, name)


def test_a_failed_check_puts_its_result_on_hold_and_blocks_descendants_in_the_same_run(
    lab: Any, session: Session, run: Run
) -> None:
    done = run(checking(lab, '{small: {that: "results.factor < 2", else: hold}}'))
    scaled = done.datasets["scaled"]["out"]
    assert done.errors["total"].startswith(f"blocked: {scaled} is on hold by ")
    assert "check small: results.factor < 2 is not met, results.factor is 3" in done.errors["total"]
    assert (done.ok, done.is_held, exit_code(done)) == (False, True, 4)
    assert states(session)[scaled] == "doubtful"
    assert session.mirror.verdicts("lab")[scaled]["counting/scaled/small"].values == {"results.factor": 3}


def test_a_new_condition_is_evaluated_on_existing_results_without_executing_steps(
    lab: Any, session: Session, run: Run
) -> None:
    held = run(checking(lab, '{small: {that: "results.factor < 2", else: hold}}'))
    done = run(checking(lab, '{small: {that: "results.factor < 4", else: hold}}'))
    assert done.datasets["scaled"] == held.datasets["scaled"], "no part of the identity"
    assert (done.outcomes, done.is_held) == ({"scaled": "reused", "total": "executed"}, False)
    assert set(states(session).values()) <= {"raw", "current"}
    again = run(checking(lab, '{small: {that: "results.factor < 1", else: hold}}'))
    assert (again.executed, again.is_held, exit_code(again)) == ([], True, 4)
    assert states(session)[done.datasets["total"]["out"]] == "doubtful"


def test_a_verdict_is_recorded_once_and_a_lifted_hold_stays_lifted(lab: Any, session: Session, run: Run) -> None:
    path = checking(lab, '{small: {that: "results.factor < 2", else: hold}}')
    scaled = run(path).datasets["scaled"]["out"]
    lift(session, [scaled], "looked at, it is good")
    done = run(path)
    assert done.outcomes == {"scaled": "reused", "total": "executed"}
    count = len(session.client.datasets.list(project_id="lab", keyword="statement"))
    run(path)
    assert len(session.client.datasets.list(project_id="lab", keyword="statement")) == count


def test_a_warning_is_a_flag_and_a_failure_fails_the_step(lab: Any, session: Session, run: Run) -> None:
    done = run(checking(lab, '{small: {that: "results.factor < 2", else: warn}}'))
    assert (done.ok, exit_code(done)) == (True, 0)
    assert "check small failed: results.factor < 2" in done.notes["scaled"]
    flags = {standing.mfid: standing.flags for standing in list_datasets(session, "lab").entries}
    assert flags[done.datasets["scaled"]["out"]] == ("small",)
    failed = run(checking(lab, '{small: {that: "results.factor < 1", else: fail}}'))
    assert (failed.outcomes["scaled"], exit_code(failed)) == ("failed", 1)


def test_inputs_are_checked_by_their_metadata(lab: Any, session: Session, run: Run) -> None:
    text = lab.pipeline.read_text().replace(
        "first: {file: first.txt,",
        'first: {file: first.txt, checks: {long: {that: "metadata.exposure_s > 1", else: hold}, '
        'seen: {that: "metadata.nobody_said > 1", else: hold}}, metadata: {exposure_s: 0.5},',
    )
    done = run(lab.declare(text, "inputs.yaml"))
    assert done.errors["scaled"].startswith(f"blocked: {done.inputs['first'][0]} is on hold")
    assert exit_code(done) == 4


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ('{small: {that: "results.factor <", else: hold}}', "invalid syntax"),
        ('{small: {that: "factor < 2", else: hold}}', "a check may use results.NAME"),
    ],
)
def test_an_invalid_check_is_a_fault_of_the_declaration(lab: Any, check: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bind_file(checking(lab, check), None)


def test_a_missing_or_incomparable_value_does_not_pass() -> None:
    check = Check.model_validate({"that": "results.rms < 0.03", "else": "hold"})
    assert check.of({"results": {"rms": 0.01}}).passed
    for results in ({}, {"rms": "much"}, {"rms": float("nan")}):
        assert not check.of({"results": results}).passed
    assert check.of({}).values_text == "results.rms is not there"


@pytest.mark.parametrize("results", [{"fit": {"rms": 0.01}}, {"fit.rms": 0.01}])
def test_a_nested_value_has_the_longer_name_that_it_has_in_tables(results: dict[str, object]) -> None:
    verdict = Check(that="results.fit.rms < 0.03").of({"results": results})
    assert (verdict.passed, verdict.values) == (True, {"results.fit.rms": 0.01})
