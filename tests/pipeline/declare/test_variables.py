"""Variables of a declaration: parameters of the pipeline, and listed variables of the environment."""

from __future__ import annotations

from typing import Any

import pytest

from crucible_lineage.pipeline.declare.load import load_pipeline
from crucible_lineage.pipeline.plan.bind import bind_file

PIPELINE = """
pipeline: counting
project: lab
env: [LAB_FACTOR]
params: {factor: 3, where: Berkeley}
inputs:
  first: {file: first.txt, dataset_name: "counts of ${params.where}", metadata: {factor: "${params.factor}"}}
steps:
  scaled:
    uses: LABMODULE:scale
    inputs: {counts: first}
    params: {factor: "${params.factor}"}
    output: {dataset_name: "scaled by ${params.factor} in ${params.where}", keywords: ["${params.where}"]}
"""


def test_a_single_reference_keeps_its_type_and_becomes_text_within_text(lab: Any) -> None:
    spec = load_pipeline(lab.declare(PIPELINE))
    step = spec.steps["scaled"]
    assert step.params == {"factor": 3}
    assert spec.inputs["first"].metadata == {"factor": 3}  # type: ignore[union-attr]
    assert step.output.dataset_name == "scaled by 3 in Berkeley"
    assert step.output.keywords == ("Berkeley",)
    text = PIPELINE.replace("in ${params.where}", "in $${params.where} for $5")  # two dollars escape a reference
    text = text.replace("where: Berkeley", "where: [a, b]").replace('["${params.where}"]', '"${params.where}"')
    output = load_pipeline(lab.declare(text.replace("counts of ${params.where}", "counts"))).steps["scaled"].output
    assert (output.dataset_name, output.keywords) == ("scaled by 3 in ${params.where} for $5", ("a", "b"))


def test_a_parameter_may_refer_to_another_one_from_the_environment(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_FACTOR", "2.5")
    bound = bind_file(lab.declare(PIPELINE.replace("{factor: 3,", '{factor: "${env.LAB_FACTOR}",')))
    assert bound.steps["scaled"].inspection.params == {"factor": 2.5}
