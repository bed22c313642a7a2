"""Thumbnails: a plot of two columns, an array as a picture, any picture in a white square."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crucible_lineage.server.ingest.formats.findings import THUMBNAIL_PX

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["heat", "plot", "square"]

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


def heat(array: Any) -> bytes | None:
    """A PNG of a two-dimensional array, dark at its lowest hundredth, light at its highest; None without Pillow."""
    try:
        # Optional: only thumbnails need Pillow; whoever has an array has numpy.
        import numpy as np
        from PIL import Image
    except ImportError:
        return None
    if array.ndim != 2 or 0 in array.shape:
        return None
    every = tuple(slice(None, None, max(1, size // (2 * THUMBNAIL_PX))) for size in array.shape)
    values = np.asarray(array[every], dtype="float64")
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = np.percentile(finite, [1, 99])
    if low == high:
        low, high = finite.min(), finite.max()
    with np.errstate(all="ignore"):
        scaled = (values / 2 - low / 2) / (high / 2 - low / 2) if high > low else np.zeros_like(values)
    grey = (np.clip(np.nan_to_num(scaled), 0, 1) * 255).astype("uint8")
    longest = max(grey.shape)
    size = tuple(max(round(part * THUMBNAIL_PX / longest), THUMBNAIL_PX // 2) for part in grey.shape[::-1])  # no strip
    return square(
        Image.fromarray(grey).resize(size, Image.Resampling.BOX if longest > THUMBNAIL_PX else Image.Resampling.NEAREST)
    )


def square(picture: Picture) -> bytes:
    """A PNG of the picture, whole and undistorted, in the middle of a white square."""
    from PIL import Image

    picture = picture.convert("RGBA")
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    canvas = Image.new("RGB", (THUMBNAIL_PX, THUMBNAIL_PX), "white")
    canvas.paste(picture, ((THUMBNAIL_PX - picture.width) // 2, (THUMBNAIL_PX - picture.height) // 2), picture)
    png = io.BytesIO()
    canvas.save(png, "PNG")
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
