"""What can be read out of a file: one ingestor per kind, tried from the most to the least specific."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["INGESTORS", "INGESTOR_NAMES", "Found", "ingest"]

MAX_TEXT_BYTES = 16 << 20  # chosen: the header and the first rows of longer tables are enough to describe them
MAX_JSON_BYTES = 4 << 20  # what the metadata of one resource may hold
MAX_ATTRIBUTES = 500
MAX_VALUE_CHARACTERS = 2000


@dataclass(frozen=True)
class Found:
    """What an ingestor found in a file."""

    metadata: dict[str, Any]
    thumbnail: bytes | None = None
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ingestor:
    """`read` gives None for a file that is not of its kind after all."""

    name: str
    suffixes: frozenset[str]
    read: Callable[[Path], Found | None]


def ingest(path: Path, filename: str, wanted: str | None) -> tuple[str | None, Found]:
    """The name of the ingestor that could read the file with what it found, or None with nothing."""
    suffix = Path(filename).suffix.lower()
    fitting = [ingestor for ingestor in INGESTORS if suffix in ingestor.suffixes]
    for ingestor in sorted(fitting, key=lambda ingestor: ingestor.name != wanted):
        found = ingestor.read(path)
        if found is not None:
            return ingestor.name, found
    return None, Found({})


def _read_hdf5(path: Path) -> Found | None:
    try:
        # Optional: large, and most installations never see an HDF5 file.
        import h5py  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    attributes: dict[str, Any] = {}
    arrays: dict[str, Any] = {}

    def note(name: str, node: Any) -> None:
        if len(attributes) < MAX_ATTRIBUTES:
            values = {key: _plain(value) for key, value in node.attrs.items()}
            if values:
                attributes[name] = values
        if hasattr(node, "shape") and len(arrays) < MAX_ATTRIBUTES:
            arrays[name] = {"shape": list(node.shape), "dtype": str(node.dtype)}

    try:
        with h5py.File(path, "r") as file:
            root = {key: _plain(value) for key, value in file.attrs.items()}
            file.visititems(note)
    except OSError:
        return None
    return Found({**root, "hdf5": {"attributes": attributes, "datasets": arrays}})


def _read_image(path: Path) -> Found | None:
    try:
        # Optional: comes with the demo's plotting, and only images need it.
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        return None
    try:
        with Image.open(path) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:  # type: ignore[operator]
                return None
            described = {
                "width_px": image.width,
                "height_px": image.height,
                "mode": image.mode,
                "format": image.format,
                "frames": getattr(image, "n_frames", 1),
            }
            picture = image.convert("RGB")
            picture.thumbnail((200, 200))
            canvas = Image.new("RGB", (200, 200), "white")
            canvas.paste(picture, ((200 - picture.width) // 2, (200 - picture.height) // 2))
            bytes_ = io.BytesIO()
            canvas.save(bytes_, "PNG")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return None
    return Found({"image": described}, bytes_.getvalue())


def _read_json(path: Path) -> Found | None:
    if path.stat().st_size > MAX_JSON_BYTES:
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict):
        return Found(document)
    return Found({"json": {"items": len(document)}} if isinstance(document, list) else {})


def _read_table(path: Path) -> Found | None:
    """Columns with their range, and what the comment lines above them say as `name: value`."""
    with path.open("rb") as file:
        raw = file.read(MAX_TEXT_BYTES)
    if b"\0" in raw[:4096]:
        return None
    text = raw.decode("utf-8-sig", "replace")
    header, lines = _split(text.splitlines())
    if not lines:
        return Found(header) if header else None
    delimiter = _delimiter(lines[:20])
    rows = [_cells(line, delimiter) for line in lines]
    names = None
    if not all(_is_number(cell) for cell in rows[0]):
        names, rows = rows[0], rows[1:]
    width = len(names or rows[0]) if names or rows else 0
    rows = [row for row in rows if len(row) == width]
    if not rows or width < 2:
        return Found(header) if header else None
    columns = names or [f"column_{number}" for number in range(1, width + 1)]
    table = {
        "rows": len(rows),
        "columns": [_column(name, [row[index] for row in rows]) for index, name in enumerate(columns)],
    }
    return Found({**header, "table": table})


INGESTORS: tuple[Ingestor, ...] = (
    Ingestor("H5Ingestor", frozenset({".h5", ".hdf5", ".hdf", ".he5", ".nxs"}), _read_hdf5),
    Ingestor(
        "ImageIngestor", frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".webp"}), _read_image
    ),
    Ingestor("JsonIngestor", frozenset({".json"}), _read_json),
    Ingestor("DelimitedTextIngestor", frozenset({".csv", ".tsv", ".txt", ".dat", ".xy", ".asc"}), _read_table),
)
INGESTOR_NAMES = tuple(ingestor.name for ingestor in INGESTORS)

_PAIR = re.compile(r"\s*([A-Za-z][\w .()/%-]{0,80}?)\s*[:=]\s*(.+?)\s*")


def _split(lines: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The pairs in the leading comment lines, and the lines of the table."""
    header: dict[str, Any] = {}
    table: list[str] = []
    for line in lines:
        stripped = line.strip()
        if not stripped:
            continue
        if stripped[0] in "#%;!":
            pair = _PAIR.fullmatch(stripped.lstrip("#%;! "))
            if pair and len(header) < MAX_ATTRIBUTES:
                header[pair[1].strip()] = _value(pair[2])
        else:
            table.append(stripped)
    return header, table


def _delimiter(lines: list[str]) -> str | None:
    """The character that splits all these lines alike; None for any run of blanks."""
    for character in ("\t", ",", ";"):
        counts = {line.count(character) for line in lines}
        if len(counts) == 1 and counts != {0}:
            return character
    return None


def _cells(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]


def _column(name: str, cells: list[str]) -> dict[str, Any]:
    numbers = [float(cell) for cell in cells if _is_number(cell)]
    described: dict[str, Any] = {"name": name[:200]}
    if numbers and len(numbers) == len(cells):
        described |= {"min": min(numbers), "max": max(numbers)}
    return described


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _value(text: str) -> Any:
    text = text[:MAX_VALUE_CHARACTERS]
    if _is_number(text):
        number = float(text)
        return int(text) if re.fullmatch(r"[+-]?\d{1,15}", text) else number
    return text


def _plain(value: Any) -> Any:
    """An HDF5 attribute as JSON can hold it."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if hasattr(value, "tolist"):
        value = value.tolist() if getattr(value, "size", 1) <= 100 else str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value[:MAX_VALUE_CHARACTERS] if isinstance(value, str) else value
    return str(value)[:MAX_VALUE_CHARACTERS]
