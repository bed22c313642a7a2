"""Independent calls: concurrent if the service is far away, else one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

FAR_S = 0.015  # chosen: for faster answers a thread is not worthwhile
MAX_THREADS = 16  # chosen: per client, beside the threads that use it

Result = TypeVar("Result")


class ConcurrentCalls:
    """Makes calls in threads, which are started on demand. `latency` returns how long answers take."""

    def __init__(self, latency: Callable[[], float]) -> None:
        self._latency = latency
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def all(self, calls: Iterable[Callable[[], Result]]) -> list[Result]:
        """Make all calls and return their results in order.

        If calls fail, raises the error of the first one after all have ended. A call may itself use this method: the
        waiting thread makes the calls for which no thread is free.
        """
        pending = list(calls)
        if len(pending) < 2 or self._latency() < FAR_S:
            return [call() for call in pending]
        pool = self._threads()
        others = [pool.submit(copy_context().run, call) for call in pending[1:]]
        try:
            first = _outcome(pending[0])
        except BaseException:
            for other in others:
                other.cancel()
            raise
        outcomes = [first, *(_awaited(call, other) for call, other in zip(pending[1:], others, strict=True))]
        return [outcome.result() for outcome in outcomes]

    def ahead(self, call: Callable[[], Result]) -> Callable[[], Result]:
        """Start the call now if answers take long, else on demand. Returns a function that gives or raises its outcome.

        For an answer that is usually needed, but not always.
        """
        if self._latency() < FAR_S:
            return call
        future = self._threads().submit(copy_context().run, call)
        return lambda: _awaited(call, future).result()

    def close(self) -> None:
        """Stop the threads once their calls have ended."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._pool = None

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="ask")
            return self._pool


def _outcome(call: Callable[[], Result]) -> Future[Result]:
    future: Future[Result] = Future()
    try:
        future.set_result(call())
    except Exception as error:
        future.set_exception(error)
    return future


def _awaited(call: Callable[[], Result], future: Future[Result]) -> Future[Result]:
    if future.cancel():
        return _outcome(call)
    future.exception()
    return future
