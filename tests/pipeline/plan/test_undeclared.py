"""Results that a pipeline declares no more are told, and only those; what is about other data stands beside them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from crucible_lineage.core.slots import slot
from crucible_lineage.pipeline.plan.planner import undeclared


def instance(*scopes: str, step: str = "scaled") -> Any:
    return SimpleNamespace(slots={"out": tuple(slot("lab", step, "out", scope) for scope in scopes)})


def held(step: str, scope: str) -> str:
    return slot("lab", step, "out", scope)


def test_a_step_that_was_taken_out_and_a_variant_that_was_are_told() -> None:
    now = [instance("first.txt, factor=3"), instance("second.txt, factor=3")]
    before = {held("scaled", "first.txt, factor=3"), held("scaled", "first.txt, factor=2"), held("gone", "first.txt")}
    assert undeclared(before, now, "lab") == ("gone/out/first.txt", "scaled/out/first.txt, factor=2")


def test_what_is_about_other_data_is_not_told() -> None:
    assert undeclared({held("scaled", "third.txt, factor=3")}, [instance("first.txt, factor=3")], "lab") == ()


def test_nothing_is_told_where_nothing_is_declared() -> None:
    assert undeclared({held("scaled", "first.txt")}, [], "lab") == ()
