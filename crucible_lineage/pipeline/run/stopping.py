"""Stopping a run before it is done, by Ctrl-C or SIGTERM: the first ends what can be, the second leaves at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = 130  # the exit code, as shells have it for Ctrl-C
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a run is to stop. Who makes steps hears of it (`heard_by`); while nobody does, it is an interrupt."""

    def __init__(self) -> None:
        self.asked = False
        self._hear: Callable[[], None] | None = None
        self._on_signals = False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask for it in this block; asked twice, the process ends within a second, as it stands."""
        self._on_signals = threading.current_thread() is threading.main_thread()
        with self._handling():
            try:
                yield
            finally:
                self._on_signals = False

    @contextmanager
    def heard_by(self, hear: Callable[[], None]) -> Iterator[None]:
        """`hear` is called, once and perhaps within a signal handler, when a stop is asked for in this block."""
        self._hear = hear
        if self.asked:
            hear()
        with self._handling():  # again, since Prefect has handlers of its own for the time of a flow
            try:
                yield
            finally:
                self._hear = None

    @contextmanager
    def _handling(self) -> Iterator[None]:
        if not self._on_signals:
            yield
            return
        before = {number: signal.signal(number, self._signalled) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def ask(self) -> None:
        """Ask for the stop of whoever makes steps, now or as soon as somebody does."""
        self.asked = True
        if self._hear is not None:
            self._hear()

    def _signalled(self, number: int, frame: FrameType | None) -> Any:  # noqa: ARG002 (Python's signature)
        if self.asked:
            _leave()
        self.asked = True
        if self._hear is None:
            raise KeyboardInterrupt
        self._hear()


def _leave() -> None:
    """End this process, whatever its threads do; the processes of steps end with it."""
    clear = "\r\x1b[2K\x1b[?25h" if sys.stderr.isatty() else ""
    os.write(
        2, f"{clear}stopped immediately; registered results are kept; run the same command again to continue\n".encode()
    )
    os._exit(INTERRUPTED)
