"""Bytes that are moved, as commands that take long show them: how many of how many, how fast, until when."""

from __future__ import annotations

import time
from collections import deque

from crucible_lineage.amounts import amount, size_text, time_text
from crucible_lineage.traffic import Traffic, traffic

__all__ = ["Moving"]

LEAST_BYTES = 100_000  # in that time; less is no matter of bytes
LEAST_FILES = 10  # the same: small files take as long as some megabytes
WINDOW_S = 5.0  # over which it is measured how fast they move


class Moving:
    """Watches the traffic of this process from now on; ask it often."""

    def __init__(self, watched: Traffic = traffic) -> None:
        self._traffic = watched
        self._start = watched.received, watched.present, watched.sent, watched.files_sent
        self._seen = deque([(time.monotonic(), watched.received, watched.sent, watched.files_sent)])

    def text(self, of: int = 0) -> str:
        """`1.2 of 3.4 GB received (35 %), 12 MB/s, about 3 min left`; empty if nothing moves. `of` is what is to come.

        Without `of` only what has moved in the last seconds is told.
        """
        now = time.monotonic()
        self._seen.append((now, self._traffic.received, self._traffic.sent, self._traffic.files_sent))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()
        counts = self._traffic.received, self._traffic.present, self._traffic.sent, self._traffic.files_sent
        received, present, sent, files = (count - begun for count, begun in zip(counts, self._start, strict=True))
        began, received_then, sent_then, files_then = self._seen[0]
        over = max(now - began, 0.1)
        incoming, outgoing = (self._traffic.received - received_then) / over, (self._traffic.sent - sent_then) / over
        if of:
            return _of(min(received + present, of), of, incoming)
        many = self._traffic.files_sent - files_then >= LEAST_FILES
        parts = [
            f"{size_text(size)} {word} at {size_text(rate)}/s"
            for size, word, rate in ((received, "received", incoming), (sent, "sent", outgoing))
            if rate * over >= LEAST_BYTES or (many and word == "sent")
        ]
        return ", ".join([*([amount(files, "file")] if many else []), *parts])


def _of(done: int, total: int, rate: float) -> str:
    parts = [f"{size_text(done)} of {size_text(total)} ({100 * done // total} %)"]
    if rate:
        parts.append(f"{size_text(rate)}/s")
        if done < total:
            parts.append(f"about {time_text((total - done) / rate)} left")
    return ", ".join(parts)
