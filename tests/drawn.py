"""The pictures of README and docs as `make pictures` draws them, beside those that are stored."""

from __future__ import annotations

import importlib.util
import re
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


NUMBER = re.compile(r"-?\d+\.\d+")


def assert_stored(drawn: Mapping[str, bytes]) -> None:
    """Fail if a picture shows something else than the stored one; sums of lengths depend on the version of Python."""
    for name, content in drawn.items():
        stored = (pictures.IMAGES / name).read_bytes()
        now, then = (pictures.compared(name, picture) for picture in (content, stored))
        lengths = zip(NUMBER.findall(now), NUMBER.findall(then), strict=False)
        is_current = NUMBER.sub("#", now) == NUMBER.sub("#", then) and all(
            abs(float(length) - float(before)) < 0.2 for length, before in lengths
        )
        assert is_current, f"{name} is not what is drawn now; draw it again: make pictures"
