"""The candidates of a try beside the results that are current without it: differences of what steps return."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from crucible_lineage.amounts import amount
from crucible_lineage.ask.answer import Answer
from crucible_lineage.errors import InputError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.records import returned_numbers
from crucible_lineage.session import Session
from crucible_lineage.standing.currency import currency_of
from crucible_lineage.statements.statements import trial_key

SCALE = 1.4826  # of the median absolute deviation, so that it is the standard deviation of a normal distribution


@dataclass(frozen=True)
class Effect:
    """The differences, new minus old, of a number that a step returns: by pair of current result and candidate."""

    step: str
    number: str
    differences: dict[tuple[str, str], float]

    @property
    def median(self) -> float:
        """The median difference."""
        return statistics.median(self.differences.values())

    @property
    def spread(self) -> float:
        """The scaled median absolute deviation of the differences."""
        return SCALE * statistics.median(abs(one - self.median) for one in self.differences.values())

    @property
    def largest(self) -> tuple[str, str]:
        """The pair with the largest difference."""
        return max(self.differences, key=lambda pair: abs(self.differences[pair]))

    def to_json(self) -> JsonObject:
        """Return it as `diff --try --json` prints it."""
        differences = [{"old": old, "new": new, "difference": one} for (old, new), one in self.differences.items()]
        figures = {"median": self.median, "spread": self.spread, "differences": differences}
        return {"step": self.step, "number": self.number, **figures}


@dataclass(frozen=True)
class TrialComparison(Answer):
    """The comparison of a try: pairs of current result and candidate, and candidates without a current result."""

    trial: str
    pairs: tuple[tuple[str, str], ...]
    unpaired: tuple[str, ...]
    effects: tuple[Effect, ...]

    def lines(self) -> Iterator[str]:
        yield f"{amount(len(self.pairs), 'pair')}; without a current result: {len(self.unpaired)}"
        for one in self.effects:
            old, new = one.largest
            figures = f"median {one.median:.6g}, spread {one.spread:.3g}"
            most = f"most {one.differences[old, new]:.6g}: {old} -> {new}"
            yield f"{one.step}.{one.number}: {amount(len(one.differences), 'difference')}, {figures}, {most}"

    def to_json(self) -> JsonObject:
        return {
            "try": self.trial,
            "pairs": [{"old": old, "new": new} for old, new in self.pairs],
            "unpaired": list(self.unpaired),
            "effects": [one.to_json() for one in self.effects],
        }


def compare_candidates(session: Session, project: str, trial: str) -> TrialComparison:
    """Compare the candidates of a try with the results that are current without it. Changes nothing.

    Raises InputError if the try has no candidates.
    """
    copy = session.mirror.snapshot(project)
    currency = currency_of(copy, without_try=trial_key(project, trial))
    candidates = currency.candidates(trial, project)
    if not candidates:
        raise InputError(f"project {project} has no candidates of a try {trial!r} (run --try {trial})")
    pairs, unpaired, found = [], [], dict[tuple[str, str], dict[tuple[str, str], float]]()
    for slot, new in candidates.items():
        current = currency.current(slot, project)
        if not current:
            unpaired.append(new)
        for old in current[:1] if new not in current else ():
            pairs.append((old, new))
            before, after = returned_numbers(copy.records[old]), returned_numbers(copy.records[new])
            for name in before.keys() & after.keys():
                at = copy.summaries[new].step, name
                found.setdefault(at, {})[old, new] = after[name] - before[name]
    effects = tuple(Effect(*at, differences) for at, differences in sorted(found.items()))
    return TrialComparison(trial, tuple(pairs), tuple(unpaired), effects)
