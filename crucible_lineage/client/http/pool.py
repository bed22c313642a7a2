"""A connection pool without a shared lock: each request has its own connection, the one that was used last.

httpx's own pool checks all its connections, with a system call each, before and after every request, and blocks other
requests meanwhile. From about ten concurrent requests on, that dominates.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import httpx

MAX_CONNECTIONS = 64


class PooledTransport(httpx.BaseTransport):
    """At most `maximum` connections, created by `new` and kept for `keepalive_s` after their last answer."""

    def __init__(self, new: Callable[[], httpx.BaseTransport], *, maximum: int, keepalive_s: float) -> None:
        self._new = new
        self._keepalive_s = keepalive_s
        self._slots = threading.BoundedSemaphore(maximum)
        self._lock = threading.Lock()
        self._free: deque[tuple[float, httpx.BaseTransport]] = deque()
        self._busy: set[httpx.BaseTransport] = set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer; closing it releases its connection."""
        within_s = request.extensions.get("timeout", {}).get("pool")
        if not self._slots.acquire(timeout=within_s):
            raise httpx.PoolTimeout(f"no connection became free within {within_s} s", request=request)
        wire = self._acquire()
        try:
            response = wire.handle_request(request)
        except BaseException:
            self._release(wire)
            raise
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = _ReleasingStream(response.stream, partial(self._release, wire))
        return response

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            wires = [*(wire for _, wire in self._free), *self._busy]
            self._free.clear()
        for wire in wires:
            wire.close()

    def _acquire(self) -> httpx.BaseTransport:
        with self._lock:
            wire = self._free.pop()[1] if self._free else self._new()
            self._busy.add(wire)
            return wire

    def _release(self, wire: httpx.BaseTransport) -> None:
        now = time.monotonic()
        expired = []
        with self._lock:
            self._busy.discard(wire)
            self._free.append((now, wire))
            while now - self._free[0][0] > self._keepalive_s:
                expired.append(self._free.popleft()[1])
        self._slots.release()
        for idle in expired:
            idle.close()


class DirectClient(httpx.Client):
    """A client that passes requests unchanged to its transport.

    No call here uses cookies, redirects or httpx's authentication, which are a third of httpx's cost. If a later
    httpx does not call the method below, only speed is lost.
    """

    def __init__(self, transport: httpx.BaseTransport) -> None:
        super().__init__(transport=transport, timeout=None)
        self._wire = transport

    def _send_handling_auth(self, request: httpx.Request, *_: object, **__: object) -> httpx.Response:
        for hook in self.event_hooks["request"]:
            hook(request)
        response = self._wire.handle_request(request)
        response.request = request
        return response


class _ReleasingStream(httpx.SyncByteStream):
    """The bytes of an answer; `done` is called once, when the answer is closed."""

    def __init__(self, stream: httpx.SyncByteStream, done: Callable[[], None]) -> None:
        self._stream = stream
        self._done: Callable[[], None] | None = done

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        done, self._done = self._done, None
        try:
            self._stream.close()
        finally:
            if done is not None:
                done()
