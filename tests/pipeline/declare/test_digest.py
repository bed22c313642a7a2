"""What the hash of a pipeline depends on."""

from __future__ import annotations

from typing import Any

import pytest

from crucible_lineage.pipeline.declare.load import load_pipeline, read_declaration


def test_the_hash_of_a_pipeline_depends_on_its_content_only(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_FACTOR", "8")
    plain = "pipeline: p\nproject: lab\nenv: [LAB_FACTOR]\ninputs: {first: {file: first.txt}}\nsteps:\n"
    plain += '  scaled: {uses: "LABMODULE:scale", inputs: {counts: first}, params: {factor: "${env.LAB_FACTOR}"}}\n'
    spelt = """
    # the same, in another form
    steps:
      scaled:
        params:
          factor: '${env.LAB_FACTOR}'
        inputs: {counts: "first"}
        uses: LABMODULE:scale
    inputs:
      first:
        file: "first.txt"
    env:
      - LAB_FACTOR
    project: lab
    pipeline: p
    """
    digest = load_pipeline(lab.declare(plain)).digest
    assert load_pipeline(lab.declare(spelt, "spelt.yaml")).digest == digest
    assert read_declaration(lab.pipeline, {"scaled.factor": 2}).spec.digest == digest, "overrides are not part of it"
    monkeypatch.setenv("LAB_FACTOR", "9")
    assert load_pipeline(lab.pipeline).digest == digest, "nor is the environment"
    assert load_pipeline(lab.declare(plain.replace("project: lab", "project: other"))).digest != digest
