"""This process: its threads that wait for a service, the bytes that it has received and sent, and its collector."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
# The limits of what one process asks of a service that it shares with others.
REQUESTS_AT_ONCE = 16  # chosen
PARTS_AT_ONCE = 4  # of one upload; measured on loopback: more add CPU, not speed

Tell = Callable[[str, int], None]
"""Receives reports of progress, in any thread: the current work, and the total of bytes to receive, or 0."""


class Traffic:
    """Counts bytes, in any thread. `present` counts those that an earlier attempt had received."""

    def __init__(self) -> None:
        self.received = 0
        self.present = 0
        self.sent = 0
        self._lock = threading.Lock()

    def count(self, *, received: int = 0, present: int = 0, sent: int = 0) -> None:
        """Count more bytes."""
        with self._lock:
            self.received += received
            self.present += present
            self.sent += sent


traffic = Traffic()
"""Traffic of this process."""


def in_threads(
    work: Callable[[T], R],
    items: Sequence[T],
    at_once: int = REQUESTS_AT_ONCE,
    stopped: threading.Event | None = None,
) -> list[R]:
    """Apply `work` to the items, several at a time, and return the results in order.

    All finish, even if one fails; then the error of the first failed one is raised. With `stopped`, a failure or an
    interrupt sets that event, and what has not begun is left out.
    """
    if len(items) < 2:
        return [work(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor, as_completed  # most runs read few datasets

    with ThreadPoolExecutor(min(len(items), at_once), thread_name_prefix="ask") as pool:
        futures = [pool.submit(copy_context().run, work, item) for item in items]
        if stopped is not None:
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                stopped.set()
                raise
    return [future.result() for future in futures]


_inherited: list[object] = []


def around_forks(after: Callable[[], object], before: Callable[[], object] = bool) -> None:
    """Do this after each fork, in the new process, and before it, where processes can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_child=after)


def leave_out_of_forks(opened: dict[Any, Any], before: Callable[[], object] = bool) -> None:
    """Empty a mapping in forked processes, which must neither use nor close what it has. Do `before` before a fork."""

    def leave_out() -> None:
        _inherited.append(dict(opened))
        opened.clear()

    around_forks(leave_out, before)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the collector. Halves the time to build 100,000 nodes, takes a tenth off a plan of 1,000 steps."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def collector_sparing() -> Iterator[None]:
    """Exclude the objects that exist now from collections within this block. Those of Prefect take 0.1 s each time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def collector_frozen() -> Iterator[None]:
    """Pause the collector, and exclude the new objects for good: they live until the process ends."""
    with collector_paused():
        yield
        gc.freeze()
