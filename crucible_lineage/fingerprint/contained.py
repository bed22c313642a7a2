"""Code of the user's own that runs in our process: it may neither end it, nor print where a command prints."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import FrameType
from typing import Any, NoReturn

_one_at_a_time = threading.RLock()  # what is changed is the process's


class EndedError(Exception):
    """It would have ended the process; the message says by what."""


@contextmanager
def contained() -> Iterator[None]:
    """Raise EndedError for what would end the process in this block, and send its output to standard error.

    A Ctrl-C that comes meanwhile is one.
    """
    with _one_at_a_time, redirect_stdout(sys.stderr), _staying_alive(), _hearing() as interrupted:
        try:
            yield
        except SystemExit as error:
            raise EndedError(f"sys.exit({'' if error.code is None else repr(error.code)})") from error
        except KeyboardInterrupt as error:
            if interrupted:
                raise
            raise EndedError("raise KeyboardInterrupt") from error


@contextmanager
def _staying_alive() -> Iterator[None]:
    """Raise for what ends this process without further ado; a process that was forked from it may end."""
    leave, process = os._exit, os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process:
            leave(status)
        raise EndedError(f"os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = leave


@contextmanager
def _hearing() -> Iterator[list[int]]:
    """The signals that came in this block; only the main thread is interrupted by any."""
    came: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield came
        return

    def hear(number: int, frame: FrameType | None) -> Any:
        came.append(number)
        return before(number, frame)

    signal.signal(signal.SIGINT, hear)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)
