"""Standard output: with `--json` one JSON object, and nothing that libraries or child processes print.

Who reads it may go away while a command works, as `head` does and a terminal that is closed.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from typing import TextIO

__all__ = ["is_unread", "only_result", "result_stream", "to_nobody", "whoever_reads"]


_results: list[TextIO] = []  # the stream of the command under way; empty where all may print


_GONE = (errno.EPIPE, errno.EIO)


@contextmanager
def only_result() -> Iterator[None]:
    """Send what this process and its children print in this block to standard error, but for the command's result."""
    with ExitStack() as stack:
        stream = sys.stdout
        with suppress(OSError, ValueError, AttributeError):  # one of the two is closed, or no file of the system
            if stream.fileno() == 1:
                stream.flush()
                kept = os.dup(1)
                os.dup2(2, 1)
                stack.callback(os.close, kept)
                stack.callback(os.dup2, kept, 1)
                stream = stack.enter_context(open(kept, "w", encoding=stream.encoding, closefd=False))
        _results.append(stream)
        stack.callback(_results.pop)
        stack.enter_context(redirect_stdout(sys.stderr))
        yield


def result_stream() -> TextIO:
    """Return where a command writes its result."""
    return _results[-1] if _results else sys.stdout


@contextmanager
def whoever_reads() -> Iterator[None]:
    """Discard what this block writes to standard error once nobody reads it; the work goes on."""
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise
        to_nobody(sys.stderr)


def is_unread(stream: TextIO) -> bool:
    """True if nobody reads what is written to it any more, as far as the system tells."""
    try:
        asked = select.poll()
        asked.register(stream.fileno(), 0)
    except (AttributeError, OSError):  # Windows has no poll; a stream may be closed, or be none of the system's
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in asked.poll(0))


def to_nobody(stream: TextIO) -> None:
    """Send what is written to the stream from now on nowhere, without an error."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)
