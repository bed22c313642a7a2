"""Checks that take longer than a page may: begun when a reader asks, kept until the reader asks for them anew."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime

from crucible_lineage.queries.verify.verify import Verification

__all__ = ["Check", "Checks"]


@dataclass(frozen=True)
class Check:
    """A verification that is under way or done."""

    begun: datetime
    result: Future[Verification]

    def done_within(self, seconds: float) -> bool:
        """True as soon as it is done, False after `seconds`."""
        return bool(wait([self.result], seconds).done)


class Checks:
    """The last check of each project, for one reader."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._last: dict[str, Check] = {}
        self._lock = threading.Lock()

    def of(self, project: str, work: Callable[[], Verification], *, anew: bool = False) -> Check:
        """The last check of a project; begun now if there is none, if it failed, or if a new one is asked for."""
        with self._lock:
            last = self._last.get(project)
            failed = last is not None and last.result.done() and last.result.exception() is not None
            if last is None or failed or (anew and last.result.done()):
                last = self._last[project] = Check(datetime.now(UTC), self._pool.submit(work))
            return last
