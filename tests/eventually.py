"""Waiting for what happens elsewhere: the one loop that asks again, and whether a process has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def eventually(look: Callable[[], Any], seconds: float = 240, what: str = "it happens") -> Any:
    """Return the first value of `look()` that is true. Ask again, ever more rarely, until `seconds` are over."""
    end, pause_s = time.monotonic() + seconds, 0.02
    while not (found := look()):
        assert time.monotonic() < end, f"after {seconds:g} s still not: {what}"
        time.sleep(pause_s)
        pause_s = min(0.3, 1.5 * pause_s)
    return found


def has_ended(pid: int) -> bool:
    """Whether the process has ended, even if nobody has waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
