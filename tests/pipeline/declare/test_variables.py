"""Variables of a declaration: parameters of the pipeline, and listed variables of the environment."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
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
MADE_BY = 'params: {factor: "${params.factor}"}'

Faults = Callable[..., list[str]]


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


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (MADE_BY, 'params: {factor: "${params.facter}"}', "12:14: ${params.facter}: `params:` at the top has no"),
        (MADE_BY, 'params: {factor: "${env.LAB_FACTER}"}', "name the variable first, as in `env: [LAB_FACTER]`"),
        (MADE_BY, 'params: {factor: "${env.LAB_FACTOR}"}', "the environment variable LAB_FACTOR is not set"),
        ("uses: LABMODULE:scale", 'run: "cat ${params.factor}"', "a command takes parameters as {params.NAME}"),
    ],
)
def test_an_unresolved_reference_is_reported_with_its_location(
    lab: Any, faults: Faults, old: str, new: str, words: str
) -> None:
    assert old in PIPELINE
    found = faults(lab.declare(PIPELINE.replace(old, new, 1)))
    assert any(words in message for message in found), found


@pytest.mark.parametrize(
    "change",
    [
        (MADE_BY, 'params: {factor: "${env.LAB_FACTOR}"}'),  # found when the function's annotation is checked
        ("inputs: {counts: first}", 'inputs: {counts: first}\n    retries: "${env.LAB_FACTOR}"'),
        ("{factor: 3,", '{factor: "${env.LAB_FACTOR}",'),
    ],
)
def test_a_value_of_the_environment_is_not_shown_in_a_fault(
    lab: Any, faults: Faults, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str]
) -> None:
    monkeypatch.setenv("LAB_FACTOR", "known-here-alone")  # other tests' secrets are masked in this process
    assert change[0] in PIPELINE
    found = faults(lab.declare(PIPELINE.replace(*change)))
    assert found
    assert not any("alone" in message for message in found), found
    assert any("a value from the environment" in message for message in found), found


SECRETIVE = """
from pathlib import Path

from pydantic import SecretStr

from crucible_lineage import step


@step
def ask(counts: Path, *, token: SecretStr, site: str = "", out: Path) -> dict:
    (out / "answer.txt").write_text(f"{token.get_secret_value()[::-1]} {site}")
    return {}
"""

ASKING = """
pipeline: asking
project: lab
env: [LAB_TOKEN, LAB_SITE]
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
steps:
  asked:
    uses: LABMODULE_ask:ask
    inputs: {counts: first}
    checks: {kept: {that: "results.n > 0", else: hold}}
    certify: {for: instrument_name, from: "{counts.timestamp}"}
    params: {token: "${env.LAB_TOKEN}", site: "at ${env.LAB_SITE}"}
  command:
    run: [PYTHON, tell.py, "{inputs.counts}", "{out}"]
    inputs: {counts: first}
    env: {TOKEN: "${env.LAB_TOKEN}", PLACE: "here"}
"""
TELL = """
import hashlib, os, pathlib, sys
pathlib.Path(sys.argv[2], "answer.txt").write_text(os.environ["TOKEN"][::-1] + " " + os.environ["PLACE"])
"""


@pytest.fixture
def asking(lab: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LAB_TOKEN", "hush-hush")
    monkeypatch.setenv("LAB_SITE", "Berkeley")
    lab.file(f"{lab.module}_ask.py", SECRETIVE)
    lab.file("tell.py", TELL)
    lab.declare(ASKING.replace("PYTHON", sys.executable))
    return lab


def test_a_value_of_the_environment_reaches_another_process_as_a_reference(
    asking: Any, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crucible_lineage.pipeline.job.job import job_from_json, job_of, job_to_json
    from crucible_lineage.pipeline.job.materialize import materialize_step
    from crucible_lineage.pipeline.plan.expand import Expansion
    from crucible_lineage.pipeline.plan.inputs import known_inputs, register_inputs
    from crucible_lineage.pipeline.plan.plan import used_datasets
    from crucible_lineage.provenance.recipe import planned_outputs

    bound = bind_file(asking.pipeline)
    session.ensure_project("lab")
    inputs = register_inputs(known_inputs(bound.spec, session, lambda declared: iter(()), with_fields=False), session)
    instances = Expansion(bound, inputs, lambda step, given: step.inspection, {}).expand()
    for name in ("asked", "command"):
        used, inspection = used_datasets(instances[name], inputs, {}), instances[name].inspection
        outputs = planned_outputs("lab", inspection.code, inspection.outputs, inspection.params, used)
        job = job_of(bound, instances[name], used, outputs, {"run_id": "r1"}, {})
        sent = json.dumps(job_to_json(job))
        assert "hush" not in sent
        assert "${env.LAB_TOKEN}" in sent
        received = job_from_json(json.loads(sent), {"engine": "test"}, session)
        assert received.outputs == job.outputs
        if name == "asked":
            assert "hush-hush" in str(received.given)
        assert (received.given, received.spec.env) == (job.given, job.spec.env)
        monkeypatch.delenv("LAB_TOKEN")
        with pytest.raises(Exception, match="LAB_TOKEN is not set"):
            materialize_step(job_from_json(json.loads(sent), {}, session), session)
        monkeypatch.setenv("LAB_TOKEN", "hush-hush")
