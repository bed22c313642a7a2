"""A question has the same name, parameters and answer as command, tool, page and method of notebooks."""

from __future__ import annotations

import inspect
import threading
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import crucible_lineage as cl
from crucible_lineage.ask.assistant import tool_of
from crucible_lineage.ask.question import COMMAND, MODULES, TOOL, find_question
from crucible_lineage.cli import main
from tests.page import page_data

SWEPT = """
pipeline: counting
project: lab
inputs: {counts: {file: first.txt}}
steps:
  scaled:
    uses: "LABMODULE:scale"
    inputs: {counts: counts}
    matrix: {factor: [2, 3]}
    output: {dataset_name: one}
"""


@pytest.mark.parametrize("name", MODULES)
def test_a_question_has_its_parameters_at_every_door(name: str) -> None:
    question = find_question(name)
    if COMMAND in question.doors:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        shared = {"data", "url", "api_key", "json", "as_csv"}
        assert {param.name for param in command.params} - shared == {
            parameter.name for parameter in question.parameters_at(COMMAND)
        }
        assert command.help == question.help
    tool = tool_of(question, None, Path(), threading.Lock())  # type: ignore[arg-type] (asks nothing)
    assert [*inspect.signature(tool).parameters] == [parameter.name for parameter in question.parameters_at(TOOL)]
    assert tool.__doc__.startswith(question.help[:20])  # type: ignore[union-attr]


def test_what_is_swept_is_said_at_every_door(lab: Any, data: Path, tmp_path: Path) -> None:
    lab.declare(SWEPT)

    def ask(*words: object) -> str:
        ran = CliRunner().invoke(main, [*map(str, words), "--data", str(data)])
        assert ran.exit_code == 0, ran.output
        return ran.output

    ask("run", lab.pipeline, "--engine", "local")
    lines = ask("list", "--step", "scaled").splitlines()
    assert [sum(word in line for line in lines) for word in ("factor=2", "factor=3")] == [1, 1]
    with cl.connect(data) as catalogue:
        assert {dataset["swept"] for dataset in catalogue.list(step="scaled").to_json()["datasets"]} == {
            "factor=2",
            "factor=3",
        }
        frame = catalogue.table("scaled")
        assert sorted(frame["swept"]) == ["factor=2", "factor=3"]
        mfid = frame["mfid"][0]
        name = frame["name"][0]
        catalogue.dataset(mfid).hold("the lamp drifted")
    assert f"{mfid} ({name})  hold" in ask("statements")
    for picture in (ask("lineage", "--project", "lab", "--format", "svg"), ask("lineage", "--project", "lab")):
        assert all(f"scale[factor={number}]" in picture for number in (2, 3))
    shown = page_data(ask("lineage", "--project", "lab", "--format", "html"))["nodes"]["instance"]
    assert {"scale[factor=2]", "scale[factor=3]"} <= set(shown)
