"""Print rows in columns, CSV, and colour on terminals that support it; and show the progress of long commands.

Elsewhere, and where NO_COLOR is set, text is plain. With `--json`, standard output has one JSON object and nothing that
libraries or child processes print. Progress is on stderr: a line that is rewritten on a terminal, and printed once a
minute elsewhere; transfers are shown with their size, rate and remaining time.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from typing import Self, TextIO

import click

from crucible_lineage.ask.answer import Coloured, option_value
from crucible_lineage.lineage.labels import plain, plain_lines
from crucible_lineage.machine.process import traffic
from crucible_lineage.text.amounts import size_text, time_text
from crucible_lineage.text.masking import masked_text

_CODES = {"red": 31, "green": 32, "yellow": 33, "cyan": 36, "dim": 2}


def warn(lines: Iterable[str]) -> None:
    """Print lines, which may have line breaks, on standard error."""
    for line in lines:
        print_line(line, sys.stderr)


def print_line(line: str, stream: TextIO | None = None) -> None:
    """Print a line on a stream, by default standard output."""
    shown = plain_lines if stream else plain
    if isinstance(line, Coloured):
        before, part, after = (shown(masked_text(text)) for text in line.parts)
        click.echo(before + coloured(part, line.colour, stream) + after, file=stream)
    else:
        click.echo(shown(masked_text(line)), file=stream)


def coloured(text: str, colour: str, stream: TextIO | None = None) -> str:
    """Return the text in that colour if the stream (by default standard output) shows colours."""
    if os.environ.get("NO_COLOR") or not is_lively(stream or sys.stdout):
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def is_lively(stream: TextIO) -> bool:
    """True for a terminal that can rewrite a line."""
    return stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb")


def terminal_width() -> int:
    """Return the width of the terminal in characters."""
    return shutil.get_terminal_size().columns


_results: list[TextIO] = []  # the stream of the current command's result; empty if everything may print to stdout
_CLOSED = (errno.EPIPE, errno.EIO)


@contextmanager
def only_result() -> Iterator[None]:
    """Send what this process and its children print in this block to standard error, except the command's result."""
    with ExitStack() as stack:
        stream = sys.stdout
        with suppress(OSError, ValueError, AttributeError):  # a stream is closed, or is not a file
            if stream.fileno() == 1:
                stream.flush()
                copy = os.dup(1)
                os.dup2(2, 1)
                stack.callback(os.close, copy)
                stack.callback(os.dup2, copy, 1)
                stream = stack.enter_context(open(copy, "w", encoding=stream.encoding, closefd=False))
        _results.append(stream)
        stack.callback(_results.pop)
        stack.enter_context(redirect_stdout(sys.stderr))
        yield


def result_stream() -> TextIO:
    """Return the stream that the command's result goes to."""
    return _results[-1] if _results else sys.stdout


