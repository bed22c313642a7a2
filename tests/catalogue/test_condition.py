"""Conditions agree with Python, and nothing in them is executed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from crucible_lineage.condition import parse_condition
from tests.golden.stored import run_examples


def test_the_examples_hold() -> None:
    run_examples(Path(__file__).with_name("conditions.txt"))


def test_random_conditions_agree_with_python() -> None:
    """A part with an unknown value is unknown, and no order holds for it."""
    chance = random.Random(4)
    numbers = {"a.x": 3, "a.y": -2.5, "b": 10}

    def value(depth: int) -> tuple[str, Any]:
        if depth == 0 or chance.random() < 0.3:
            text = chance.choice([*numbers, "2", "0.5", "7", "a.none"])
            return text, None if text == "a.none" else numbers.get(text) or float(text)
        (left, one), (right, other) = value(depth - 1), value(depth - 1)
        sign, operation = chance.choice(["-", "+"]), chance.choice("+-*")
        unknown = one is None or other is None
        return f"({sign}{left} {operation} {right})", None if unknown else eval(f"{sign}({one}) {operation} ({other})")

    def truth(depth: int) -> tuple[str, bool]:
        if depth == 0:
            (left, one), (right, other) = value(2), value(2)
            comparison = chance.choice(["<", "<=", "==", "!=", ">", ">="])
            unknown = comparison in ("<", "<=", ">", ">=") and None in (one, other)
            return f"{left} {comparison} {right}", not unknown and eval(f"{one} {comparison} {other}")
        (left, one), (right, other) = truth(depth - 1), truth(depth - 1)
        word = chance.choice(["and", "or", "and not"])
        return f"({left} {word} {right})", eval(f"{one} {word} {other}")

    for _ in range(500):
        text, expected = truth(2)
        assert parse_condition(text).is_met(numbers.get, "this row") == expected, text
