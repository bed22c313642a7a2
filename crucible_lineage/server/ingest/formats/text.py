"""Text files: JSON documents, and tables with or without a header."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

from crucible_lineage.server.ingest.formats.findings import MAX_ENTRIES, Found, plain
from crucible_lineage.server.ingest.formats.plot import plot

__all__ = ["read_json", "read_table"]

MAX_TEXT_BYTES = 16 << 20  # chosen: the first half million rows of a longer table are enough to describe it
MAX_JSON_BYTES = 4 << 20  # what the metadata of one resource may hold
MAX_PLOTTED_POINTS = 20_000
BINARY_PROBE_BYTES = 4096

_PAIR = re.compile(r"\s*([A-Za-z][\w .()/%-]{0,80}?)\s*[:=]\s*(.+?)\s*")
_COMMENT = "#%;!"
_DELIMITER_NAMES = {"\t": "tab", ",": "comma", ";": "semicolon", None: "whitespace"}


def read_json(path: Path) -> Found | None:
    """The document itself; of a list only its length. None for what is no JSON or too large for metadata."""
    if path.stat().st_size > MAX_JSON_BYTES:
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict):
        return Found(document)
    return Found({"json": {"items": len(document)}} if isinstance(document, list) else {})


def read_table(path: Path) -> Found | None:
    """Columns with their range, a plot of the second over the first, and what comment lines say as `name: value`."""
    lines, whole = _lines(path)
    header, lines = _split(lines)
    table = _table(lines)
    if table is None:
        return Found(header) if header else None
    delimiter, names, rows = table
    columns = [(name, [row[index] for row in rows]) for index, name in enumerate(names)]
    described = {
        "rows": len(rows),
        "delimiter": _DELIMITER_NAMES[delimiter],
        "columns": [_column(name, cells) for name, cells in columns[:MAX_ENTRIES]],
        **({} if whole else {"read_bytes": MAX_TEXT_BYTES}),
    }
    return Found({**header, "table": described}, _plotted(columns))


def _lines(path: Path) -> tuple[list[str], bool]:
    """The file's lines as far as they are read, none of a binary file, and whether that is all of it."""
    with path.open("rb") as file:
        raw = file.read(BINARY_PROBE_BYTES)
        if b"\0" in raw and not raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            return [], True
        raw += file.read(MAX_TEXT_BYTES - len(raw))
        whole = not file.read(1)
    encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    lines = raw.decode(encoding, "replace").splitlines()
    return (lines if whole else lines[:-1]), whole


def _split(lines: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The pairs in the comment lines, and the lines of the table."""
    header: dict[str, Any] = {}
    table: list[str] = []
    for line in lines:
        stripped = line.strip(" \r\n")
        if not stripped.strip():
            continue
        if stripped[0] not in _COMMENT:
            table.append(stripped)
        elif (pair := _PAIR.fullmatch(stripped.lstrip(_COMMENT + " "))) and len(header) < MAX_ENTRIES:
            header[pair[1].strip()] = _value(pair[2])
    return header, table


def _table(lines: list[str]) -> tuple[str | None, list[str], list[list[str]]] | None:
    """Delimiter, column names and rows; None where the lines do not form at least two columns."""
    if not lines:
        return None
    delimiter = _delimiter(lines[:20])
    rows = [_cells(line, delimiter) for line in lines]
    names = [f"column_{number}" for number in range(1, len(rows[0]) + 1)]
    if not any(map(_is_number, rows[0])):
        names, rows = rows[0], rows[1:]
    rows = [row for row in rows if len(row) == len(names)]
    return (delimiter, names, rows) if rows and len(names) >= 2 else None


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
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
    except csv.Error:  # a cell longer than any table has
        return []


def _column(name: str, cells: list[str]) -> dict[str, Any]:
    numbers = [float(cell) for cell in cells if _is_number(cell)]
    described: dict[str, Any] = {"name": name[:200]}
    if numbers and len(numbers) == len(cells):
        described |= {"min": min(numbers), "max": max(numbers)}
    return described


def _plotted(columns: list[tuple[str, list[str]]]) -> bytes | None:
    """The second column of numbers over the first, thinned out evenly."""
    numeric = [(name, cells) for name, cells in columns[:MAX_ENTRIES] if all(map(_is_number, cells))]
    if len(numeric) < 2:
        return None
    (x_name, x), (y_name, y) = numeric[:2]
    every = math.ceil(len(x) / MAX_PLOTTED_POINTS)
    return plot([float(cell) for cell in x[::every]], [float(cell) for cell in y[::every]], f"{y_name} over {x_name}")


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _value(text: str) -> Any:
    if re.fullmatch(r"[+-]?\d{1,15}", text):
        return int(text)
    return float(text) if _is_number(text) else plain(text)
