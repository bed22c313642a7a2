"""Who reads what a command prints may go away while it works, as `head` does and a terminal that is closed."""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

__all__ = ["is_unread", "to_nobody", "whoever_reads"]

_GONE = (errno.EPIPE, errno.EIO)


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
