"""Calls that do not depend on each other: at once where the service is far away, else one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

FAR_S = 0.015  # chosen: an answer that comes sooner is not worth another thread
MOST = 16  # chosen: calls of one client that wait for answers, beside those of the threads that ask for it

Found = TypeVar("Found")


class ConcurrentCalls:
    """Threads that wait for answers, begun when they are first needed. `latency` tells how long answers take."""

    def __init__(self, latency: Callable[[], float]) -> None:
        self._latency = latency
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def all(self, calls: Iterable[Callable[[], Found]]) -> list[Found]:
        """Make all calls.

        Returns their results in order; raises what the first failing one raised, when all have ended.
        A call may itself ask for others in this way: what no thread is free for is done by who waits for it.
        """
        asked = list(calls)
        if len(asked) < 2 or self._latency() < FAR_S:
            return [call() for call in asked]
        pool = self._threads()
        others = [pool.submit(copy_context().run, call) for call in asked[1:]]
        try:
            first = _outcome(asked[0])
        except BaseException:
            for other in others:
                other.cancel()
            raise
        outcomes = [first, *(_awaited(call, other) for call, other in zip(asked[1:], others, strict=True))]
        return [outcome.result() for outcome in outcomes]

    def ahead(self, call: Callable[[], Found]) -> Callable[[], Found]:
        """Start the call now if answers take long, else on demand. Returns a function that gives or raises its outcome.

        For an answer that is mostly needed, but not always.
        """
        if self._latency() < FAR_S:
            return call
        asked = self._threads().submit(copy_context().run, call)
        return lambda: _awaited(call, asked).result()

    def close(self) -> None:
        """Its threads end when their calls have."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._pool = None

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(MOST, thread_name_prefix="ask")
            return self._pool


def _outcome(call: Callable[[], Found]) -> Future[Found]:
    done: Future[Found] = Future()
    try:
        done.set_result(call())
    except Exception as error:
        done.set_exception(error)
    return done


def _awaited(call: Callable[[], Found], other: Future[Found]) -> Future[Found]:
    if other.cancel():
        return _outcome(call)
    other.exception()
    return other
