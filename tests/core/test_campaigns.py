"""Campaigns: current results follow from marks and statements, in any order of runs, promotions and crashes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from crucible_lineage.core.slots import CANDIDATE, CURRENT, SUPERSEDED, Currency, DatasetStatus, SlotClaim
from crucible_lineage.statements import CAMPAIGN, PROMOTE, REVOKE, About, Statement, in_force, promoted_in, statement_id
from tests.nights import NIGHTLY

SLOTS = 10_000 if NIGHTLY else 500
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


def stated(verb: str, number: int, **more: object) -> Statement:
    one = Statement("", "lab", verb, About(project="lab"), "user", "2026-01-01T00:00:00+00:00", str(number), **more)  # type: ignore[arg-type]
    return replace(one, mfid=statement_id(one))


@dataclass
class Laboratory:
    """Slots with two possible results each, the statements, and what a person would say is current.

    A run relies on a result as runs do: without a write where it holds already.
    """

    statements: list[Statement]
    campaign: str
    fills: dict[int, dict[str, SlotClaim]] = field(default_factory=dict)
    expected: dict[int, str] = field(default_factory=dict)
    before: dict[int, str | None] = field(default_factory=dict)
    clock: int = 0
    promotion: Statement | None = None

    def tick(self) -> str:
        self.clock += 1
        return (BEGUN + timedelta(seconds=self.clock)).isoformat(timespec="microseconds")

    @property
    def promoted(self) -> Mapping[str, str]:
        return promoted_in(in_force(self.statements))

    def current(self, slot: int, promoted: Mapping[str, str]) -> tuple[str, ...]:
        slots = {which: {"s": fill} for which, fill in self.fills.get(slot, {}).items()}
        return currency(slots, promoted).current("s", "lab")

    def verify(self) -> None:
        """Compare the current results of every slot with those that a person would expect."""
        promoted = self.promoted
        for slot in range(SLOTS):
            expected = (self.expected[slot],) if slot in self.expected else ()
            assert self.current(slot, promoted) == expected, slot

    def scheduled(self, slot: int, *, is_cut: bool) -> None:
        """Run the pipeline as declared: with the new calibration once that is promoted."""
        promoted = self.promoted
        which = "new" if self.campaign in promoted else "old"
        if is_cut:
            return
        if self.current(slot, promoted) != (which,):
            self.fills.setdefault(slot, {})[which] = SlotClaim(self.tick(), "run", "a.yaml")
            self.before.pop(slot, None)
        self.expected[slot] = which

    def tried(self, slot: int, *, is_cut: bool) -> None:
        """Run the campaign."""
        promoted, own = self.promoted, self.fills.get(slot, {}).get("new")
        if is_cut or self.current(slot, promoted) == ("new",) or (own and own.campaign):
            return
        self.fills.setdefault(slot, {})["new"] = SlotClaim(self.tick(), "run", "a.yaml", campaign=self.campaign)
        if self.promotion is not None:
            self.before[slot] = self.expected.get(slot)
            self.expected[slot] = "new"

    def promote(self) -> None:
        if self.promotion is None:
            self.promotion = stated(PROMOTE, self.clock, body={"campaign": self.campaign, "since": self.tick()})
            self.statements.append(self.promotion)
            for slot, fills in self.fills.items():
                if "new" in fills and fills["new"].campaign:
                    self.before[slot] = self.expected.get(slot)
                    self.expected[slot] = "new"

    def roll_back(self) -> None:
        if self.promotion is not None:
            self.statements.append(stated(REVOKE, self.clock, revokes=(self.promotion.mfid,)))
            self.promotion = None
            for slot, was in self.before.items():
                if was is None:
                    self.expected.pop(slot, None)
                else:
                    self.expected[slot] = was
            self.before.clear()


def currency(fills: Mapping[str, Mapping[str, SlotClaim]], promoted: Mapping[str, str]) -> Currency:
    return Currency((DatasetStatus(one, "lab", True, True, slots) for one, slots in fills.items()), promoted)


@pytest.mark.parametrize("seed", range(3))
def test_any_interleaving_of_runs_promotions_and_crashes_equals_a_sequential_order(seed: int) -> None:
    chance = random.Random(seed)
    begun = stated(CAMPAIGN, 0)
    lab = Laboratory([begun], begun.mfid)
    for _ in range(SLOTS * 6):
        slot, act, is_cut = chance.randrange(SLOTS), chance.random(), chance.random() < 0.1
        if act < 0.5:
            lab.scheduled(slot, is_cut=is_cut)
        elif act < 0.99:
            lab.tried(slot, is_cut=is_cut)
        elif act < 0.995:
            lab.promote()
            lab.verify()
        else:
            lab.roll_back()
            lab.verify()
    promotions = sum(one.verb == PROMOTE for one in lab.statements)
    assert promotions > 1, "or nothing was tried"
    promoted = lab.promoted
    chance.shuffle(lab.statements)
    assert lab.promoted == promoted, "in whatever order statements arrive"
    lab.verify()


def test_a_candidate_is_neither_current_nor_superseded_until_its_campaign_is_promoted() -> None:
    old, new = SlotClaim("2026-01-01T00:00:00+00:00", "1"), SlotClaim("2026-01-02T00:00:00+00:00", "2", campaign="k")
    before = currency({"old": {"s": old}, "new": {"s": new}}, {})
    assert (before.state("old"), before.state("new")) == (CURRENT, CANDIDATE)
    assert before.current("s", "lab") == ("old",)
    after = currency({"old": {"s": old}, "new": {"s": new}}, {"k": "2026-01-03T00:00:00+00:00"})
    assert (after.state("old"), after.state("new")) == (SUPERSEDED, CURRENT)
    assert after.superseded_by("old") == ("new",)


def test_a_promotion_counts_only_for_a_campaign_that_is_in_force_and_where_it_is_trusted() -> None:
    campaign = stated(CAMPAIGN, 0)
    promotion = stated(PROMOTE, 1, body={"campaign": campaign.mfid, "since": "2026-01-03"})
    elsewhere = replace(promotion, project="other")
    elsewhere = replace(elsewhere, mfid=statement_id(elsewhere))
    assert promoted_in(in_force([campaign, promotion])) == {campaign.mfid: "2026-01-03"}
    assert promoted_in(in_force([campaign, elsewhere])) == {}
    assert promoted_in(in_force([promotion])) == {}
    gone = stated(REVOKE, 2, revokes=(campaign.mfid,))
    assert promoted_in(in_force([campaign, promotion, gone])) == {}
