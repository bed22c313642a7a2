"""What an ingestor finds in a file, and how foreign values become what metadata can hold."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MAX_ENTRIES", "THUMBNAIL_PX", "Found", "plain"]

MAX_ENTRIES = 500  # chosen: names in one group of metadata; more describe nothing any more
MAX_VALUE_CHARACTERS = 2000
MAX_LIST_ITEMS = 100
THUMBNAIL_PX = 200  # width and height of the thumbnails that Crucible's own worker makes


@dataclass(frozen=True)
class Found:
    """What an ingestor found in a file: metadata as JSON can hold it, a PNG, and fields of the dataset to fill in."""

    metadata: dict[str, Any]
    thumbnail: bytes | None = None
    attributes: dict[str, str] = field(default_factory=dict)


def plain(value: Any) -> Any:
    """A value of a file's format as JSON can hold it, cut to a sensible length; None for NaN and its like."""
    if hasattr(value, "tolist"):
        value = value.tolist() if getattr(value, "size", 1) <= MAX_LIST_ITEMS else f"{value.dtype} of {value.shape}"
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value.rstrip("\0")[:MAX_VALUE_CHARACTERS]
    if isinstance(value, list | tuple):
        return [plain(item) for item in value[:MAX_LIST_ITEMS]]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in list(value.items())[:MAX_ENTRIES]}
    if value is None or isinstance(value, bool | int):
        return value
    try:
        number = float(value)  # also fractions, as pictures have them
    except (TypeError, ValueError, ZeroDivisionError):
        return str(value)[:MAX_VALUE_CHARACTERS]
    return number if math.isfinite(number) else None
