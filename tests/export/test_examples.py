"""A lineage with all that an export may hold, as the examples in the text beside this file say."""

from __future__ import annotations

from pathlib import Path

from tests.golden.stored import run_examples


def test_the_examples_hold() -> None:
    run_examples(Path(__file__).with_name("exports.txt"))
