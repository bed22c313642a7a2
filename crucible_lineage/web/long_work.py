"""Work that takes longer than a page may: begun when a reader asks, kept until the reader asks for it anew."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

__all__ = ["LongWork", "LongWorks"]

T = TypeVar("T")


@dataclass(frozen=True)
class LongWork(Generic[T]):
    """Work that is under way or done."""

    begun: datetime
    result: Future[T]

    def done_within(self, seconds: float) -> bool:
        """True as soon as it is done, False after `seconds`."""
        return bool(wait([self.result], seconds).done)


class LongWorks(Generic[T]):
    """The last work of one kind on each project, for one reader."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._last: dict[str, LongWork[T]] = {}
        self._lock = threading.Lock()

    def of(self, project: str, work: Callable[[], T], *, anew: bool = False) -> LongWork[T]:
        """The last work on a project; begun now if there is none, if it failed, or if a new one is asked for."""
        with self._lock:
            last = self._last.get(project)
            failed = last is not None and last.result.done() and last.result.exception() is not None
            if last is None or failed or (anew and last.result.done()):
                last = self._last[project] = LongWork(datetime.now(UTC), self._pool.submit(work))
            return last
