"""Files as values and names for what a catalogue returns, as the examples in loading.txt say."""

from __future__ import annotations

from pathlib import Path

from tests.golden.stored import run_examples


def test_the_examples_hold() -> None:
    run_examples(Path(__file__).with_name("loading.txt"))
