"""Shared fixtures of the tests that judge remaking."""

from __future__ import annotations

from typing import Any

import pytest

from tests.remake import judging as judges
from tests.warm import WarmPython


@pytest.fixture(scope="session")
def judging(warm_python: WarmPython) -> Any:
    """Provide the module judging.py, beside this file."""
    judges.python = warm_python
    return judges
