"""Print rows in columns, CSV, and colour on terminals that support it.

Elsewhere, and where NO_COLOR is set, text is plain. With `--json`, standard output has one JSON object and nothing that
libraries or child processes print.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from typing import TextIO

import click

from crucible_lineage.ask.answer import Coloured
from crucible_lineage.lineage.labels import plain, plain_lines
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
