"""A declaration from an unknown source is refused or read literally: nothing in it is executed or expanded."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.declare.load import load_pipeline
from crucible_lineage.pipeline.declare.yaml import parse_document
from crucible_lineage.pipeline.plan.bind import bind_file

Faults = Callable[..., list[str]]

PIPELINE = """
pipeline: counting
project: lab
inputs:
  first: {file: first.txt}
steps:
  scaled: {uses: "LABMODULE:scale", inputs: {counts: first}, params: {factor: 3}}
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("factor: 3", "factor: !!python/object/apply:os.system ['touch pwned']", "tags (tag:yaml.org,2002:python"),
        ("project: lab", "project: lab\nproject: other", "4:1: 'project' is given twice; the first is in line 3"),
        ("factor: 3", "factor: .nan", "JSON has no such number"),
        ("factor: 3", "factor: 1e999", "JSON has no such number"),
        ("factor: 3", f"factor: {'9' * 5000}", "too long"),
        ("project: lab", "project: no", ""),  # a valid name of a project
        ("project: lab", "project: 12", "project: Input should be a valid string"),
        ("project: lab", "<<: {project: lab}", "unknown key '<<'"),
        ("project: lab", "project: lab\npath: /etc/passwd", "unknown key 'path'"),
        ("uses:", "folder: /etc, uses:", "unknown key 'folder'"),
        ("{file: first.txt}", "{each: [{folder: /etc, file: first.txt}]}", "unknown key 'folder'"),
    ],
)
def test_hostile_content_is_refused_with_its_location(lab: Any, faults: Faults, old: str, new: str, words: str) -> None:
    assert old in PIPELINE
    path = lab.declare(PIPELINE.replace(old, new, 1))
    if not words:
        assert load_pipeline(path).project == "no"
        return
    found = faults(path)
    assert any(words in message for message in found), found
    assert not list(Path.cwd().glob("pwned"))


def test_a_wrong_item_of_a_list_is_one_fault(lab: Any, faults: Faults) -> None:
    path = lab.declare(PIPELINE.replace('uses: "LABMODULE:scale"', "run: [sort, 3]"))
    assert faults(path) == ["7:24: steps.scaled.run.1: Input should be a valid string (given: 3)"]


@pytest.mark.parametrize("text", ["[]", "text", "{}", "# nothing\n", "\x00"])
def test_a_file_without_a_pipeline_is_reported(lab: Any, faults: Faults, text: str) -> None:
    assert faults(lab.declare(text))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{counts.__class__.__init__.__globals__}", "{counts.__class__.__init__.__globals__}; "),
        ("{conts.dataset_name}", "did you mean 'counts.dataset_name'?"),
        ("{}", "cannot be filled in"),
        ("{step:{output}}", "cannot be filled in"),
        ("{params.factor:d}", "cannot be filled in"),
    ],
)
def test_a_name_may_use_fields_and_parameters_only(lab: Any, faults: Faults, template: str, words: str) -> None:
    text = PIPELINE.replace("{factor: 3}", f"{{factor: 3}}, output: {{dataset_name: '{template}'}}")
    (found,) = faults(lab.declare(text))
    assert found.startswith("7:")
    assert words in found


def test_a_name_that_can_be_filled_in_is_valid(lab: Any) -> None:
    template = "{counts.dataset_name}, {params.factor:.1f} {{x}} {step}.{output!r}"
    bind_file(lab.declare(PIPELINE.replace("{factor: 3}", f"{{factor: 3}}, output: {{dataset_name: '{template}'}}")))


@pytest.mark.parametrize("text", ["[" * 100_000, "- " * 100_000])
def test_extreme_nesting_is_refused_without_a_crash(text: str) -> None:
    with pytest.raises(InputError):
        parse_document(text, "p.yaml")


def test_a_file_of_100_megabytes_is_refused_without_being_read(lab: Any) -> None:
    path: Path = lab.folder / "huge.yaml"
    with path.open("wb") as stream:
        stream.truncate(100 << 20)
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises(InputError, match="larger than 4 MiB; too large for a declaration"):
        bind_file(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 << 20
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("raw", "words"),
    [(b"pipeline: caf\xe9\n", "1: this is not UTF-8 text"), ("pipeline: p\n".encode("utf-16"), "not UTF-8 text")],
)
def test_a_file_that_is_not_utf8_is_reported(lab: Any, raw: bytes, words: str) -> None:
    path: Path = lab.folder / "odd.yaml"
    path.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        bind_file(path)
    assert words in str(caught.value)


def test_a_byte_order_mark_and_windows_line_ends_are_read(lab: Any) -> None:
    path: Path = lab.folder / "windows.yaml"
    text = PIPELINE.replace("LABMODULE", lab.module).replace("\n", "\r\n")
    path.write_bytes(text.encode("utf-8-sig"))
    assert bind_file(path).name == "counting"
