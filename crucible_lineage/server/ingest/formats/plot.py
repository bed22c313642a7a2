"""A small plot of two columns, drawn line by line."""

from __future__ import annotations

import io
from collections.abc import Sequence

from crucible_lineage.server.ingest.formats.findings import THUMBNAIL_PX

__all__ = ["plot"]

FINER = 4  # drawn this much larger and scaled down, which smooths the line
LEFT, TOP, RIGHT, BOTTOM = 12, 8, 192, 178
LINE, FRAME, GRID, WORDS = "#1f6fb4", "#444444", "#e4e4e4", "#333333"
MAX_LABEL_CHARACTERS = 30


def plot(x: Sequence[float], y: Sequence[float], label: str) -> bytes | None:
    """A PNG of the line through the points in a frame with `label` below; None without Pillow or with one point."""
    try:
        # Optional: only thumbnails need it.
        from PIL import Image, ImageDraw
    except ImportError:
        return None
    if len(x) < 2:
        return None
    image = Image.new("RGB", (THUMBNAIL_PX * FINER, THUMBNAIL_PX * FINER), "white")
    draw = ImageDraw.Draw(image)
    for part in (1, 2, 3):
        across = LEFT + (RIGHT - LEFT) * part / 4
        down = TOP + (BOTTOM - TOP) * part / 4
        draw.line(_finer([(across, TOP), (across, BOTTOM)]), GRID, FINER)
        draw.line(_finer([(LEFT, down), (RIGHT, down)]), GRID, FINER)
    points = _finer(list(zip(_placed(x, LEFT + 3, RIGHT - 3), _placed(y, BOTTOM - 6, TOP + 6), strict=True)))
    draw.line(points, LINE, round(1.5 * FINER), joint="curve")
    draw.rectangle(_finer([(LEFT, TOP), (RIGHT, BOTTOM)]), outline=FRAME, width=FINER)
    small = image.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    shown = label if len(label) <= MAX_LABEL_CHARACTERS else label[: MAX_LABEL_CHARACTERS - 1] + "…"
    ImageDraw.Draw(small).text((THUMBNAIL_PX / 2, 189), shown, WORDS, anchor="mm")
    png = io.BytesIO()
    small.save(png, "PNG")
    return png.getvalue()


def _placed(values: Sequence[float], first: float, last: float) -> list[float]:
    """The values on the way from pixel `first` (the lowest) to `last`; all in the middle if they are one value."""
    low, high = min(values), max(values)
    if low == high:
        return [(first + last) / 2] * len(values)
    half = high / 2 - low / 2  # halves, because the whole span may be more than a number can hold
    return [first + (last - first) * (value / 2 - low / 2) / half for value in values]


def _finer(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x * FINER, y * FINER) for x, y in points]
