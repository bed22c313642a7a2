"""Results that a pipeline no longer declares are reported, but not results for other data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from crucible_lineage.core.slots import slot
from crucible_lineage.pipeline.plan.planner import undeclared


def instance(*scopes: str, step: str = "scaled") -> Any:
    return SimpleNamespace(slots={"out": tuple(slot("lab", step, "out", scope) for scope in scopes)})


def held(step: str, scope: str) -> str:
    return slot("lab", step, "out", scope)


def test_a_removed_step_and_a_removed_variant_are_reported() -> None:
    now = [instance("first.txt, factor=3"), instance("second.txt, factor=3")]
    before = {held("scaled", "first.txt, factor=3"), held("scaled", "first.txt, factor=2"), held("gone", "first.txt")}
    assert undeclared(before, now, "lab") == ("gone/out/first.txt", "scaled/out/first.txt, factor=2")


def test_results_for_other_data_are_not_reported() -> None:
    assert undeclared({held("scaled", "third.txt, factor=3")}, [instance("first.txt, factor=3")], "lab") == ()


def test_nothing_is_reported_if_nothing_is_declared() -> None:
    assert undeclared({held("scaled", "first.txt")}, [], "lab") == ()
