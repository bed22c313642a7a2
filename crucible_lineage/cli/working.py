"""How far a command is that takes long, on stderr: one line that is renewed on a terminal, elsewhere one a minute.

Bytes that are moved are shown as how many of how many, how fast, and until when.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import click

from crucible_lineage.amounts import amount, size_text, time_text
from crucible_lineage.cli.printing import coloured, is_lively, terminal_width, whoever_reads
from crucible_lineage.traffic import Traffic, traffic

LIVELY_S, PLAIN_S = 0.25, 60.0  # between two lines
FIRST_S = 0.5  # what ends sooner shows nothing


LEAST_BYTES = 100_000  # in that time; less is no matter of bytes
LEAST_FILES = 10  # the same: small files take as long as some megabytes
WINDOW_S = 5.0  # over which it is measured how fast they move


@contextmanager
def showing_work(*, silent: bool = False) -> Iterator[ProgressDisplay]:
    """Show how far the work of this block is; may be called from any thread."""
    work = ProgressDisplay(silent=silent)
    try:
        yield work
    finally:
        work.end()


class ProgressDisplay:
    """Shows what it is told, with the bytes that move meanwhile."""

    def __init__(self, *, silent: bool = False) -> None:
        self._lively = is_lively(sys.stderr) and not silent
        self._began = time.monotonic()
        self._said = self._began
        self._text, self._of = "", 0
        self._moving = TrafficMonitor()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._shown = False
        if not silent:
            threading.Thread(target=self._keep_showing, name="progress", daemon=True).start()

    def __call__(self, text: str, of_bytes: int = 0) -> None:
        """Show the current work, and how many bytes it will receive in all."""
        with self._lock:
            self._text, self._of = text, of_bytes

    def say(self, line: str) -> None:
        """A line that stays."""
        with self._lock, whoever_reads():
            self._clear()
            click.echo(line, err=True)

    def end(self) -> None:
        """Clear the line of progress."""
        self._over.set()
        with self._lock, whoever_reads():
            self._clear()

    def _keep_showing(self) -> None:
        wait_s = FIRST_S
        while not self._over.wait(wait_s):
            wait_s = LIVELY_S if self._lively else min(1.0, PLAIN_S)
            with self._lock, whoever_reads():
                if self._text and not self._over.is_set():
                    self._show()

    def _show(self) -> None:
        text = ", ".join(filter(None, (self._text, self._moving.text(self._of))))
        now = time.monotonic()
        if self._lively:
            sys.stderr.write(f"\r\x1b[2K{coloured(text[: terminal_width() - 1], 'cyan', sys.stderr)}")
            sys.stderr.flush()
            self._shown = True
        elif now - self._said >= PLAIN_S:
            self._said = now
            click.echo(f"  {text} ({now - self._began:.0f} s)", err=True)

    def _clear(self) -> None:
        if self._shown:
            self._shown = False
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


class TrafficMonitor:
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
