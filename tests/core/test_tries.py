"""Tries: current results follow from marks and statements, in any order of runs, promotions and crashes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from crucible_lineage.core.slots import DatasetStatus, SlotClaim, trial_slot
from crucible_lineage.standing.currency import Currency
from crucible_lineage.statements.statements import (
    PROMOTE,
    REVOKE,
    About,
    Statement,
    in_force,
    promoted_in,
    statement_id,
)
from tests.nights import NIGHTLY

SLOTS = 2_000 if NIGHTLY else 100
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
RESULTS, TRIES = ("old", "new", "other"), ("neon", "argon")


def stated(verb: str, number: int, **more: object) -> Statement:
    one = Statement("", "lab", verb, About(project="lab"), "user", "2026-01-01T00:00:00+00:00", str(number), **more)  # type: ignore[arg-type]
    return replace(one, mfid=statement_id(one))


@dataclass
class Laboratory:
    """Slots with three possible results each, the statements, and in which order a person saw runs and tries."""

    statements: list[Statement] = field(default_factory=list)
    fills: dict[int, dict[str, dict[str, SlotClaim]]] = field(default_factory=dict)
    runs: dict[int, list[tuple[str, str]]] = field(default_factory=dict)  # when, and what was made current
    last: dict[tuple[str, int], str] = field(default_factory=dict)  # what a try relied on last
    promotions: dict[str, Statement] = field(default_factory=dict)
    clock: int = 0

    def tick(self) -> str:
        self.clock += 1
        return (BEGUN + timedelta(seconds=self.clock)).isoformat(timespec="microseconds")

    def currency(self, slot: int) -> Currency:
        return currency(self.fills.get(slot, {}), promoted_in(in_force(self.statements)))

    def expected(self, slot: int) -> tuple[str, ...]:
        """What a person would say: what a run has made current last, or a promotion since."""
        found = [*self.runs.get(slot, ())]
        for name, promotion in self.promotions.items():
            if (name, slot) in self.last:
                found.append((str(promotion.body["since"]), self.last[name, slot]))
        return tuple(which for _, which in sorted(found)[-1:])

    def verify(self) -> None:
        for slot in range(SLOTS):
            assert self.currency(slot).current("s", "lab") == self.expected(slot), slot

    def run(self, slot: int, which: str) -> None:
        """Rely on a result, without a write where it is current already."""
        if self.currency(slot).current("s", "lab") != (which,):
            self._fill(slot, which, "s", SlotClaim(self.tick(), "run", "a.yaml"))
            self.runs.setdefault(slot, []).append((self.fills[slot][which]["s"].since, which))

    def attempt(self, name: str, slot: int, which: str) -> None:
        if name in self.promotions:  # refused
            return
        _, before = self.currency(slot).tried("s", name, "lab")
        if which != (before or "".join(self.currency(slot).current("s", "lab"))):
            self._fill(slot, which, trial_slot("s", name), SlotClaim(self.tick(), "run", "a.yaml", trial=name))
            self.last[name, slot] = which

    def _fill(self, slot: int, which: str, key: str, claim: SlotClaim) -> None:
        self.fills.setdefault(slot, {}).setdefault(which, {})[key] = claim

    def promote_or_lift(self, name: str) -> None:
        if promotion := self.promotions.pop(name, None):
            self.statements.append(stated(REVOKE, self.clock, revokes=(promotion.mfid,)))
        else:
            self.promotions[name] = stated(PROMOTE, self.clock, body={"try": name, "since": self.tick()})
            self.statements.append(self.promotions[name])


def currency(fills: Mapping[str, Mapping[str, SlotClaim]], promoted: Mapping[str, str]) -> Currency:
    return Currency((DatasetStatus(one, "lab", True, True, slots) for one, slots in fills.items()), promoted)


@pytest.mark.parametrize("seed", range(3))
def test_any_interleaving_of_runs_tries_and_promotions_equals_a_sequential_order(seed: int) -> None:
    chance = random.Random(seed)
    lab = Laboratory()
    for number in range(SLOTS * 6):
        slot, which, name = chance.randrange(SLOTS), chance.choice(RESULTS), chance.choice(TRIES)
        if chance.random() < 0.5:
            lab.run(slot, which)
        else:
            lab.attempt(name, slot, which)
        if number % SLOTS == SLOTS - 1:
            lab.promote_or_lift(name)
            lab.verify()
    promoted = promoted_in(in_force(lab.statements))
    chance.shuffle(lab.statements)
    assert promoted_in(in_force(lab.statements)) == promoted, "in whatever order statements arrive"
    assert len(lab.statements) == 6


def test_a_promotion_counts_in_its_own_project_while_it_is_in_force() -> None:
    promotion = stated(PROMOTE, 1, body={"try": "neon", "since": "2026-01-03"})
    assert promoted_in(in_force([promotion])) == {"lab/neon": "2026-01-03"}
    elsewhere = replace(promotion, project="other")
    assert promoted_in(in_force([replace(elsewhere, mfid=statement_id(elsewhere))])) == {"other/neon": "2026-01-03"}
    assert promoted_in(in_force([promotion, stated(REVOKE, 2, revokes=(promotion.mfid,))])) == {}
