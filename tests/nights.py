"""What runs with CRUCIBLE_NIGHTLY=1 only: every variant, where a share of them runs by day."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TypeVar

import pytest

T = TypeVar("T")
NIGHTLY = bool(os.environ.get("CRUCIBLE_NIGHTLY"))


def by_night(reason: str) -> pytest.MarkDecorator:
    """Skip a test by day."""
    return pytest.mark.skipif(not NIGHTLY, reason=f"{reason}: CRUCIBLE_NIGHTLY=1")


def share(variants: Collection[T], step: int) -> list[T]:
    """Return every `step`-th of the variants by day, all by night."""
    return list(variants)[:: 1 if NIGHTLY else step]
