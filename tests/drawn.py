"""The pictures of README and docs as `make pictures` draws them, beside those that are stored."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

FILE = Path(__file__).parents[1] / "docs" / "pictures.py"


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_pictures", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


pictures = _loaded()


def assert_stored(drawn: Mapping[str, bytes]) -> None:
    """Fail if a picture shows something else than the stored one."""
    for name, content in drawn.items():
        stored = (pictures.IMAGES / name).read_bytes()
        is_current = pictures.compared(name, content) == pictures.compared(name, stored)
        assert is_current, f"{name} is not what is drawn now; draw it again: make pictures"
