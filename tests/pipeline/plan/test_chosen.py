"""Steps that a run makes: all that are not fresh, or those selected; and its exit codes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

from crucible_lineage.pipeline.run.result import RunResult, StepChoice
from crucible_lineage.session import Session
from tests.runs import forget

Run = Callable[..., RunResult]

PIPELINE = """
pipeline: counting
project: lab
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
  second: {file: second.txt, timestamp: "2024-05-01T12:05:00Z"}
steps:
  scaled: {uses: "LABMODULE:scale", inputs: {counts: first}, matrix: {factor: [2, 3]}}
  parts: {uses: "LABMODULE:split", inputs: {counts: second}}
  total: {uses: "LABMODULE:add", inputs: {left: scaled, right: parts.high}}
"""
FAILING = (
    PIPELINE
    + """
  broken: {uses: "LABMODULE:fail", inputs: {counts: first}}
  below: {uses: "LABMODULE:scale", inputs: {counts: broken}}
"""
)


def test_only_makes_the_selected_steps_and_reports_missing_parents(lab: Any, run: Run) -> None:
    lab.declare(PIPELINE)
    incomplete = run(lab.pipeline, StepChoice(only=("total",)))
    assert incomplete.outcomes["parts"] == "left out"
    assert not incomplete.ok
    assert (
        "its parent scaled[factor=2] is missing and was left out; run without --only"
        in incomplete.errors["total[factor=2]"]
    )
    first = run(lab.pipeline, StepChoice(only=("parts",)))
    assert (first.executed, first.ok) == (["parts"], True), "a step that was left out has not failed"
    assert first.outcomes["total[factor=3]"] == "left out"
    assert run(lab.pipeline, StepChoice(only=("scaled", "total"))).executed == [
        *("scaled[factor=2]", "scaled[factor=3]", "total[factor=2]", "total[factor=3]")
    ]


def test_from_makes_a_step_and_all_that_depend_on_it(lab: Any, run: Run) -> None:
    lab.declare(PIPELINE)
    run(lab.pipeline)
    lab.file(f"{lab.module}_2.py", (lab.folder / f"{lab.module}.py").read_text().replace("2.5", "2.25"))
    lab.declare(PIPELINE.replace("LABMODULE:split", f"{lab.module}_2:split").replace("[2, 3]", "[2, 3, 4]"))
    result = run(lab.pipeline, StepChoice(from_=("parts",), only=()))
    assert result.outcomes["parts"] == "executed"
    assert result.outcomes["scaled[factor=2]"] == "reused"
    assert result.outcomes["scaled[factor=4]"] == "left out"
    assert result.outcomes["total[factor=2]"] == "reused", "the parts have the same bytes"
    assert result.stayed == ("total[factor=2]", "total[factor=3]")
    assert result.outcomes["total[factor=4]"] == "failed", "its other parent does not exist"


def test_force_accepts_a_step_or_one_of_its_instances(
    lab: Any, session: Session, run: Run, planned: Any, record_of: Any
) -> None:
    lab.declare(PIPELINE)
    first = run(lab.pipeline)
    steps = planned(lab.pipeline, ("scaled[factor=3]",))
    assert {output: keys for output, (keys,) in steps["parts"].instance.slots.items()} == {
        output: f"counting/parts/{output}/second.txt" for output in ("low", "high")
    }
    assert {name: step.state for name, step in steps.items()} == {
        "scaled[factor=2]": "fresh",
        "scaled[factor=3]": "stale",
        "parts": "fresh",
        "total[factor=2]": "fresh",
        "total[factor=3]": "stale",
    }
    second = run(lab.pipeline, StepChoice(forced=("scaled[factor=3]",)))
    assert second.executed == ["scaled[factor=3]"]
    assert second.stayed == ("total[factor=3]",), "it was made again with the same bytes"
    mfid = second.datasets["scaled[factor=3]"]["out"]
    assert record_of(mfid)["supersedes"] == first.datasets["scaled[factor=3]"]["out"]
    third = run(lab.pipeline, StepChoice(forced=("scaled", "total[factor=3]")))
    assert third.executed == ["scaled[factor=2]", "scaled[factor=3]", "total[factor=3]"]
    assert session.client.datasets.get(mfid).unique_id, "a new attempt stands beside the old one"
    assert run(lab.pipeline).datasets == third.datasets, "the latest attempt is the one that counts"
    forget(session.mirror)
    assert run(lab.pipeline).datasets == third.datasets


def test_a_run_goes_on_after_a_failure_and_the_next_one_resumes(lab: Any, run: Run) -> None:
    lab.declare(FAILING)
    result = run(lab.pipeline)
    assert sum(outcome == "executed" for outcome in result.outcomes.values()) == 5
    assert (result.outcomes["broken"], result.outcomes["below"], result.ok) == ("failed", "skipped", False)
    assert "RuntimeError: the lamp was off" in result.errors["broken"]
    again = run(lab.pipeline)
    assert (again.executed, again.outcomes["broken"]) == ([], "failed"), "a failed step is tried again"
    corrected = FAILING.replace('LABMODULE:fail", inputs:', 'LABMODULE:scale", params: {factor: 9}, inputs:')
    assert run(lab.declare(corrected)).executed == ["broken", "below"]


def test_without_keep_going_nothing_is_started_after_a_failure(lab: Any, run: Run) -> None:
    chain = """
    pipeline: chain
    project: lab
    inputs:
      first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
    steps:
      broken: {uses: "LABMODULE:fail", inputs: {counts: first}}
      s0: {uses: "LABMODULE:scale", inputs: {counts: first}, params: {factor: 1}}
    """
    # long enough for the other step to fail first, however busy the machine is
    names = [f"s{number}" for number in range(25)]
    for before, name in itertools.pairwise(names):
        chain += f"  {name}: {{uses: 'LABMODULE:scale', inputs: {{counts: {before}}}}}\n    "
    result = run(lab.declare(chain), StepChoice(keep_going=False))
    assert result.outcomes["broken"] == "failed"
    assert result.outcomes["s24"] == "skipped"
    assert set(result.outcomes) == {"broken", *names}
    assert run(lab.pipeline).outcomes["s24"] == "executed"


def test_exit_codes_and_output(lab: Any, cli: Any) -> None:
    lab.declare(FAILING)
    dry = cli("plan", lab.pipeline, "--json")
    assert dry.exit_code == 0
    assert {step["state"] for step in json.loads(dry.stdout)["steps"]} == {"missing"}

    failed = cli("run", lab.pipeline, "--engine", "local")
    assert failed.exit_code == 1
    assert "5 executed, 1 failed, 1 skipped" in failed.stdout
    assert "step 'broken' failed: RuntimeError: the lamp was off, at lab_" in failed.stderr
    assert "crucible-lineage lineage " in failed.stdout

    left = cli("run", lab.pipeline, "--engine", "local", "--only", "scaled")
    assert left.exit_code == 0
    assert "5 reused, 2 left out" in left.stdout

    assert cli("run", lab.pipeline, "--only", "scald").exit_code == 2
    assert cli("run", lab.pipeline, "--set", "scaled.factor=3").exit_code == 2
    wrong = cli("run", lab.pipeline, "--force", "brokn")
    assert (wrong.exit_code, "did you mean 'broken'?" in wrong.stderr) == (2, True)
    assert "nothing was changed" in wrong.stderr
    assert cli("run", lab.folder / "none.yaml").exit_code == 2

    result = json.loads(cli("run", lab.pipeline, "--engine", "local", "--json").stdout)
    assert (result["outcomes"]["broken"], result["outcomes"]["below"]) == ("failed", "skipped")
    assert set(result) >= {"run_id", "pipeline", "project", "inputs", "datasets", "outcomes", "errors", "logs"}


def test_a_plan_shows_the_id_that_a_forced_step_will_get(lab: Any, run: Run, planned: Any, record_of: Any) -> None:
    first = run(lab.pipeline).datasets["total"]["out"]
    for attempt in (1, 2):
        shown = planned(lab.pipeline, ("total",))["total"].datasets["out"]
        assert shown != first
        made = run(lab.pipeline, StepChoice(forced=("total",))).datasets["total"]["out"]
        assert made == shown
        assert record_of(made)["recipe"]["attempt"] == attempt
        first = made
