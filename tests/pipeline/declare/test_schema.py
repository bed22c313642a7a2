"""The JSON Schema of pipeline files, for completion and checks in editors, agrees with the reader."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.pipeline.declare.pipeline import pipeline_schema
from crucible_lineage.pipeline.declare.yaml import parse_document

jsonschema = pytest.importorskip("jsonschema")

ROOT = Path(__file__).parents[3]
DEPLOYED = sorted((ROOT / "deployments" / "pipelines").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = pipeline_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def errors(validator: Any, text: str) -> list[str]:
    return [error.message for error in validator.iter_errors(parse_document(text, "p.yaml").data)]


@pytest.mark.parametrize("path", DEPLOYED, ids=[path.stem for path in DEPLOYED])
def test_deployed_pipelines_are_valid(validator: Any, path: Path) -> None:
    assert errors(validator, path.read_text(encoding="utf-8")) == []


def test_the_pipelines_of_the_documentation_are_valid(validator: Any) -> None:
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/pipelines.md")]
    blocks = [block for text in texts for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    pipelines = [block for block in blocks if re.search("^pipeline:", block, re.MULTILINE)]
    assert len(pipelines) > 5
    for block in pipelines:
        assert errors(validator, block) == [], block


COMPLETE = """
pipeline: whole
project: lab
env: [LAB_TOKEN]
params: {degree: 3}
inputs:
  a: {file: a.txt, each: true, timestamp: "2024-05-01T12:00:00Z", samples: [0tr5k2ndm5zvd000nr21qakeh4], ingest: false}
  b: {file: [a.txt, "b*.txt"], timestamp: "since 2024-05-01T12:00:00Z", match: {a: [instrument_name, metadata.lamp]}}
  c: {dataset: 0tr5k2ndm5zvd000nr21qakeh4}
  d: {dataset: [0tr5k2ndm5zvd000nr21qakeh4], each: true, match: {a: instrument_name}}
  e: {select: {measurement: x, keyword: y}, each: true}
  f: {pipeline: other.yaml, from: s, output: low, each: true}
  g: {each: [{file: a.txt, metadata: {x: 1}}], measurement: m}
steps:
  s:
    uses: "m:f"
    inputs: {a: a, b: [b, c], c: {from: d, files: "*.txt", group_by: []}, d: [{from: s.low}, e], e: f, f: g}
    params: {degree: "${params.degree}"}
    matrix: {x: [1, 2]}
    output: {dataset_name: "{a.dataset_name}", inherit: [session], owner_orcid: X, ingestor: X, metadata: {a: 1}}
    retries: "${params.degree}"
    timeout: 3.5
  t: {run: "fit {inputs.a} {out}", inputs: {a: a}, matrix: [{x: 1}, {x: 2}], env: {A: b}}
  u: {run: [fit, "{inputs.a}", "{out}"], inputs: {a: a}}
schedule: "0 2 * * *"
timezone: America/Los_Angeles
trigger: {crucible.dataset.created: {measurement: "Raman*"}}
"""


def test_every_key_is_described() -> None:
    schema = pipeline_schema()
    models = {"": schema, **schema["$defs"]}
    keys = [f"{name}.{key}" for name, model in models.items() for key, part in model["properties"].items()
            if "description" not in part]  # fmt: skip
    assert keys == []
    assert schema["$defs"]["StepSpec"]["properties"]["timeout"]["description"].startswith("seconds")


def test_a_pipeline_with_all_keys_is_valid(validator: Any) -> None:
    assert errors(validator, COMPLETE) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pipeline: whole", "pipelin: whole"),
        ("project: lab\n", ""),
        ("c: {dataset:", "c: {folder: /, dataset:"),
        ("e: {select: {measurement: x, keyword: y}", "e: {select: x"),
        ('uses: "m:f"', 'uses: "m:f"\n    run: x'),
        ("timeout: 3.5", "timeout: long"),
        ('schedule: "0 2 * * *"', 'schedule: {cron: "0 2 * * *"}'),
        ("crucible.dataset.created", "something"),
    ],
)
def test_a_pipeline_that_the_reader_refuses_is_not_valid(validator: Any, old: str, new: str) -> None:
    assert old in COMPLETE
    assert errors(validator, COMPLETE.replace(old, new, 1))


def test_the_command_prints_the_schema(command: Any, validator: Any) -> None:
    assert json.loads(command("check", "--schema").stdout) == validator.schema
