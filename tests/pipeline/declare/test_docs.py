"""Every example of docs/pipelines.md can be bound, and the first ones run."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.cli import COMMANDS
from crucible_lineage.pipeline.declare.inputs import INPUT_KINDS
from crucible_lineage.pipeline.declare.load import INTERNAL_FIELDS, TOP_KEYS
from crucible_lineage.pipeline.declare.pipeline import OutputFields, StepSpec
from crucible_lineage.pipeline.plan.bind import bind_file

TEXT = (Path(__file__).parents[3] / "docs" / "pipelines.md").read_text(encoding="utf-8")
BLOCKS = {
    re.findall(r"^# ([\w.-]+\.\w+)$", block, re.MULTILINE)[0]: block
    for block in re.findall(r"```(?:yaml|python)\n(.*?)```", TEXT, re.DOTALL)
}
PIPELINES = [name for name, block in BLOCKS.items() if re.search("^pipeline:", block, re.MULTILINE)]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="one of the examples uses sort and sh")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files of the page."""
    for name, block in BLOCKS.items():
        (tmp_path / name).write_text(block)
    for name in ("scan-1.txt", "scan-2.txt"):
        (tmp_path / name).write_text("3\n7\n")
    for name in ("dark-a.txt", "dark-b.txt"):
        (tmp_path / name).write_text("1\n2\n")
    (tmp_path / "ask.sh").write_text('cat "$1" > "$2/asked.txt"\n')
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    monkeypatch.setenv("LAB_TOKEN", "hush-hush")
    before = list(sys.path)
    sys.path[:] = [entry for entry in before if not (Path(entry) / "mysteps.py").exists()]
    sys.modules.pop("mysteps", None)
    yield tmp_path
    sys.modules.pop("mysteps", None)
    sys.path[:] = before


@pytest.mark.parametrize("name", PIPELINES)
def test_each_example_is_valid(folder: Path, name: str) -> None:
    bound = bind_file(folder / name)
    assert f"{bound.name}.yaml" == name


def test_examples_run(folder: Path, run: Callable[..., Any], cli: Any) -> None:
    planned = cli("plan", folder / "counting.yaml").stdout.splitlines()[1:]
    (shown,) = re.findall(r"\$ crucible-lineage plan counting.yaml\n(.*?)```", TEXT, re.DOTALL)
    assert planned == shown.splitlines()
    first = ("counting.yaml", "sweeps.yaml", "reports.yaml", "commands.yaml", "outputs.yaml")
    for name in (*first, "takes.yaml", "facts.yaml"):
        result = run(folder / name)
        assert result.ok, (name, result.errors)
        assert run(folder / name).executed == [], name


def test_every_key_is_on_the_page() -> None:
    inputs = {key for kind in INPUT_KINDS.values() for key, field in kind.model_fields.items() if not field.alias}
    known = {*TOP_KEYS, *StepSpec.model_fields, *OutputFields.model_fields, *inputs} - {*INTERNAL_FIELDS}
    assert not [key for key in sorted(known) if not re.search(rf"\b{key}\b", TEXT)]
    for command in re.findall(r"crucible-lineage (\w+)", TEXT):
        assert command in COMMANDS
