"""The effect of a campaign: paired differences, old and new, of every number that steps return."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from crucible_lineage.condition import parse_condition
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.records import returned_numbers
from crucible_lineage.pipeline.campaign import Campaign, CampaignPlan, strata
from crucible_lineage.pipeline.plan.plan import FRESH
from crucible_lineage.queries.trend import Series, TrendPoint, series_of, spread_of

MOST_OUTLIERS = 5


@dataclass(frozen=True)
class Pair:
    """A result and its candidate: instance, stratum, time of measurement and difference."""

    instance: str
    old: str
    new: str
    stratum: tuple[str, ...]
    point: TrendPoint


@dataclass(frozen=True)
class Effect:
    """The effect of a campaign on a number of a step: the differences, new minus old, of all pairs that have it."""

    step: str
    number: str
    pairs: tuple[Pair, ...]

    @property
    def differences(self) -> list[float]:
        """The differences, new minus old."""
        return [one.point.value for one in self.pairs]

    @cached_property
    def series(self) -> Series:
        """The differences over the time of measurement, with limits if there are enough pairs."""
        return series_of("new minus old", [one.point for one in self.pairs])

    @property
    def median(self) -> float:
        """The median difference."""
        return self.series.median

    @property
    def spread(self) -> float:
        """The scaled median absolute deviation of the differences."""
        return spread_of(self.differences)

    @property
    def outliers(self) -> tuple[Pair, ...]:
        """The pairs farthest beyond the limits, the farthest first; none if there are too few pairs for limits."""
        beyond = [one for one in self.pairs if self.series.is_beyond(one.point.value)]
        return tuple(sorted(beyond, key=lambda one: -abs(one.point.value - self.median))[:MOST_OUTLIERS])

    @property
    def by_stratum(self) -> dict[str, tuple[int, float]]:
        """The number of pairs and their median difference for each stratum."""
        found: dict[str, list[float]] = {}
        for one in self.pairs:
            found.setdefault(", ".join(one.stratum), []).append(one.point.value)
        return {label: (len(values), statistics.median(values)) for label, values in sorted(found.items()) if label}

    def to_json(self) -> JsonObject:
        """Return it as `campaign compare --json` prints it."""
        return {
            "step": self.step,
            "number": self.number,
            "pairs": len(self.pairs),
            "median": self.median,
            "spread": self.spread,
            "strata": [
                {"stratum": label, "pairs": count, "median": median}
                for label, (count, median) in self.by_stratum.items()
            ],
            "outliers": [
                {"instance": one.instance, "old": one.old, "new": one.new, "difference": one.point.value}
                for one in self.outliers
            ],
        }


@dataclass(frozen=True)
class Comparison:
    """The comparison of a campaign. `unpaired` candidates have no current counterpart, `left` are not made yet."""

    campaign: Campaign
    effects: tuple[Effect, ...]
    pairs: int
    unpaired: int
    left: int

    @property
    def gate(self) -> str:
        """Why the campaign's condition is not met; empty if it is met or absent."""
        if not self.campaign.require:
            return ""
        condition = parse_condition(self.campaign.require)
        if condition.holds(self._values, "the differences"):
            return ""
        missing = [name for name in condition.names if self._values(name) is None]
        note = f", and no pair has {', '.join(missing)}" if missing else ""
        return f"{self.campaign.require} does not hold{note}"

    def _values(self, name: str) -> list[float] | None:
        short = name.removeprefix("d.")
        found = [one for one in self.effects if short in (one.number, f"{one.step}.{one.number}")]
        return [value for one in found for value in one.differences] or None

    def to_json(self) -> JsonObject:
        """Return it as `campaign compare --json` prints it."""
        return {
            **self.campaign.to_json(),
            "pairs": self.pairs,
            "unpaired": self.unpaired,
            "left": self.left,
            "effects": [one.to_json() for one in self.effects],
            "passes": not self.gate,
            "gate": self.gate or None,
        }


def compare_campaign(campaign: Campaign, plan: CampaignPlan, by: Sequence[str] = ()) -> Comparison:
    """Compare existing candidates with the current results of their slots. Changes nothing."""
    index, instances = plan.planned.index, plan.planned.instances
    made = [step for step in plan.steps if step.state == FRESH]
    slots = [
        (step, dataset.mfid, key)
        for step in made
        for output, dataset in step.results.items()
        for key in instances[step.name].slots.get(output, ())[:1]
    ]
    current = {key: index.holding(key) for _, _, key in slots}
    paired = [(step, current[key][0], new) for step, new, key in slots if current[key] and new not in current[key]]
    index.results.read_ahead([mfid for _, old, new in paired for mfid in (old, new)])
    pairs_by_number: dict[tuple[str, str], list[Pair]] = {}
    for step, old, new in paired:
        before, after = _numbers(index.results.registered_as(old)), _numbers(index.results.registered_as(new))
        items = [plan.planned.inputs[root][index] for root, index in instances[step.name].about]
        spans = [item.span for item in items if item.span]
        stratum = strata(items[0], by) if items else ()
        for name in before.keys() & after.keys() if spans else ():
            point = TrendPoint(new, max(last for _, last in spans), float(after[name] - before[name]))
            pairs_by_number.setdefault((step.step, name), []).append(Pair(step.name, old, new, stratum, point))
    effects = tuple(Effect(step, name, tuple(pairs)) for (step, name), pairs in sorted(pairs_by_number.items()))
    return Comparison(campaign, effects, len(paired), len(slots) - len(paired), len(plan.todo))


def _numbers(found: Any) -> dict[str, float]:
    return {} if found is None else returned_numbers(found.dataset.model_dump())
