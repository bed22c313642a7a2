"""Parameters for one run, by `--set`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from crucible_lineage.cli.run import parse_overrides
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.plan.bind import bind_file

PIPELINE = """
pipeline: counting
project: lab
params: {factor: 3}
inputs:
  first: {file: first.txt}
steps:
  scaled: {uses: "LABMODULE:scale", inputs: {counts: first}, params: {factor: "${params.factor}"}}
  swept: {uses: "LABMODULE:scale", inputs: {counts: first}, matrix: {factor: [1, 2]}}
  parts: {uses: "LABMODULE:split", inputs: {counts: first}}
"""


@pytest.mark.parametrize(
    ("overrides", "step", "params"),
    [
        ({"scaled.factor": 5}, "scaled", {"factor": 5.0}),
        ({"factor": 6}, "scaled", {"factor": 6.0}),
        ({"factor": 6, "scaled.factor": 7}, "scaled", {"factor": 7.0}),
        ({"parts.at": 1}, "parts", {"at": 1.0}),
    ],
)
def test_a_parameter_of_a_step_or_of_the_pipeline_has_another_value_in_this_run(
    lab: Any, overrides: dict[str, Any], step: str, params: dict[str, Any]
) -> None:
    bound = bind_file(lab.declare(PIPELINE), None, overrides)
    assert bound.steps[step].inspection.params == params


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"scaled.facter": 1}, "--set scaled.facter: step 'scale' has no parameter 'facter'; did you mean 'factor'?"),
        ({"swept.factor": 1}, "the parameter 'factor' is swept by the matrix of step 'swept'"),
        (
            {"scaled.factor": "much"},
            "--set scaled.factor: parameter 'factor' of step 'scale' is 'much': Input should be a valid number",
        ),
        ({"scaled.factor": float("nan")}, "give a finite number"),
        ({"scaled.factor": "${env.HOME}"}, "name the variable first"),
    ],
)
def test_a_value_that_cannot_be_set_is_reported(lab: Any, overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        bind_file(lab.declare(PIPELINE), None, overrides)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("a.b=3", 3), ("a.b=true", True), ("a.b='3'", "3"), ("a.b=[1, x]", [1, "x"]), ("a.b=", ""), ("a.b=x=y", "x=y")],
)
def test_a_value_is_read_as_in_yaml(text: str, value: Any) -> None:
    assert parse_overrides((text,)) == {"a.b": value}


@pytest.mark.parametrize("text", ["a.b", "a.b=[1", "a.b=!!python/name:os.system x"])
def test_an_invalid_value_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_overrides((text,))


def test_a_value_gives_the_same_id_whether_declared_or_set(
    lab: Any, session: Any, run: Callable[..., Any], planned: Callable[..., Any]
) -> None:
    lab.declare(PIPELINE)
    first = run(lab.pipeline, scaled__factor=4)
    assert planned(lab.pipeline)["scaled"].causes[0].startswith("parameter factor changed: 4.0 -> 3.0")
    second = run(lab.declare(PIPELINE.replace("params: {factor: 3}", "params: {factor: 4}")))
    assert (second.executed, second.datasets["scaled"]) == ([], first.datasets["scaled"])
