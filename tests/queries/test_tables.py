"""Rows, columns and texts of answers, as the examples in the texts beside this file say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.stored import run_examples


@pytest.mark.parametrize("name", ["tables", "answers", "rules", "stories"])
def test_the_examples_hold(name: str) -> None:
    run_examples(Path(__file__).with_name(f"{name}.txt"))
