"""Standard output of a command with `--json`: one JSON object, and nothing that libraries or child processes print."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from typing import TextIO

__all__ = ["only_result", "result_stream"]

_results: list[TextIO] = []  # the stream of the command under way; empty where all may print


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
