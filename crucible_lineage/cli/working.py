"""Progress of long commands on stderr: one line that is rewritten on a terminal, elsewhere one line a minute.

Transfers are shown with their size, rate and remaining time.
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
from crucible_lineage.cli.options import wants_json
from crucible_lineage.cli.printing import coloured, ignoring_closed_stderr, is_lively, terminal_width
from crucible_lineage.lineage.labels import plain, plain_lines
from crucible_lineage.traffic import Traffic, traffic

LIVELY_S, PLAIN_S = 0.25, 60.0  # between two lines
FIRST_S = 0.5  # shorter work shows nothing


LEAST_BYTES = 100_000  # in a window; smaller transfers are not shown
LEAST_FILES = 10  # likewise; a small file takes as long as some megabytes
WINDOW_S = 5.0  # over which the rate is measured


@contextmanager
def showing_work(*, silent: bool = False) -> Iterator[ProgressDisplay]:
    """Show the progress of this block's work, unless --json was given. The display may be called from any thread."""
    work = ProgressDisplay(silent=silent or wants_json())
    try:
        yield work
    finally:
        work.end()


class ProgressDisplay:
    """The current work and the bytes that it transfers."""

    def __init__(self, *, silent: bool = False) -> None:
        self._lively = is_lively(sys.stderr) and not silent
        self._start = time.monotonic()
        self._printed_at = self._start
        self._text, self._total = "", 0
        self._moving = TrafficMonitor()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._is_shown = False
        if not silent:
            threading.Thread(target=self._keep_showing, name="progress", daemon=True).start()

    def __call__(self, text: str, of_bytes: int = 0) -> None:
        """Show the current work, and the number of bytes that it will receive in all."""
        with self._lock:
            self._text, self._total = text, of_bytes

    def print_line(self, line: str) -> None:
        """Print a line that stays."""
        with self._lock, ignoring_closed_stderr():
            self._clear()
            click.echo(plain_lines(line), err=True)

    def end(self) -> None:
        """Clear the progress line."""
        self._ended.set()
        with self._lock, ignoring_closed_stderr():
            self._clear()

    def _keep_showing(self) -> None:
        wait_s = FIRST_S
        while not self._ended.wait(wait_s):
            wait_s = LIVELY_S if self._lively else min(1.0, PLAIN_S)
            with self._lock, ignoring_closed_stderr():
                if self._text and not self._ended.is_set():
                    self._show()

    def _show(self) -> None:
        text = plain(", ".join(filter(None, (self._text, self._moving.text(self._total)))))
        now = time.monotonic()
        if self._lively:
            sys.stderr.write(f"\r\x1b[2K{coloured(text[: terminal_width() - 1], 'cyan', sys.stderr)}")
            sys.stderr.flush()
            self._is_shown = True
        elif now - self._printed_at >= PLAIN_S:
            self._printed_at = now
            click.echo(f"  {text} ({now - self._start:.0f} s)", err=True)

    def _clear(self) -> None:
        if self._is_shown:
            self._is_shown = False
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


class TrafficMonitor:
    """Rates of this process's traffic from now on. Call `text` often."""

    def __init__(self, watched: Traffic = traffic) -> None:
        self._traffic = watched
        self._start = watched.received, watched.present, watched.sent, watched.files_sent
        self._samples = deque([(time.monotonic(), watched.received, watched.sent, watched.files_sent)])

    def text(self, total: int = 0) -> str:
        """Return `1.2 of 3.4 GB received (35 %), 12 MB/s, about 3 min left`; empty if nothing moves.

        Without a total in bytes, only the traffic of the last seconds is described.
        """
        now = time.monotonic()
        self._samples.append((now, self._traffic.received, self._traffic.sent, self._traffic.files_sent))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW_S:
            self._samples.popleft()
        counts = self._traffic.received, self._traffic.present, self._traffic.sent, self._traffic.files_sent
        received, present, sent, files = (count - start for count, start in zip(counts, self._start, strict=True))
        began, received_then, sent_then, files_then = self._samples[0]
        seconds = max(now - began, 0.1)
        incoming = (self._traffic.received - received_then) / seconds
        outgoing = (self._traffic.sent - sent_then) / seconds
        if total:
            return _share(min(received + present, total), total, incoming)
        many = self._traffic.files_sent - files_then >= LEAST_FILES
        parts = [
            f"{size_text(size)} {word} at {size_text(rate)}/s"
            for size, word, rate in ((received, "received", incoming), (sent, "sent", outgoing))
            if rate * seconds >= LEAST_BYTES or (many and word == "sent")
        ]
        return ", ".join([*([amount(files, "file")] if many else []), *parts])


def _share(done: int, total: int, rate: float) -> str:
    parts = [f"{size_text(done)} of {size_text(total)} ({100 * done // total} %)"]
    if rate:
        parts.append(f"{size_text(rate)}/s")
        if done < total:
            parts.append(f"about {time_text((total - done) / rate)} left")
    return ", ".join(parts)
