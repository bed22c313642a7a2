"""Output of `plan`, as JSON and as text: states, causes, and many instances folded into one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from crucible_lineage.ask.plans import PlanAnswer
from crucible_lineage.pipeline.declare.pipeline import StepSpec
from crucible_lineage.pipeline.plan.bound import BoundStep
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.plan.inspect import Inspection
from crucible_lineage.pipeline.plan.plan import PipelinePlan, StepPlan
from crucible_lineage.pipeline.run.result import RunResult

Run = Callable[..., RunResult]


def test_the_plan_as_json_has_name_state_causes_and_datasets(lab: Any, cli: Any, run: Run) -> None:
    first = run(lab.pipeline)
    lab.declare(lab.pipeline.read_text().replace("factor: 3", "factor: 4"))
    ran = cli("plan", lab.pipeline, "--json")
    assert ran.exit_code == 0
    scaled, total = json.loads(ran.stdout)["steps"]
    assert scaled["name"] == "scaled"
    assert scaled["state"] == "stale"
    was = first.datasets["scaled"]["out"]
    assert scaled["causes"] == [f"parameter factor changed: 3.0 -> 4.0 (since {was})"]
    assert list(scaled["datasets"]) == ["out"]
    assert len(scaled["datasets"]["out"]) == 26
    assert scaled["supersedes"] == {"out": was}
    assert (total["state"], total["causes"]) == (
        "stale",
        ["parent scaled will be rerun; this result is kept if the output is identical"],
    )
    assert total["datasets"] == {"out": None}, "its id depends on that of its parent"

    text = cli("plan", lab.pipeline).stdout
    assert "~ scaled  stale" in text
    assert "because parameter factor changed: 3.0 -> 4.0" in text


def test_a_change_of_code_is_shown_as_a_short_diff(lab: Any, cli: Any, run: Run) -> None:
    run(lab.pipeline)
    lab.file(f"{lab.module}_2.py", (lab.folder / f"{lab.module}.py").read_text().replace("* factor", "/ factor"))
    lab.declare(lab.pipeline.read_text().replace(f"{lab.module}:scale", f"{lab.module}_2:scale"))
    (scaled, total) = json.loads(cli("plan", lab.pipeline, "--json").stdout)["steps"]
    assert scaled["causes"][0].startswith("the code of the step itself changed: ")
    assert total["roots"] == [f"scaled: {scaled['causes'][0].partition(' (since ')[0]}"]
    assert [line[0] for line in scaled["code_diff"] if line[0] in "+-"] == ["-", "+"]
    assert any("/ factor" in line for line in scaled["code_diff"])
    assert cli("plan", lab.pipeline).stdout.count("+    values = [float(line) / factor") == 1
    above = cli("why", "total", lab.pipeline).stdout
    assert "1 step follows from:\n  scaled: the code of the step itself changed: " in above
    assert "+    values = [float(line) / factor" in above


def made_plan(steps: Iterable[StepPlan]) -> PipelinePlan:
    return PipelinePlan(tuple(steps), {}, index=Any)


def test_many_instances_of_a_step_are_folded_into_a_line_for_each_state(capsys: pytest.CaptureFixture[str]) -> None:
    def instance(number: int) -> StepPlan:
        state = "fresh" if number < 900 else "stale"
        causes = () if number < 900 else (f"parameter degree changed: 2 -> 3 (since m{number})",)
        code = Inspection("m:fit", "fit", {}, (), ("out",), {}, "")
        fit = Instance(f"fit[s{number}]", BoundStep("fit", StepSpec(uses="m:fit"), (), ()), "", {}, code, ())
        return StepPlan(fit, state, causes)

    print(PlanAnswer("", made_plan(map(instance, range(1000)))))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1].strip() for line in lines[:2]] == ["900 of 1,000 instances", "100 of 1,000 instances"]
    assert lines[2].strip() == "because parameter degree changed: 2 -> 3"
    assert len(lines) == 3


def test_every_command_finds_a_declaration_in_a_package(cli: Any) -> None:
    name = "package:crucible_lineage.deployments/pipelines/raman.yaml"
    answers = {command: cli(command, name) for command in ("check", "plan", "lineage")}
    assert {command: answer.exit_code for command, answer in answers.items()} == dict.fromkeys(answers, 0)
