"""A service that is away: since when, and when it is asked again."""

from __future__ import annotations

import time
from dataclasses import dataclass

from crucible_lineage.errors import CrucibleError

__all__ = ["FIRST_WAIT_S", "LONGEST_WAIT_S", "Absence"]

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0


@dataclass
class Absence:
    """Begun by an error, ended by an answer; meanwhile everybody waits, ever longer. Who uses it holds a lock."""

    since: float | None = None
    until: float = 0.0
    tries: int = 0

    def note(self, error: CrucibleError) -> None:
        """The service cannot be had."""
        if self.since is None:
            self.since = time.monotonic()
        if time.monotonic() >= self.until:  # else it was told already by who was at work beside
            self.tries += 1
            wait_s = error.retry_after_s or FIRST_WAIT_S * 2.0 ** min(self.tries, 10)
            self.until = time.monotonic() + min(wait_s, LONGEST_WAIT_S)

    def end(self) -> None:
        """The service answers."""
        self.since, self.until, self.tries = None, 0.0, 0
