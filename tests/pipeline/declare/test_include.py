"""Defaults of a pipeline, and parts that it includes from other files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.pipeline.declare.load import load_pipeline, read_declaration
from crucible_lineage.pipeline.plan.bind import bind_file

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


SHARED = """
params: {factor: 3}
defaults: {retries: 1}
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
  second: {file: "sec*.txt"}
steps:
  scaled:
    uses: shared_MODULE:scale
    inputs: {counts: first}
    params: {factor: "${params.factor}"}
"""

INCLUDING = """
pipeline: counting
project: lab
include: parts/shared.yaml
steps:
  total: {uses: "LABMODULE:add", inputs: {left: scaled, right: second}}
"""


@pytest.fixture
def shared(lab: Any) -> Any:
    """A laboratory with an included file in a folder of its own, beside its data and module."""
    parts = lab.folder / "parts"
    parts.mkdir()
    for name in ("first.txt", "second.txt"):
        (lab.folder / name).rename(parts / name)
    (parts / f"shared_{lab.module}.py").write_text((lab.folder / f"{lab.module}.py").read_text())
    (parts / "shared.yaml").write_text(SHARED.replace("MODULE", lab.module))
    lab.declare(INCLUDING)
    return lab


def test_files_and_modules_of_an_included_file_are_beside_it(shared: Any) -> None:
    bound = bind_file(shared.pipeline)
    assert list(bound.steps) == ["scaled", "total"]
    assert bound.steps["scaled"].inspection.uses == f"shared_{shared.module}:scale"
    assert bound.steps["scaled"].inspection.params == {"factor": 3.0}
    assert bound.spec.inputs["second"].paths == [shared.folder / "parts" / "second.txt"]  # type: ignore[union-attr]
    assert {step.spec.retries for step in bound.steps.values()} == {1}


def test_a_module_that_is_hidden_by_an_installed_one_is_reported(shared: Any, faults: Faults) -> None:
    (shared.folder / "parts" / "json.py").write_text("def scale(counts, *, factor, out): ...")
    (shared.folder / "parts" / "shared.yaml").write_text(SHARED.replace("shared_MODULE", "json"))
    found = faults(shared.declare(INCLUDING))
    assert not any("InputError" in message for message in found), found
    assert any("and hides" in message and "rename one of them" in message for message in found), found


def test_an_included_file_uses_the_module_beside_it_and_not_a_namesake(shared: Any) -> None:
    (shared.folder / "parts" / f"{shared.module}.py").write_text("def scale(counts, *, factor: float = 1, out): ...")
    (shared.folder / "parts" / "shared.yaml").write_text(SHARED.replace("shared_MODULE", shared.module))
    bound = bind_file(shared.declare(INCLUDING))
    sources = {name: step.inspection.source for name, step in bound.steps.items()}
    assert "def scale(counts, *, factor: float = 1, out): ..." in sources["scaled"]
    assert "def add(" in sources["total"]


def test_the_including_file_wins(shared: Any) -> None:
    shared.file("own.txt", "5")
    text = INCLUDING + "params: {factor: 7}\ninputs:\n  second: {file: own.txt}\n"
    bound = bind_file(shared.declare(text))
    assert bound.steps["scaled"].inspection.params == {"factor": 7.0}
    assert bound.spec.inputs["second"].paths == [shared.folder / "own.txt"]  # type: ignore[union-attr]


def test_an_included_file_may_include_another_and_a_list_is_possible(shared: Any) -> None:
    (shared.folder / "parts" / "factor.yaml").write_text("params: {factor: 9}\n")
    text = SHARED.replace("params: {factor: 3}", "include: [factor.yaml]").replace("MODULE", shared.module)
    (shared.folder / "parts" / "shared.yaml").write_text(text)
    bound = bind_file(shared.declare(INCLUDING.replace("parts/shared.yaml", "[parts/shared.yaml]")))
    assert bound.steps["scaled"].inspection.params == {"factor": 9.0}


def test_variables_of_the_environment_are_named_where_they_are_used(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_FACTOR", "8")
    text = SHARED.replace("params: {factor: 3}", 'env: [LAB_FACTOR]\nparams: {factor: "${env.LAB_FACTOR}"}')
    (shared.folder / "parts" / "shared.yaml").write_text(text.replace("MODULE", shared.module))
    assert bind_file(shared.pipeline).steps["scaled"].inspection.params == {"factor": 8.0}


@pytest.mark.parametrize(
    ("old", "new", "location", "words"),
    [
        ("params: {factor:", "params: {facto:", "shared.yaml:11:14", "did you mean 'facto'"),
        ("{counts: first}", "{counts: frist}", "shared.yaml:10:14", "no input or step 'frist'"),
        ("    inputs: {counts", "    input: {counts", "shared.yaml:10:5", "did you mean 'inputs'?"),
        ("file: first.txt", "file: none.txt", "shared.yaml:5:11", "there is no file"),
        ("defaults: {retries: 1}", "pipeline: other", "shared.yaml:3:1", "'pipeline' cannot be included"),
        ("defaults: {retries: 1}", "include: ../pipeline.yaml", "shared.yaml:3:1", "includes itself"),
        ("defaults: {retries: 1}", "include: gone.yaml", "shared.yaml:3:1", "there is no file"),
        ("defaults: {retries: 1}", "defaults: [retries]", "shared.yaml:3:1", "defaults is a mapping"),
        ("defaults: {retries: 1}", "include: {a: b}", "shared.yaml:3:1", "include takes the name of a file"),
        ("defaults: {retries: 1}", "env: LAB", "shared.yaml:3:1", "env is a list"),
    ],
)
def test_a_fault_in_an_included_file_is_reported_with_its_location_there(
    shared: Any, faults: Faults, old: str, new: str, location: str, words: str
) -> None:
    assert old in SHARED
    (shared.folder / "parts" / "shared.yaml").write_text(SHARED.replace(old, new, 1).replace("MODULE", shared.module))
    found = faults(shared.pipeline)
    assert any(location in message and words in message for message in found), found


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


def test_a_changed_include_invalidates_the_cached_binding(shared: Any, session: Any) -> None:
    assert bind_file(shared.pipeline, session.store).steps["scaled"].inspection.params == {"factor": 3.0}
    assert bind_file(shared.pipeline, session.store).steps["scaled"].inspection.params == {"factor": 3.0}
    path: Path = shared.folder / "parts" / "shared.yaml"
    path.write_text(path.read_text().replace("factor: 3", "factor: 31"))
    assert bind_file(shared.pipeline, session.store).steps["scaled"].inspection.params == {"factor": 31.0}
