"""The weights of the smoothing."""

from __future__ import annotations

MIDDLE = 0.5


def triple() -> tuple[float, float, float]:
    """Return the weights of the left neighbour, the value, and the right neighbour."""
    side = (1 - MIDDLE) / 2
    return side, MIDDLE, side
