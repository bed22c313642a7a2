"""Connections that end when the other side falls silent in the middle of something, or sends a head without end.

uvicorn closes a connection that rests between requests. One whose request never comes to its end, or whose answer is
no longer taken, it keeps for good; so would a machine that was switched off meanwhile.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HttpConnection"]

HEAD_S = 60.0  # chosen: from the opening of a connection, or its last answer, until the head of a request is there
SILENCE_S = 60.0  # chosen: between two pieces of a request's body, or of an answer
MOST_HEAD_BYTES = 64 << 10  # as uvicorn allows with its other parser, h11


class HttpConnection(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, with an end to waiting."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._began = self._came = self._taken = self.loop.time()
        self._unsent = self._head_bytes = 0
        self._look_after(min(HEAD_S, SILENCE_S))

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._came = self.loop.time()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._waits_for_head and self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of this request is too long.")

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head_bytes = 0

    def on_response_complete(self) -> None:
        self._began = self._came = self.loop.time()
        self._head_bytes = 0
        super().on_response_complete()

    @property
    def _waits_for_head(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _look_after(self, seconds: float) -> None:
        self._watch = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """The connection ends if it has waited too long for the other side; if not, it is looked at again in time."""
        left = self._patience_left()
        if left > 0:
            self._look_after(left)
        else:
            self.transport.abort()

    def _patience_left(self) -> float:
        now = self.loop.time()
        if (unsent := self.transport.get_write_buffer_size()) != self._unsent:
            self._unsent, self._taken = unsent, now
        if self.timeout_keep_alive_task is not None:  # it rests, and uvicorn will close it
            return min(HEAD_S, SILENCE_S)
        if self._waits_for_head:
            return self._began + HEAD_S - now
        if self.flow.write_paused:
            return self._taken + SILENCE_S - now
        if self.cycle.more_body and not self.flow.read_paused:
            return self._came + SILENCE_S - now
        return min(HEAD_S, SILENCE_S)  # the answer is being made
