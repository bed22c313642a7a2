"""How many bytes of files this process has received and sent; whoever shows how far it is reads it."""

from __future__ import annotations

import threading
from collections.abc import Callable

Tell = Callable[[str, int], None]
"""Hears how far something is, in any thread: what it is at, and how many bytes are to be received in all, or 0."""


class Traffic:
    """Counts bytes, in any thread. `present` are those of a file to be received that were there from an earlier try."""

    def __init__(self) -> None:
        self.received = 0
        self.present = 0
        self.sent = 0
        self.files_sent = 0
        self._lock = threading.Lock()

    def receive(self, size: int) -> None:
        """Count bytes received."""
        with self._lock:
            self.received += size

    def find(self, size: int) -> None:
        """Count bytes that need not be sent, since they are there."""
        with self._lock:
            self.present += size

    def send(self, size: int) -> None:
        """Count bytes sent."""
        with self._lock:
            self.sent += size

    def end_file(self) -> None:
        """One more file has gone."""
        with self._lock:
            self.files_sent += 1


traffic = Traffic()
"""Of this process."""
