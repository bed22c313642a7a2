"""Tests of the processes of steps begin with none."""

from __future__ import annotations

import pytest

from tests import reused


@pytest.fixture(autouse=True)
def no_workers_of_earlier_tests() -> None:
    """What other tests have left is ended."""
    reused.end_workers()
