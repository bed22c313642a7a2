"""Tests of step processes begin without workers."""

from __future__ import annotations

import pytest

from tests import reused


@pytest.fixture(autouse=True)
def no_workers_of_earlier_tests() -> None:
    """End the workers that other tests have left."""
    reused.end_workers()
