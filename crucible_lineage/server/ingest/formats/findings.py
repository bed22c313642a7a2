"""What an ingestor finds in a file: values that metadata can hold, when it was measured and how, and a thumbnail."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MAX_ENTRIES = 500  # chosen: names in one group of metadata; more describe nothing any more
MAX_VALUE_CHARACTERS = 2000
MAX_LIST_ITEMS = 100
THUMBNAIL_PX = 200  # width and height of the thumbnails that Crucible's own worker makes


# Times without a place for doubt: day and month cannot be taken for each other. A date alone is no moment.
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


FINER = 4  # drawn this much larger and scaled down, which smooths the line
LEFT, TOP, RIGHT, BOTTOM = 12, 8, 192, 178
LINE, FRAME, GRID, WORDS = "#1f6fb4", "#444444", "#e4e4e4", "#333333"
MAX_LABEL_CHARACTERS = 30


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


def acquired(facts: Mapping[str, object]) -> dict[str, str]:
    """`timestamp` and `instrument_name` where the facts say them, at the top or in a group of their own."""
    groups = list(_groups(facts))
    found = {"timestamp": _first(_time(group) for group in groups), "instrument_name": _instrument(groups)}
    return {name: value for name, value in found.items() if value}


def read_time(text: object, zone: str = "") -> str | None:
    """The moment that text names, as ISO 8601; None for what is no moment or could be two.

    A time without zone is that of this machine, which is mostly the instrument's.
    """
    text = " ".join(f"{text} {zone}".split())
    moment: datetime | None = None
    if _ISO.fullmatch(text):
        moment = _parsed(datetime.fromisoformat, text.replace(",", ".").replace(" +", "+").replace(" Z", "Z"))
    for form in (*_FORMS, *(f"{form} %z" for form in _FORMS)):
        moment = moment or _parsed(lambda value, form=form: datetime.strptime(value, form), text)
    try:
        return moment.astimezone().isoformat() if moment else None
    except (OverflowError, OSError, ValueError):  # a year that the system's calendar does not know
        return None


def _parsed(read: Any, text: str) -> datetime | None:
    try:
        found: datetime = read(text)
    except ValueError:
        return None
    return found


def _groups(facts: Mapping[str, object], depth: int = 2) -> Iterator[dict[str, Any]]:
    """The facts with their names in one spelling, and those of each group below."""
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
            if found := read_time(value) or (read_time(f"{value} {clock}") if isinstance(clock, str) else None):
                return found
    return None


def _instrument(groups: list[dict[str, Any]]) -> str | None:
    for group in groups:
        for name in _INSTRUMENTS:
            if isinstance(group.get(name), str) and group[name].strip():
                return str(group[name]).strip()
    for group in groups:
        made = [group.get(name) for name in ("manufacturer", "model")]
        if all(isinstance(part, str) and part.strip() for part in made):
            return " ".join(str(part).strip() for part in made)
    return None


def _first(values: Iterator[str | None]) -> str | None:
    return next((value for value in values if value), None)


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
