"""How far a run is, and when it will have ended: from what steps took before and in this run, and what runs now."""

from __future__ import annotations

import time
from collections.abc import Mapping

from crucible_lineage.pipeline.run.result import EXECUTED, MADE, QUEUED, REUSED, STARTED

__all__ = ["TimeLeft"]

MOST_NAMED = 3  # steps that run; the others are counted
FEWEST = 3  # steps that have been made, before what they took says anything of the others
RATE_S = 60.0  # steps that ended within it are the rate


class TimeLeft:
    """Counts the steps of a run. `jobs` is how many run at once; if that is not known, as many as are seen to."""

    def __init__(self, jobs: int = 0) -> None:
        self.began = time.monotonic()
        self._jobs = jobs
        self._expected: dict[str, float | None] = {}  # of those that have not ended
        self._total = 0
        self._waiting: set[str] = set()
        self._running: dict[str, float] = {}
        self._registering: set[str] = set()
        self._took: list[float] = []
        self._ends: list[float] = []
        self._most = 1

    def plan(self, todo: Mapping[str, float | None]) -> None:
        """Start an estimate for these steps, each with the time that it took before."""
        self._expected |= todo
        self._total = len(todo)

    def moved(self, step: str, phase: str) -> None:
        """The step was handed over, has begun, or is made."""
        if phase == QUEUED:
            self._waiting.add(step)
        elif phase == STARTED:
            self._waiting.discard(step)
            self._running.setdefault(step, time.monotonic())
            self._most = max(self._most, len(self._running))
        elif phase == MADE:
            self._registering.add(step)

    def ended(self, step: str, outcome: str, seconds: float | None) -> None:
        """The step has ended, after so long."""
        for group in (self._waiting, self._registering):
            group.discard(step)
        self._running.pop(step, None)
        if self._expected.pop(step, self) is self or outcome not in (EXECUTED, REUSED):
            return
        self._ends.append(time.monotonic())
        if seconds is not None:
            self._took.append(seconds)

    def text(self) -> str:
        """`12/95 (12 %), running a 3 s, b 1 s, 4.0/min, about 12 min left`; empty before the plan is known."""
        if not self._total:
            return ""
        done = self._total - len(self._expected)
        parts = [f"{done}/{self._total} ({100 * done // self._total} %)", self._now()]
        recent = [end for end in self._ends if end > time.monotonic() - RATE_S]
        if len(recent) >= FEWEST:
            over = max(1.0, min(RATE_S, time.monotonic() - self.began))
            parts.append(f"{60 * len(recent) / over:.1f}/min")
        if (left := self.seconds_left()) is not None:
            parts.append(f"about {_rough(left)} left")
        return ", ".join(filter(None, parts))

    def seconds_left(self) -> float | None:
        """Estimate the time for what is left, on as many jobs as there are; None while no step's time is known."""
        if not self._expected:
            return None
        mean = sum(self._took) / len(self._took) if len(self._took) >= FEWEST else None
        expected = {step: mean if known is None else known for step, known in self._expected.items()}
        if any(known is None for known in expected.values()):
            return None
        now = time.monotonic()
        gone = {step: now - began for step, began in self._running.items()}
        rest = [max(0.0, (known or 0.0) - gone.get(step, 0.0)) for step, known in expected.items()]
        return max(sum(rest) / max(1, self._jobs or self._most), max(rest, default=0.0))

    def _now(self) -> str:
        now = time.monotonic()
        named = sorted(self._running.items(), key=lambda item: item[1])
        shown = [
            f"{step} {_rough(now - began)}{' (registering)' if step in self._registering else ''}"
            for step, began in named[:MOST_NAMED]
        ]
        if not shown:
            return f"{len(self._waiting)} handed over" if self._waiting else ""
        more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        return f"running {', '.join(shown)}{more}"


def _rough(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
