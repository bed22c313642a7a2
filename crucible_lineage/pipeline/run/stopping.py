"""Stopping a run by Ctrl-C or SIGTERM: the first signal ends the steps under way, the second exits at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # the exit code that shells use for Ctrl-C
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """A request to stop a run. It calls the listener (see `listened_to_by`); without one, it is a KeyboardInterrupt."""

    def __init__(self) -> None:
        self.is_requested = False
        self._listener: Callable[[], None] | None = None
        self._on_signals = False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM request the stop in this block; the second signal ends the process within a second."""
        self._on_signals = threading.current_thread() is threading.main_thread()
        with self._handling():
            try:
                yield
            finally:
                self._on_signals = False

    @contextmanager
    def listened_to_by(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call `listener`, perhaps within a signal handler, when a stop is requested in this block."""
        self._listener = listener
        if self.is_requested:
            listener()
        with self._handling():  # again, since Prefect installs its own handlers during a flow
            try:
                yield
            finally:
                self._listener = None

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

    def request(self) -> None:
        """Request the stop, now or as soon as there is a listener."""
        self.is_requested = True
        if self._listener is not None:
            self._listener()

    def _signalled(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (Python's signature)
        if self.is_requested:
            _exit()
        self.is_requested = True
        if self._listener is None:
            raise KeyboardInterrupt
        self._listener()


def _exit() -> None:
    """End this process despite its threads; the processes of steps end with it."""
    clear = "\r\x1b[2K\x1b[?25h" if sys.stderr.isatty() else ""
    os.write(
        2, f"{clear}stopped immediately; registered results are kept; run the same command again to continue\n".encode()
    )
    os._exit(INTERRUPTED)
