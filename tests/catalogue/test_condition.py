"""Conditions agree with Python, and nothing in them is executed."""

from __future__ import annotations

import random
from typing import Any

import pytest

from crucible_lineage.condition import parse_condition
from crucible_lineage.errors import InputError

ROW = {
    "params.degree": 3, "results.rms": 0.25, "name": "fit of Strong", "results.tags": ["a", "b"], "mfid": "x",
    'results.rms (cm-1)': 7, "params.flag": True,
}  # fmt: skip


def holds(text: str, row: dict[str, Any] = ROW) -> bool:
    return parse_condition(text).is_met(row.get, "this row")


@pytest.mark.parametrize(
    "text",
    [
        "params.degree > 2 and results.rms < 0.5", "1 < params.degree <= 3", "not params.degree == 2",
        "not 1 < params.degree < 3", "not 3 < params.degree < 9", "not 9 > params.degree > results.none",
        "name in ['other', 'fit of Strong']", "'a' in results.tags", "lower(name) == 'fit of strong'",
        "startswith(name, 'fit')", "results['rms (cm-1)'] == 7", "abs(-params.degree) == 3 and params.flag",
        "params.degree * 2 + 1 == 7 and params.degree ** 2 == 9", "max(params.degree, 7) % 4 == 3",
        "results.none == None", "results.none not in [1, 2]", "'a' not in results.none", "'c' not in results.tags",
        "not results.none > 3", "not results.none + 1 < 3", "not (results.none < 3)",
        "abs(results.none) == None", "1 in results.tags or params.degree == '3'",
    ],
)  # fmt: skip
def test_a_true_condition_holds(text: str) -> None:
    assert holds(text)
    assert not holds(f"not ({text})")


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
        assert holds(text, numbers) == expected, text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').system('touch x')", "no function"), ("open('x')", "no function 'open' is known"),
        ("(lambda: 1)()", "no function"), ("[x for x in name]", "not supported"), ("name.lower()", "no function"),
        ("f'{name}'", "not supported"), ("name if name else 1", "not supported"), ("results[name] == 1", "not supp"),
        ("params.degree >", "column"), ("params.degree = 3", "column"), ("b'x' == name", "not supported"),
        ("name; 1", "column"), ("", "column"), ("(" * 300 + "1" + ")" * 300, "condition"), ("x" * 3000, "characters"),
        ("min(name, key=abs)", "no function"), ("params.degree & 3", "not supported"),
    ],
)  # fmt: skip
def test_an_invalid_condition_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=r".*") as fault:
        parse_condition(text)
    assert message in str(fault.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params.degree < name", "'<' not supported"), ("9 ** 9 ** 9 > 1", "exponent"), ("9 ** -65 > 0", "exponent"),
        ("name * 1000000000 == 'x'", "is not a number"), ("params.degree / 0 > 1", "division by zero"),
    ],
)  # fmt: skip
def test_unsuitable_values_are_reported_with_the_row(text: str, message: str) -> None:
    with pytest.raises(InputError) as fault:
        holds(text)
    assert message in str(fault.value)
    assert "in this row, where" in str(fault.value)
