"""What an ingestor finds in a file: metadata, the time and instrument of the measurement, and a thumbnail."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from crucible_lineage.server.database import JsonObject, stored_time

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MAX_ENTRIES = 500  # chosen: names in one group of metadata; more are no description
MAX_VALUE_CHARACTERS = 2000
MAX_LIST_ITEMS = 100
THUMBNAIL_PX = 200  # width and height of the thumbnails that Crucible's own worker makes


# Unambiguous forms of times: day and month cannot be confused. A date alone is not enough.
_FORMS = (
    "%a %b %d %H:%M:%S %Y",  # Mon Jun 04 14:15:57 2012, as C and SPEC write it
    "%d-%b-%Y %H:%M:%S",
    "%d-%b-%Y %H:%M",
    "%d %b %Y %H:%M:%S",
    "%d %B %Y %H:%M:%S",
    "%b %d, %Y %H:%M:%S",
    "%B %d, %Y %H:%M:%S",
    "%Y/%m/%d %H:%M:%S",
    "%Y:%m:%d %H:%M:%S",  # as EXIF writes it
)
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d+)?)? ?(Z|[+-]\d\d:?\d\d)?")
_TIMES = (
    "start_time", "start", "timestamp", "date_time", "datetime", "acquisition_time", "acquisition_date", "acquired",
    "measured", "measurement_time", "measurement_date", "collected", "date", "time_of_measurement",
)  # fmt: skip
_INSTRUMENTS = ("instrument", "instrument_name", "instrument_model", "spectrometer", "microscope", "diffractometer")


OVERSAMPLING = 4  # factor by which plots are drawn larger and then scaled down, which smooths lines
LEFT, TOP, RIGHT, BOTTOM = 12, 8, 192, 178
LINE, FRAME, GRID, LABEL = "#1f6fb4", "#444444", "#e4e4e4", "#333333"
MAX_LABEL_CHARACTERS = 30


@dataclass(frozen=True)
class Found:
    """The findings of an ingestor: metadata for JSON, a PNG, and fields of the dataset to fill in."""

    metadata: JsonObject
    thumbnail: bytes | None = None
    attributes: dict[str, str] = field(default_factory=dict)


def plain(value: Any) -> Any:
    """Convert a value of a file format to JSON, cut to a sensible length; NaN and infinities become None."""
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


def acquired(facts: Mapping[str, object]) -> dict[str, str]:
    """Return `timestamp` and `instrument_name` if the facts contain them, at the top or in a group."""
    groups = list(_groups(facts))
    return given(timestamp=next(filter(None, map(_time, groups)), None), instrument_name=_instrument(groups))


def given(**fields: object) -> dict[str, str]:
    """Return the fields that have a value, as text."""
    return {name: str(value) for name, value in fields.items() if value}


def read_time(text: object, zone: str = "") -> str | None:
    """Parse a time and return it as ISO 8601; None for text that is no time or is ambiguous.

    A time without a zone is taken to be in this machine's zone, which is usually the instrument's.
    """
    text = " ".join(f"{text} {zone}".split())
    moment: datetime | None = None
    if _ISO.fullmatch(text):
        moment = _parsed(datetime.fromisoformat, text.replace(",", ".").replace(" +", "+").replace(" Z", "Z"))
    for form in (*_FORMS, *(f"{form} %z" for form in _FORMS)):
        moment = moment or _parsed(lambda value, form=form: datetime.strptime(value, form), text)
    if moment is None:
        return None
    try:
        stored_time(local := moment.astimezone().isoformat())
    except (OverflowError, OSError, ValueError):  # such as the year 1, where no time is set
        return None
    return local


def _parsed(read: Any, text: str) -> datetime | None:
    try:
        moment: datetime = read(text)
    except ValueError:
        return None
    return moment


def _groups(facts: Mapping[str, object], depth: int = 2) -> Iterator[JsonObject]:
    """Yield the facts with normalized names, then those of each group below."""
    yield {re.sub(r"[\W_]+", "_", name).strip("_").lower(): value for name, value in facts.items()}
    if depth:
        for value in facts.values():
            if isinstance(value, Mapping):
                yield from _groups(value, depth - 1)


def _time(group: Mapping[str, object]) -> str | None:
    for name in _TIMES:
        value = group.get(name)
        if isinstance(value, str):
            clock = group.get("time") if name == "date" else None
            if moment := read_time(value) or (read_time(f"{value} {clock}") if isinstance(clock, str) else None):
                return moment
    return None


def _instrument(groups: list[JsonObject]) -> str | None:
    for group in groups:
        for name in _INSTRUMENTS:
            if isinstance(group.get(name), str) and group[name].strip():
                return str(group[name]).strip()
    for group in groups:
        maker_and_model = [group.get(name) for name in ("manufacturer", "model")]
        if all(isinstance(part, str) and part.strip() for part in maker_and_model):
            return " ".join(str(part).strip() for part in maker_and_model)
    return None


def plot(x: Sequence[float], y: Sequence[float], label: str) -> bytes | None:
    """Draw a PNG of the line through the points, with `label` below; None without Pillow or for a single point."""
    try:
        # Optional: only thumbnails need it.
        from PIL import Image, ImageDraw
    except ImportError:
        return None
    if len(x) < 2:
        return None
    image = Image.new("RGB", (THUMBNAIL_PX * OVERSAMPLING, THUMBNAIL_PX * OVERSAMPLING), "white")
    draw = ImageDraw.Draw(image)
    for quarter in (1, 2, 3):
        grid_x = LEFT + (RIGHT - LEFT) * quarter / 4
        grid_y = TOP + (BOTTOM - TOP) * quarter / 4
        draw.line(_scaled_up([(grid_x, TOP), (grid_x, BOTTOM)]), GRID, OVERSAMPLING)
        draw.line(_scaled_up([(LEFT, grid_y), (RIGHT, grid_y)]), GRID, OVERSAMPLING)
    points = _scaled_up(list(zip(_to_pixels(x, LEFT + 3, RIGHT - 3), _to_pixels(y, BOTTOM - 6, TOP + 6), strict=True)))
    draw.line(points, LINE, round(1.5 * OVERSAMPLING), joint="curve")
    draw.rectangle(_scaled_up([(LEFT, TOP), (RIGHT, BOTTOM)]), outline=FRAME, width=OVERSAMPLING)
    small = image.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    shown = label if len(label) <= MAX_LABEL_CHARACTERS else label[: MAX_LABEL_CHARACTERS - 1] + "…"
    ImageDraw.Draw(small).text((THUMBNAIL_PX / 2, 189), shown, LABEL, anchor="mm")
    png = io.BytesIO()
    small.save(png, "PNG")
    return png.getvalue()


def heat(array: Any) -> bytes | None:
    """Draw a PNG of a two-dimensional array, from dark (1st percentile) to light (99th); None without Pillow."""
    try:
        # Optional: only thumbnails need Pillow; arrays imply numpy.
        import numpy as np
        from PIL import Image
    except ImportError:
        return None
    if array.ndim != 2 or 0 in array.shape:
        return None
    sampled = tuple(slice(None, None, max(1, size // (2 * THUMBNAIL_PX))) for size in array.shape)
    values = np.asarray(array[sampled], dtype="float64")
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
    # At least half as wide as the thumbnail: never a thin strip.
    size = tuple(max(round(part * THUMBNAIL_PX / longest), THUMBNAIL_PX // 2) for part in grey.shape[::-1])
    return square(
        Image.fromarray(grey).resize(size, Image.Resampling.BOX if longest > THUMBNAIL_PX else Image.Resampling.NEAREST)
    )


def square(picture: Picture) -> bytes:
    """Return a PNG of the complete, undistorted picture in the middle of a white square."""
    from PIL import Image

    picture = picture.convert("RGBA")
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    canvas = Image.new("RGB", (THUMBNAIL_PX, THUMBNAIL_PX), "white")
    canvas.paste(picture, ((THUMBNAIL_PX - picture.width) // 2, (THUMBNAIL_PX - picture.height) // 2), picture)
    png = io.BytesIO()
    canvas.save(png, "PNG")
    return png.getvalue()


def _to_pixels(values: Sequence[float], first: float, last: float) -> list[float]:
    """Map the values to pixels from `first` (the lowest) to `last`; equal values all go to the middle."""
    low, high = min(values), max(values)
    if low == high:
        return [(first + last) / 2] * len(values)
    half = high / 2 - low / 2  # halves, because the full span may overflow
    return [first + (last - first) * (value / 2 - low / 2) / half for value in values]


def _scaled_up(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points]
