"""Where a step is on its way, for whoever hears of the run in this process (news.py: in others)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["MADE", "STARTED", "hearing_phases", "is_heard", "phase_reached"]

STARTED, MADE = "started", "made"

_hearers: dict[str, Callable[[str, str], None]] = {}  # by run


@contextmanager
def hearing_phases(run_id: str, hear: Callable[[str, str], None]) -> Iterator[None]:
    """`hear` is told the step and its phase, in any thread, when a step of the run gets there in this process."""
    _hearers[run_id] = hear
    try:
        yield
    finally:
        del _hearers[run_id]


def is_heard(run_id: str) -> bool:
    """True if the run is under way in this process."""
    return run_id in _hearers


def phase_reached(run_id: str, step: str, phase: str) -> bool:
    """The step has got there. False if nobody hears of it in this process."""
    hear = _hearers.get(run_id)
    if hear:
        hear(step, phase)
    return hear is not None
