"""The built-in readers of files: what they state is modelled in full; of any other file they say nothing.

HDF5 links, arrays in other files and pickles are not followed. Libraries that only some files need are imported where
these files are read.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.server.database import JsonObject

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MAX_ENTRIES = 500  # chosen: names in one group of metadata; more are no description
MAX_VALUE_CHARACTERS = 2000
MAX_LIST_ITEMS = 100
MAX_JSON_BYTES = 4 << 20  # the limit of one resource's metadata
MAX_TABLE_BYTES = 16 << 20  # chosen: half a million rows
MAX_SCALAR_BYTES = 1 << 16
MAX_PIXELS = 100_000_000  # chosen: larger pictures are described, but get no thumbnail
THUMBNAIL_PX = 200  # width and height of the thumbnails that Crucible's own worker makes

_UNIT = re.compile(r".*\S\s*[(\[]\s*([^()\[\]]{1,20})\s*[)\]]")
_MISSING_CODE = re.compile(r"-9{3,}0*(\.9+)?|-9{2,}00|-99\.9+|-999\.25|9{4,}(\.9+)?|-?1e\+3\d|9\.96921e\+36")
# Only these, whatever the file's name: Pillow would start Ghostscript for what looks like EPS.
_PICTURES = ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP")
_BROKEN = (OSError, ValueError, SyntaxError, EOFError)  # what Pillow raises for malformed bytes


@dataclass(frozen=True)
class Found:
    """The findings of an ingestor: metadata for JSON, and a PNG."""

    metadata: JsonObject
    thumbnail: bytes | None = None


def read_json(path: Path) -> Found | None:
    """The document; of a list, only its length. None if it is no JSON or too large for metadata."""
    try:
        document = json.loads(_text(path, MAX_JSON_BYTES) or "", parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict):
        return Found(document)
    return Found({"json": {"items": len(document)}} if isinstance(document, list) else {})


def read_table(path: Path) -> Found | None:
    """Under `table`: columns with unit and range, of a header and rows with as many cells.

    Commas, semicolons or tabs lie between cells. Lines above that begin with `#` are skipped.
    """
    lines = (_text(path, MAX_TABLE_BYTES) or "").splitlines()
    above = next((at for at, line in enumerate(lines) if line and not line.startswith("#")), len(lines))
    for delimiter, name in ((",", "comma"), (";", "semicolon"), ("\t", "tab")):
        try:
            rows = [row for row in csv.reader(lines[above:], delimiter=delimiter, strict=True) if row]
        except csv.Error:
            continue
        if (table := _table(rows)) is not None:
            return Found({"table": {"delimiter": name, **table}})
    return None


def read_hdf5(path: Path) -> Found | None:
    """HDF5 and NeXus: attributes of the root; under `hdf5`, all attributes, single values, and shapes of arrays."""
    try:
        import h5py

        file = h5py.File(path, "r")
    except (ImportError, OSError):
        return None
    with file:
        root, nodes = _attributes(file), list[tuple[str, Any]]()
        file.visititems(lambda name, node: nodes.append((name, node)))  # no soft and no external links
        if len(nodes) > MAX_ENTRIES:
            return Found({**root, "hdf5": _unread(len(nodes), "object")})
        attributes = {name: found for name, node in nodes if (found := _attributes(node))}
        arrays = {name: node for name, node in nodes if isinstance(node, h5py.Dataset)}
        values: JsonObject = {}
        for name, node in arrays.items():
            lies_elsewhere = bool(node.external) or node.is_virtual  # its bytes are in other files
            if node.size == 1 and not lies_elsewhere and node.nbytes <= MAX_SCALAR_BYTES:
                # Not a missing filter, a reference, bytes that are not text.
                with suppress(OSError, TypeError, ValueError, KeyError):
                    values[name] = _of_hdf5(node[()])
        shapes = {name: {"shape": list(node.shape or ()), "dtype": str(node.dtype)} for name, node in arrays.items()}
    units = {name: found["units"] for name, found in attributes.items() if isinstance(found.get("units"), str)}
    shown = {name: {"value": value, "unit": units[name]} if name in units else value for name, value in values.items()}
    contents = {"attributes": attributes, **({"values": shown} if shown else {}), "datasets": shapes}
    return Found({**root, "hdf5": contents})


def read_image(path: Path) -> Found | None:
    """Under `image`: size and mode of a single frame; the picture, upright, unless it is huge or broken."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        return None
    Image.MAX_IMAGE_PIXELS = None  # `MAX_PIXELS` instead of a warning
    try:
        with Image.open(path, formats=_PICTURES) as image:
            described = {"width_px": image.width, "height_px": image.height, "mode": image.mode, "format": image.format}
            thumbnail = _thumbnail(image) if image.width * image.height <= MAX_PIXELS else None  # may shrink the image
            if (frames := getattr(image, "n_frames", 1)) > 1:
                return Found({"image": {"format": image.format, "frames": _unread(frames, "frame")}}, thumbnail)
    except (UnidentifiedImageError, *_BROKEN):
        return None
    return Found({"image": described}, thumbnail)


