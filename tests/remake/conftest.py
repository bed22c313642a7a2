"""Shared fixtures of the tests that judge remaking."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.warm import WarmPython


@pytest.fixture(scope="session")
def judging(warm_python: WarmPython) -> Any:
    """Provide the module judging.py, beside this file."""
    spec = importlib.util.spec_from_file_location("judging", Path(__file__).with_name("judging.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.python = warm_python
    return module
