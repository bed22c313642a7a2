"""Running the user's code in our process: it must neither end the process nor print to standard output."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import FrameType
from typing import NoReturn

_one_at_a_time = threading.RLock()  # the changes affect the whole process


class EndedError(Exception):
    """The code tried to end the process; the message is the call."""


@contextmanager
def contained() -> Iterator[None]:
    """Raise EndedError for code in this block that would end the process, and send its output to standard error.

    A real Ctrl-C still raises KeyboardInterrupt.
    """
    with _one_at_a_time, redirect_stdout(sys.stderr), _exit_refused(), _interrupts() as interrupted:
        try:
            yield
        except SystemExit as error:
            raise EndedError(f"sys.exit({'' if error.code is None else repr(error.code)})") from error
        except KeyboardInterrupt as error:
            if interrupted:
                raise
            raise EndedError("raise KeyboardInterrupt") from error


@contextmanager
def _exit_refused() -> Iterator[None]:
    """Make `os._exit` raise in this process; forked processes may still exit."""
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
def _interrupts() -> Iterator[list[int]]:
    """Yield the list of interrupts in this block; only the main thread receives any."""
    received: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, frame: FrameType | None) -> object:
        received.append(number)
        return before(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)