def _unread(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}, not summarised"


def _text(path: Path, most_bytes: int) -> str | None:
    """Return the text in a file; None for a binary or larger one."""
    if path.stat().st_size > most_bytes:
        return None
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace")
    if b"\0" in raw:
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:  # from an instrument on Windows
        return raw.decode("cp1252", "replace")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


def _table(rows: Sequence[Sequence[str]]) -> JsonObject | None:
    """Describe rows below a header; None unless all have as many cells, and the header has different words only."""
    if len(rows) < 2 or any(len(row) != len(rows[0]) for row in rows):
        return None
    names = [cell.strip() for cell in rows[0]]
    is_header = 1 < len(names) <= MAX_ENTRIES and all(names) and len(set(names)) == len(names)
    if not is_header or any(_number(name) is not None for name in names):
        return None
    if all(_number(cell) is None for cell in rows[1]):  # a list of words, such as a sentence with commas
        return None
    columns = [_column(name, [row[at] for row in rows[1:]]) for at, name in enumerate(names)]
    return {"rows": len(rows) - 1, "columns": columns}


def _column(name: str, cells: Sequence[str]) -> JsonObject:
    """Return name, unit and range; no range if a cell is no number, or an end looks like the code of a missing one."""
    values = [_number(cell) for cell in cells if cell.strip() and cell.strip().lower() != "nan"]
    numbers = [value for value in values if value is not None]
    match = _UNIT.fullmatch(name)
    described: JsonObject = {"name": name[:200]} | ({"unit": match[1].strip()} if match else {})
    if not numbers or len(numbers) < len(values):
        return described
    ends = {"min": min(numbers), "max": max(numbers)}
    return described if any(_MISSING_CODE.fullmatch(f"{end:g}") for end in ends.values()) else described | ends


def _attributes(node: Any) -> JsonObject:
    """Return the attributes of a node, without references and raw bytes."""
    result: JsonObject = {}
    for key in list(node.attrs)[:MAX_ENTRIES]:
        with suppress(OSError, TypeError, ValueError):  # a type that h5py cannot convert, bytes that are not text
            result[str(key)] = _of_hdf5(node.attrs[key])
    return result


def _of_hdf5(value: Any) -> Any:
    """Return a value as JSON: of a list of one its member, of what is long only the length, None for no number.

    Raises TypeError or ValueError for references and raw bytes.
    """
    if hasattr(value, "tolist"):
        if value.dtype.kind not in "iufbSUO":
            raise TypeError(value.dtype)
        value = value.tolist() if value.size <= MAX_LIST_ITEMS else f"{value.dtype} of {value.shape}"
    if isinstance(value, list):
        return _of_hdf5(value[0]) if len(value) == 1 else [_of_hdf5(item) for item in value]
    if isinstance(value, bytes):
        value = value.rstrip(b"\0").decode("utf-8")
    if isinstance(value, str):
        value = value.strip()
    if not isinstance(value, str | bool | int | float) or not re.fullmatch(r"[^\0-\x08\x0b-\x1f\x7f]*", str(value)):
        raise TypeError(type(value))
    if isinstance(value, str):
        return _unread(len(value), "character") if len(value) > MAX_VALUE_CHARACTERS else value
    return value if math.isfinite(value) else None


def _thumbnail(image: Picture) -> bytes | None:
    """Return a PNG of the complete picture, upright and undistorted, in a white square; None if it is truncated."""
    from PIL import Image, ImageOps

    try:
        image.draft("RGB", (THUMBNAIL_PX, THUMBNAIL_PX))  # JPEG decodes at a fraction of its size
        small = _eight_bits(image)
        small.thumbnail((2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX), Image.Resampling.BILINEAR)
        picture = ImageOps.exif_transpose(small).convert("RGBA")
    except _BROKEN:
        return None
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    canvas = Image.new("RGB", (THUMBNAIL_PX, THUMBNAIL_PX), "white")
    canvas.paste(picture, ((THUMBNAIL_PX - picture.width) // 2, (THUMBNAIL_PX - picture.height) // 2), picture)
    png = io.BytesIO()
    canvas.save(png, "PNG")
    return png.getvalue()


def _eight_bits(image: Picture) -> Picture:
    """Stretch detector counts, of 16 or more bits, from the lowest to the highest."""
    if not image.mode.startswith(("I", "F")):
        return image
    counts = image.convert("F")
    counts.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    low, high = counts.getextrema()
    scale = 255 / (high - low) if high > low else 0.0  # type: ignore[operator]
    return counts.point(lambda value: value * scale - low * scale).convert("L")  # type: ignore[operator]
