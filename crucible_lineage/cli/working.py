"""How far a command is that takes long, on stderr: one line that is renewed on a terminal, elsewhere one a minute."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from crucible_lineage.cli.colour import coloured, is_lively, terminal_width
from crucible_lineage.cli.moving import Moving
from crucible_lineage.cli.unread import whoever_reads

__all__ = ["Work", "showing_work"]

LIVELY_S, PLAIN_S = 0.25, 60.0  # between two lines
FIRST_S = 0.5  # what ends sooner shows nothing


@contextmanager
def showing_work(*, silent: bool = False) -> Iterator[Work]:
    """Show how far the work of this block is; may be called from any thread."""
    work = Work(silent=silent)
    try:
        yield work
    finally:
        work.end()


class Work:
    """Shows what it is told, with the bytes that move meanwhile."""

    def __init__(self, *, silent: bool = False) -> None:
        self._lively = is_lively(sys.stderr) and not silent
        self._began = time.monotonic()
        self._said = self._began
        self._text, self._of = "", 0
        self._moving = Moving()
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
