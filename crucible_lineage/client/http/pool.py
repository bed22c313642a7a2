"""Connections without a lock that all share: each request has one of its own, the one that was free last.

httpx's own pool looks at all its connections, one system call for each, before and after every request, and lets no
other request pass meanwhile: from some ten at once on, that is where they wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import httpx


class PooledTransport(httpx.BaseTransport):
    """At most so many connections at once, each kept for `keepalive_s` after its last answer. `new` makes one."""

    def __init__(self, new: Callable[[], httpx.BaseTransport], *, most: int, keepalive_s: float) -> None:
        self._new = new
        self._keepalive_s = keepalive_s
        self._room = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._free: deque[tuple[float, httpx.BaseTransport]] = deque()
        self._busy: set[httpx.BaseTransport] = set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The answer, whose connection is free again when it is closed."""
        within_s = request.extensions.get("timeout", {}).get("pool")
        if not self._room.acquire(timeout=within_s):
            raise httpx.PoolTimeout(f"no connection became free within {within_s} s", request=request)
        lane = self._take()
        try:
            response = lane.handle_request(request)
        except BaseException:
            self._give_back(lane)
            raise
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = _Read(response.stream, partial(self._give_back, lane))
        return response

    def close(self) -> None:
        """All connections are closed."""
        with self._lock:
            lanes = [*(lane for _, lane in self._free), *self._busy]
            self._free.clear()
        for lane in lanes:
            lane.close()

    def _take(self) -> httpx.BaseTransport:
        with self._lock:
            lane = self._free.pop()[1] if self._free else self._new()
            self._busy.add(lane)
            return lane

    def _give_back(self, lane: httpx.BaseTransport) -> None:
        now = time.monotonic()
        old = []
        with self._lock:
            self._busy.discard(lane)
            self._free.append((now, lane))
            while now - self._free[0][0] > self._keepalive_s:
                old.append(self._free.popleft()[1])
        self._room.release()
        for idle in old:
            idle.close()


class DirectClient(httpx.Client):
    """A client whose requests go to its transport as they are.

    No call here has cookies, redirects or httpx's own authentication, which are a third of what httpx costs. If a
    later httpx does not call the method below, only speed is lost.
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


class _Read(httpx.SyncByteStream):
    """The bytes of an answer; `done` is called once, when they are read or given up."""

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
