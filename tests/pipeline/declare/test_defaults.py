"""Defaults of a pipeline, and what its hash depends on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from crucible_lineage.pipeline.declare.load import load_pipeline, read_declaration

Faults = Callable[..., list[str]]

DEFAULTS = f"""
pipeline: counting
project: lab
defaults:
  retries: 2
  timeout: 60
  tags: [big]
  env: {{MODE: fast, PLACE: here}}
  output: {{instrument_name: lamp, keywords: [counted], public: true}}
inputs:
  first: {{file: first.txt}}
steps:
  scaled: {{uses: "LABMODULE:scale", inputs: {{counts: first}}}}
  own:
    uses: LABMODULE:scale
    inputs: {{counts: first}}
    retries: 0
    output: {{instrument_name: other}}
  command:
    run: ["{sys.executable}", "{{inputs.counts}}", "{{out}}"]
    inputs: {{counts: first}}
    env: {{MODE: slow}}
"""


def test_defaults_apply_to_steps_that_do_not_override_them(lab: Any) -> None:
    steps = load_pipeline(lab.declare(DEFAULTS)).steps
    scaled, own, command = steps["scaled"], steps["own"], steps["command"]
    assert (scaled.retries, scaled.timeout, scaled.tags, scaled.env) == (2, 60.0, ("big",), {})
    assert (own.retries, own.timeout) == (0, 60.0)
    assert (own.output.instrument_name, own.output.keywords, own.output.public) == ("other", ("counted",), True)
    assert command.env == {"MODE": "slow", "PLACE": "here"}, "a function has no environment of its own; a command has"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("retries: 2\n", "retrys: 2\n", "5:3: unknown key 'retrys' in defaults; did you mean 'retries'?"),
        ("retries: 2\n", "params: {factor: 3}\n", "5:3: unknown key 'params' in defaults; possible here: output, env"),
        ("retries: 2\n", "retries: often\n", "retries: Input should be a valid integer"),
    ],
)
def test_a_fault_in_the_defaults_is_reported(lab: Any, faults: Faults, old: str, new: str, words: str) -> None:
    found = faults(lab.declare(DEFAULTS.replace(old, new, 1)))
    assert any(words in message for message in found), found


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
