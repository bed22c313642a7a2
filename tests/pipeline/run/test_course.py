"""The course of runs and the states of their steps, as the texts beside this file have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.stored import run_examples


@pytest.mark.parametrize("name", ["away", "course", "states"])
def test_runs_and_steps_are_as_they_were(name: str) -> None:
    run_examples(Path(__file__).with_name(f"{name}.txt"))
