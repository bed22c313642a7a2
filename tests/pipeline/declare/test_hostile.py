"""A declaration from an unknown source is refused or read literally: nothing in it is executed or expanded."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.declare.yaml import parse_document
from crucible_lineage.pipeline.plan.bind import bind_file

Faults = Callable[..., list[str]]

PIPELINE = """
pipeline: counting
project: no
inputs:
  first: {file: first.txt}
steps:
  scaled: {uses: "LABMODULE:scale", inputs: {counts: first}, params: {factor: 3}}
"""


CONTROL = "control characters are not allowed"
MISSING = [f"1:1: the key {key!r} is missing" for key in ("pipeline", "project", "inputs", "steps")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", ["1:1: a pipeline is a mapping with the keys pipeline, project, steps"]),
        ("text", ["1:1: a pipeline is a mapping with the keys pipeline, project, steps"]),
        ("{}", MISSING),
        ("# nothing\n", ["1: the file is empty"]),
        ("\x00", [f"1:1: this is not valid YAML: unacceptable character #x0000: {CONTROL}"]),
    ],
)
def test_a_file_without_a_pipeline_is_reported(lab: Any, faults: Faults, text: str, expected: list[str]) -> None:
    assert faults(lab.declare(text)) == expected


def test_a_name_that_can_be_filled_in_is_valid(lab: Any) -> None:
    template = "{counts.dataset_name}, {params.factor:.1f} {{x}} {step}.{output!r}"
    text = PIPELINE.replace("{factor: 3}", f"{{factor: 3}}, output: {{dataset_name: '{template}'}}")
    assert bind_file(lab.declare(text)).spec.project == "no"


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
