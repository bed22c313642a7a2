"""Count of bytes of files that this process has received and sent, for displays of progress."""

from __future__ import annotations

import threading
from collections.abc import Callable

Tell = Callable[[str, int], None]
"""Receives reports of progress, in any thread: the current work, and the total of bytes to receive, or 0."""


class Traffic:
    """Counts bytes, in any thread. `present` counts those that an earlier attempt had received."""

    def __init__(self) -> None:
        self.received = 0
        self.present = 0
        self.sent = 0
        self._lock = threading.Lock()

    def receive(self, size: int) -> None:
        """Count bytes received."""
        with self._lock:
            self.received += size

    def find(self, size: int) -> None:
        """Count bytes that an earlier attempt had received."""
        with self._lock:
            self.present += size

    def send(self, size: int) -> None:
        """Count bytes sent."""
        with self._lock:
            self.sent += size


traffic = Traffic()
"""Traffic of this process."""
