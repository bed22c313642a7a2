"""What a function prints and logs that runs in this process: to where it went, and to a log of its own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

__all__ = ["LOG_FORMAT", "keeping_prints"]

LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"

_keep: ContextVar[Callable[[bytes], None] | None] = ContextVar("keep", default=None)


@contextmanager
def keeping_prints(keep: Callable[[bytes], None]) -> Iterator[None]:
    """`keep` is given what is printed and logged in this block, in this thread and what inherits its context.

    What goes around Python's `sys.stdout` and `sys.stderr`, as C libraries and other programs do, is not seen.
    """
    _install()
    token = _keep.set(keep)
    try:
        yield
    finally:
        _keep.reset(token)


def _install() -> None:
    """The streams of this process, and its logging, tell what is printed where it is asked for. Done once for each."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Copied):
            setattr(sys, name, _Copied(stream))
    root = logging.getLogger()
    if not any(isinstance(handler, _Kept) for handler in root.handlers):
        root.addHandler(_Kept(logging.INFO))


class _Copied:
    """A stream, and a copy of what is written to it for whoever keeps prints where it is written.

    No subclass of Python's streams: those are closed when nobody has them any more, and this one is not to be.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        if keep := _keep.get():
            keep(text.encode(errors="backslashreplace"))
        return self._stream.write(text)

    def writelines(self, lines: Iterable[str], /) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Kept(logging.Handler):
    """Takes what libraries and steps log, where prints are kept."""

    def emit(self, record: logging.LogRecord) -> None:
        if keep := _keep.get():
            text = logging.Formatter(LOG_FORMAT).format(record)
            keep(text.encode(errors="backslashreplace") + b"\n")