@contextmanager
def ignoring_closed_stderr() -> Iterator[None]:
    """Discard what this block writes to standard error once its reader has closed it; the work goes on."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CLOSED:
            raise
        discard(sys.stderr)


def is_unread(stream: TextIO) -> bool:
    """True if the reader of the stream has closed it, as far as the system reports."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
    except (AttributeError, OSError):  # Windows has no poll; a stream may be closed, or not be a file
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def discard(stream: TextIO) -> None:
    """Discard without an error what is written to the stream from now on."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def wants_json() -> bool:
    """Return whether `--json` was given."""
    return bool(option_value("json"))


LIVELY_S, PLAIN_S = 0.25, 60.0  # between two progress lines: on a terminal, and in a file
FIRST_S = 0.5  # shorter work shows nothing
LEAST_BYTES = 100_000  # in a window; smaller transfers are not shown
WINDOW_S = 5.0  # over which the rate is measured


class StatusLine:
    """The line that `text` returns, kept up to date by a thread until it ends."""

    def __init__(self, text: Callable[[], str], *, is_shown: bool = True) -> None:
        self.lock = threading.RLock()
        self._text = text
        self._lively = is_shown and is_lively(sys.stderr)
        self._began = self._printed_at = time.monotonic()
        self._ended = threading.Event()
        self._is_shown = False
        if is_shown:
            threading.Thread(target=self._keep_showing, name="progress", daemon=True).start()

    def print_line(self, line: str) -> None:
        """Print a line that stays, above this one."""
        with self.lock, ignoring_closed_stderr():
            self._printed_at = time.monotonic()
            self._clear()
            click.echo(line, err=True, color=True if self._lively else None)
            self._show()

    def end(self) -> None:
        """Remove the line."""
        self._ended.set()
        with self.lock, ignoring_closed_stderr():
            self._clear()

    def _keep_showing(self) -> None:
        wait_s = FIRST_S
        while not self._ended.wait(wait_s):
            wait_s = LIVELY_S if self._lively else min(1.0, PLAIN_S)
            with self.lock, ignoring_closed_stderr():
                now = time.monotonic()
                if self._lively:
                    self._show()
                elif now - self._printed_at >= PLAIN_S and (text := plain(self._text())):
                    self.print_line(f"  {text} ({now - self._began:.0f} s)")

    def _show(self) -> None:
        if self._lively and not self._ended.is_set() and (text := plain(self._text())):
            width = terminal_width() - 1
            shown = text if len(text) <= width else f"{text[: max(0, width - 1)]}…"
            sys.stderr.write(f"\r\x1b[2K{coloured(shown, 'cyan', sys.stderr)}")
            sys.stderr.flush()
            self._is_shown = True

    def _clear(self) -> None:
        if self._is_shown:
            self._is_shown = False
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


class ProgressDisplay:
    """Shows the progress of this block's work and the bytes that it transfers, unless --json was given.

    It may be called from any thread.
    """

    def __init__(self) -> None:
        self._work, self._total = "", 0
        self._moving = TrafficMonitor()
        line = StatusLine(self._text, is_shown=not wants_json())
        self.print_line: Callable[[str], None] = lambda text: line.print_line(plain_lines(text))
        self.end = line.end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def __call__(self, text: str, of_bytes: int = 0) -> None:
        """Show the current work, and the number of bytes that it will receive in all."""
        self._work, self._total = text, of_bytes

    def _text(self) -> str:
        return ", ".join(filter(None, (self._work, self._moving.text(self._total)))) if self._work else ""


class TrafficMonitor:
    """Rates of this process's traffic from now on. Call `text` often."""

    def __init__(self) -> None:
        self._start = traffic.received, traffic.present, traffic.sent
        self._samples = deque([(time.monotonic(), traffic.received, traffic.sent)])

    def text(self, total: int = 0) -> str:
        """Return `1.2 of 3.4 GB received (35 %), 12 MB/s, about 3 min left`; empty if nothing moves.

        Without a total in bytes, only the traffic of the last seconds is described.
        """
        now = time.monotonic()
        self._samples.append((now, traffic.received, traffic.sent))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW_S:
            self._samples.popleft()
        counts = traffic.received, traffic.present, traffic.sent
        received, present, sent = (count - start for count, start in zip(counts, self._start, strict=True))
        began, received_then, sent_then = self._samples[0]
        seconds = max(now - began, 0.1)
        incoming, outgoing = (traffic.received - received_then), (traffic.sent - sent_then)
        if total:
            done, rate = min(received + present, total), incoming / seconds
            parts = [f"{size_text(done)} of {size_text(total)} ({100 * done // total} %)"]
            parts += [f"{size_text(rate)}/s"] if rate else []
            parts += [f"about {time_text((total - done) / rate)} left"] if rate and done < total else []
            return ", ".join(parts)
        return ", ".join(
            f"{size_text(size)} {word} at {size_text(moved / seconds)}/s"
            for size, word, moved in ((received, "received", incoming), (sent, "sent", outgoing))
            if moved >= LEAST_BYTES
        )
