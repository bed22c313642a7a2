"""Which result is current in a slot: the newest run of the project decides, except over manual replacements."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

from crucible_lineage.core.slots import DatasetStatus, SlotClaim, later_than
from crucible_lineage.lineage.model import CURRENT, INCOMPLETE, RAW, SUPERSEDED
from crucible_lineage.standing.slots import ClaimingRun, Currency

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SLOT = "raman/fitted/out/first.txt"


def filled(minutes: int, file: str = "raman.yaml", **more: Any) -> SlotClaim:
    return SlotClaim((NOON + timedelta(minutes=minutes)).isoformat(), f"run {minutes}", file, **more)


def result(mfid: str, by: SlotClaim | None = None, project: str = "lab", **more: Any) -> DatasetStatus:
    return DatasetStatus(mfid, project, True, True, {SLOT: by} if by else {}, **more)


def test_the_newest_run_of_a_declaration_decides() -> None:
    old, new, other = result("a", filled(1)), result("b", filled(2)), result("c", filled(0, "other.yaml"))
    currency = Currency([old, new, other])
    assert currency.current(SLOT, "LAB") == ("b", "c")
    assert (currency.state("a"), currency.superseded_by("a")) == (SUPERSEDED, ("b", "c"))


def test_the_same_one_of_two_manual_replacements_is_current_in_any_order() -> None:
    old, first, second = result("a"), result("b", replaces="a"), result("c", replaces="a")
    for order in permutations([old, first, second]):
        assert Currency(order).superseded_by("a") == ("c",)


def test_slots_of_another_project_do_not_compete() -> None:
    here, there = result("a", filled(1)), result("b", filled(2), project="elsewhere")
    currency = Currency([here, there])
    assert (currency.current(SLOT, "lab"), currency.current(SLOT, "elsewhere")) == (("a",), ("b",))


def test_a_replacement_counts_within_its_project_only() -> None:
    old = result("a")
    stranger = DatasetStatus("b", "elsewhere", True, False, {}, replaces="a")
    assert Currency([old, stranger]).state("a") == CURRENT
    own = DatasetStatus("c", "Lab", True, False, {}, replaces="a")
    currency = Currency([old, stranger, own])
    assert (currency.state("a"), currency.superseded_by("a")) == (SUPERSEDED, ("c",))


def test_an_incomplete_result_replaces_nothing() -> None:
    begun = DatasetStatus("b", "lab", False, True, {SLOT: filled(2)}, replaces="a")
    assert Currency([result("a", filled(1)), begun]).current(SLOT, "lab") == ("a",)


def test_a_chain_of_manual_replacements_is_followed_also_in_a_circle() -> None:
    by_hand = {"second": "first", "first": "made", "x": "y", "y": "x"}
    currency = Currency([result(new, replaces=old) for new, old in by_hand.items()])
    assert currency.replacements("made") == {"first", "second"}
    assert (currency.replacements("second"), currency.replacements("x")) == (set(), {"x", "y"})


def test_the_state_of_each_kind_of_dataset() -> None:
    measured, begun = (DatasetStatus(m, "lab", m == "m", m != "m", {SLOT: filled(9)}) for m in "mb")
    made = [result("c", filled(1)), result("d"), result("e", filled(0)), result("f", replaces="s")]
    currency = Currency([measured, begun, DatasetStatus("s", "lab", True, False, {}), *made])
    found = {mfid: currency.state(mfid) for mfid in "msbcdefx"}
    raw, now = dict.fromkeys("mx", RAW), dict.fromkeys("cdf", CURRENT)
    assert found == {**raw, **now, "b": INCOMPLETE, "e": SUPERSEDED, "s": SUPERSEDED}
    loop = Currency([result(new, replaces=old) for new, old in ("xy", "yz", "zy")])
    assert {mfid: loop.superseded_by(mfid) for mfid in "yz"} == {"y": ("z",), "z": ("y",)}


def test_a_run_claims_slots_for_its_declaration_and_keeps_those_of_others(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").touch()
    (tmp_path / "late.yaml").touch()
    shared = filled(1, "a.yaml", also=("b.yaml", "late.yaml"), was=("former.yaml",))
    currency = Currency([result("x", shared), result("y", filled(2, "late.yaml")), result("z", filled(0, "c.yaml"))])
    owners = {"a.yaml": ["x"], "b.yaml": ["x"], "late.yaml": ["y"], "c.yaml": ["z"]}
    assert currency.by_declaration(SLOT, "LAB") == owners
    assert currency.latest_for("x", SLOT) == ("a.yaml", "b.yaml", "former.yaml")
    assert (currency.latest_for("x", "other"), currency.latest_for("w", SLOT)) == ((), ())
    since = later_than(NOON + timedelta(minutes=3), [])
    run = ClaimingRun("run 3", NOON + timedelta(minutes=3), "n.yaml", tmp_path)
    claimed = SlotClaim(since, "run 3", "n.yaml", ("b.yaml",), ("a.yaml", "former.yaml"))
    assert run.claim(currency, "lab", SLOT, "x") == claimed
    assert run.claim(currency, "lab", SLOT) == SlotClaim(since, "run 3", "n.yaml", (), ())
    assert replace(run, id="run 1").claim(currency, "lab", SLOT).since == filled(1).since, "as its other processes"
    recorded = replace(run, file=None)
    of_record = replace(shared, since=since, run="run 3", declared_in="late.yaml")
    assert recorded.claim(currency, "lab", SLOT, "x") == of_record
    assert recorded.claim(currency, "lab", "new").declared_in == ""
    found = [one.current(currency, "lab", SLOT) for one in (recorded, run, replace(run, file="a.yaml"))]
    assert found == [{"x", "y", "z"}, set(), {"x"}]
