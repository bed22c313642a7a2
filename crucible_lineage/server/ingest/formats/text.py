"""Text files and workbooks: JSON documents, tables with their preambles, and tables as CDS describes them."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path

from crucible_lineage.server.database import JsonObject
from crucible_lineage.server.ingest.formats.findings import MAX_ENTRIES, Found, acquired, plot
from crucible_lineage.server.ingest.formats.tables import (
    TextTable,
    describe_table,
    describe_wrapped,
    find_table,
    fits,
    is_wrapped,
    number,
    pairs,
    unambiguous_number,
)

MAX_TEXT_BYTES = 16 << 20  # chosen: the first half million rows of a longer table are enough to describe it
MAX_JSON_BYTES = 4 << 20  # the limit of one resource's metadata
MAX_PLOTTED_POINTS = 20_000
BINARY_PROBE_BYTES = 4096
SAMPLED_LINES, SAMPLED_CHARACTERS = 200, 100_000  # chosen: enough to recognize how cells are separated
LEAST_SETTINGS = 3  # chosen: in a file of settings, at least one line in as many is one
MAX_CELLS = 10_000  # chosen: longer rows do not belong to tables

STRAIGHT_POINTS = 20  # chosen: fewer may lie on a line by chance
# chosen: how much the slopes of an axis differ from their mean, and from one to the next
MAX_BEND, MAX_JITTER = 0.3, 0.02
_COMMENT = "#%;!'"
_PAIR = re.compile(r"([A-Za-z][\w .()/%-]{0,80}?)\s*[:=]\s*(.+?)")
_SPEC = re.compile(r"#([A-Z])\d* (.+)")


MAX_BYTES = 64 << 20  # chosen: longer texts of an instrument are rare
UTF16 = (b"\xff\xfe", b"\xfe\xff")
_MARK = "Byte-by-byte Description of file"
_RULE = re.compile(r"[-=]{20,}\s*")
_COLUMN = re.compile(r"\s*(?:(\d+)\s*-\s*)?(\d+)\s+([AIFED]\d+(?:\.\d+)?)\s+(\S+)\s+(\S+)(?:\s+(.*))?")
_TITLE_FIELD = re.compile(r"(Title|Authors?|Table):\s*(.*)")


MAX_SHEETS = 50
MAX_FILE_BYTES = 64 << 20


@dataclass(frozen=True)
class Dialect:
    """The separator of cells (None: any whitespace), and the decimal separator."""

    delimiter: str | None
    decimal: str = "."

    @property
    def name(self) -> str:
        return {"\t": "tab", ",": "comma", ";": "semicolon", None: "whitespace"}[self.delimiter]


# If two fit a file equally well, the earlier one is used.
_DIALECTS = tuple(
    Dialect(delimiter, decimal) for decimal in ".," for delimiter in ("\t", ";", ",", None) if delimiter != decimal
)


def read_json(path: Path) -> Found | None:
    """The document; of a list, only its length. None if it is no JSON or too large for metadata."""
    try:
        document = json.loads(read_text(path, MAX_JSON_BYTES) or "", parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict):
        return Found(document, None, acquired(document))
    return Found({"json": {"items": len(document)}} if isinstance(document, list) else {})


def read_table(path: Path) -> Found | None:
    """Under `table`: columns with unit and range; names with values above the table; a plot of the first two."""
    lines, is_complete = _lines(path)
    dialect = _dialect(lines)
    rows = [_cells(line, dialect) for line in lines]
    table = find_table(rows, dialect.decimal)
    table = table and _named_by_comment(lines, table)
    above = lines if table is None else [*lines[: table.above], *lines[table.end :]]
    facts = _facts(above, dialect)
    if table is None:
        return Found(facts, None, acquired(facts)) if facts and not _is_prose(lines, facts) else None
    if is_wrapped(rows, table):
        return Found({**facts, "counts": describe_wrapped(rows, table)}, None, acquired(facts))
    description = describe_table(rows, table, dialect.decimal)
    description = {"rows": description["rows"], "delimiter": dialect.name, **description}
    if dialect.decimal != ".":
        description["decimal"] = "comma"
    if not is_complete:
        description["read_bytes"] = MAX_TEXT_BYTES
    return Found({**facts, "table": description}, plot_columns(rows, table, dialect.decimal), acquired(facts))


def _is_prose(lines: Sequence[str], facts: Mapping[str, object]) -> bool:
    """Return whether a text without a table has few settings; what looks like one is then part of a sentence."""
    settings = sum(len(fact) if isinstance(fact, Mapping) and "value" not in fact else 1 for fact in facts.values())
    return settings < MAX_ENTRIES // 2 and settings * LEAST_SETTINGS < sum(
        bool(line.strip(_COMMENT + " ")) for line in lines
    )


def plot_columns(rows: Sequence[Sequence[str]], table: TextTable, decimal: str = ".") -> bytes | None:
    """Plot the next column of numbers over the first, thinned out evenly; None if the first has no numbers."""
    step = math.ceil((table.end - table.first) / MAX_PLOTTED_POINTS)
    columns: list[tuple[str, list[float | None]]] = []
    for index, name in enumerate(table.names[:MAX_ENTRIES]):
        values = [unambiguous_number(row[index], decimal) for row in rows[table.first : table.end : step]]
        if sum(value is not None for value in values) * 2 > len(values):
            if len(columns) == 1 and _is_straight(columns[0][1], values):
                columns.pop()  # such as wavelengths over pixels: the same axis again
            columns.append((name, values))
        elif not columns:
            return None
        if len(columns) == 2:
            break
    else:
        return None
    (x_name, x), (y_name, y) = columns
    points = [(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None]
    return plot([a for a, _ in points], [b for _, b in points], f"{y_name} over {x_name}")


def _is_straight(x: Sequence[float | None], y: Sequence[float | None]) -> bool:
    """Return whether y is nearly a linear function of x, and thus another axis, not a measurement."""
    points = [(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None]
    if len(points) < STRAIGHT_POINTS:
        return False
    (x0, y0), (x1, y1) = points[0], points[-1]
    steps = [(b - a, d - c) for (a, c), (b, d) in pairwise(points)]
    if x1 == x0 or y1 == y0 or any(across == 0 for across, _ in steps):
        return False
    slopes = [up / across for across, up in steps]
    mean = (y1 - y0) / (x1 - x0)
    bends = [abs(after - before) for before, after in pairwise(slopes)]
    return all(abs(slope / mean - 1) < MAX_BEND for slope in slopes) and max(bends) < abs(mean) * MAX_JITTER


def _lines(path: Path) -> tuple[list[str], bool]:
    """Return the lines read from the file, none for a binary file, and whether they are all of its lines."""
    with path.open("rb") as file:
        raw = file.read(BINARY_PROBE_BYTES)
        if _is_binary(raw):
            return [], True
        raw += file.read(MAX_TEXT_BYTES - len(raw))
        is_complete = not file.read(1)
    lines = _decode(raw).splitlines()
    return [line.rstrip() for line in (lines if is_complete else lines[:-1])], is_complete


def read_text(path: Path, most_bytes: int = MAX_BYTES) -> str | None:
    """Return the text in a file; None for a binary or longer one."""
    if path.stat().st_size > most_bytes:
        return None
    raw = path.read_bytes()
    return None if _is_binary(raw[:BINARY_PROBE_BYTES]) else _decode(raw)


def _is_binary(raw: bytes) -> bool:
    return b"\0" in raw and not raw.startswith(UTF16)


def _decode(raw: bytes) -> str:
    if raw.startswith(UTF16):
        return raw.decode("utf-16", "replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The last character may be truncated; anything else comes from an instrument on Windows.
        return raw.decode("utf-8-sig", "ignore") if error.start > len(raw) - 4 else raw.decode("cp1252", "replace")


def _dialect(lines: Sequence[str]) -> Dialect:
    """Return the dialect in which a sample of lines, evenly spread over the file, has the most numbers."""
    content = [line for line in lines if line.strip() and line.strip()[0] not in _COMMENT]
    characters = sum(map(len, content))
    sample = content[:: max(1, len(content) // SAMPLED_LINES, characters // SAMPLED_CHARACTERS)]

    def numbers(dialect: Dialect) -> tuple[int, int]:
        """Count the numbers in purely numeric rows, and in all rows if cells have a separator other than blanks."""
        rows = [row for line in sample if len(row := _cells(line, dialect)) >= 2]
        pure = sum(len(row) for row in rows if all(fits(cell, dialect.decimal) for cell in row))
        total = sum(number(cell, dialect.decimal) is not None for row in rows for cell in row)
        return pure, total if dialect.delimiter else 0

    return max(_DIALECTS, key=numbers)


def _cells(line: str, dialect: Dialect) -> list[str]:
    stripped = line.strip(" \r\n")
    if not stripped or stripped[0] in _COMMENT:
        return []
    if dialect.delimiter is None:
        return stripped.split(None, MAX_CELLS)
    if stripped.count(dialect.delimiter) > MAX_CELLS:
        return []
    if '"' not in stripped:
        return [cell.strip() for cell in stripped.split(dialect.delimiter)]
    try:
        return [cell.strip() for cell in next(csv.reader([stripped], delimiter=dialect.delimiter))]
    except csv.Error:  # a cell longer than in any table
        return []


def _named_by_comment(lines: Sequence[str], table: TextTable) -> TextTable:
    """Name the columns by the comment right above the table, if it has one word or group of words for each."""
    if table.is_named or table.first == 0:
        return table
    line = lines[table.first - 1].strip()
    if not line or line[0] not in _COMMENT:
        return table
    text = line[3:] if line.startswith("#L ") else line.lstrip(_COMMENT + " ")
    for parts in (re.split(r"\s{2,}|\t", text.strip()), text.split(), [part.strip() for part in text.split(",")]):
        if len(parts) == len(table.names) and all(re.search(r"[A-Za-z]", part) for part in parts):
            units = [match[1] if (match := re.search(r"[(\[]([^()\[\]]+)[)\]]$", part)) else None for part in parts]
            return TextTable(table.first, table.end, tuple(parts), tuple(units), table.above)
    return table


def _facts(lines: Sequence[str], dialect: Dialect) -> JsonObject:
    """Read the settings in the lines outside the table."""
    usable = [line for index, line in enumerate(lines) if not _is_torn(lines, index)]
    return pairs([row for line in usable if (row := _setting_cells(line, dialect))], dialect.decimal)


def _is_torn(lines: Sequence[str], index: int) -> bool:
    """Return whether a line is part of a sentence that only looks like a name with a value, or is markup."""
    neighbours = [
        lines[at].strip().lstrip(_COMMENT + " ") if 0 <= at < len(lines) else "" for at in (index - 1, index, index + 1)
    ]
    before, line, after = neighbours
    if line.startswith("<") and line.rstrip().endswith(">"):
        return True
    match = _PAIR.fullmatch(line)
    if not match or not re.search(r"[A-Za-z]{2}", match[2]):
        return False
    continues = after[:1].islower() and not _PAIR.fullmatch(after) and " " in after
    continued = (
        line[:1].islower() and before[:1].isalpha() and not _PAIR.fullmatch(before) and before[-1:] not in ".:;)"
    )
    return (continues and " " in match[2]) or (continued and " " in before)


def _setting_cells(line: str, dialect: Dialect) -> list[str]:
    """Return a line as name and value, or as the cells of such a row."""
    stripped = line.strip()
    if match := _SPEC.fullmatch(stripped):  # a line marked by SPEC
        names = {"D": "date", "F": "file", "S": "scan"}
        return [names[match[1]], match[2]] if match[1] in names else []
    if re.fullmatch(r"sep=.", stripped):  # the separator of cells, for spreadsheets
        return []
    bare = stripped.lstrip(_COMMENT + " ")
    if (match := _PAIR.fullmatch(bare)) and not (dialect.delimiter and dialect.delimiter in match[1]):
        return [match[1], match[2]]
    if stripped[:1] in _COMMENT:
        return []
    cells = re.split(r"\t", stripped) if "\t" in stripped else _cells(line, dialect)
    return cells if dialect.delimiter is not None or "\t" in stripped else []


def read_cds(path: Path) -> Found | None:
    """Under `cds` (byte-by-byte description): title, authors, columns with unit and range. None for other files."""
    lines = (read_text(path) or "").splitlines()
    marks = [at for at, line in enumerate(lines) if line.startswith(_MARK)]
    if len(marks) != 1:  # with several files, the rows are ambiguous
        return None
    (mark,) = marks
    rules = [at for at in range(mark, len(lines)) if _RULE.fullmatch(lines[at])]
    if len(rules) < 3:
        return None
    columns = [match for line in lines[rules[1] + 1 : rules[2]] if (match := _COLUMN.fullmatch(line))]
    if not columns:
        return None
    rows = [line for line in lines[rules[-1] + 1 :] if line.strip()]
    description: JsonObject = {**_title_fields(lines[:mark]), **({"rows": len(rows)} if rows else {})}
    description["columns"] = [_column(column, rows) for column in columns[:MAX_ENTRIES]]
    return Found({"cds": description})


def _title_fields(lines: list[str]) -> dict[str, str]:
    """Return title, authors and table, each with its continuation lines."""
    fields: dict[str, str] = {}
    name = ""
    for line in lines:
        if match := _TITLE_FIELD.fullmatch(line.strip()):
            name = match[1].lower()
            fields[name] = match[2].strip()
        elif name and line[:1].isspace() and line.strip():
            fields[name] = f"{fields[name]} {line.strip()}"
        else:
            name = ""
    return {name: text for name, text in fields.items() if text}


def _column(column: re.Match[str], rows: list[str]) -> JsonObject:
    first, last, kind, unit, name, explanation = column.groups()
    description: JsonObject = {"name": name, **({"unit": unit} if unit != "---" else {})}
    if kind[0] == "A":
        return description
    null = re.match(r"\?=(\S+)", explanation or "")  # the code of a missing value
    start, end = int(first or last) - 1, int(last)
    nothing = number(null[1]) if null else None
    numbers = [value for row in rows if (value := number(row[start:end])) not in (None, nothing)]
    return {**description, **({"min": min(numbers), "max": max(numbers)} if numbers else {})}


def read_workbook(path: Path) -> Found | None:
    """Under `sheets`: names with values, and the table of each; a plot of the first table."""
    try:
        # Optional: only workbooks need it.
        from python_calamine import CalamineError, load_workbook
    except ImportError:
        return None
    if path.stat().st_size > MAX_FILE_BYTES:
        return None
    try:
        with path.open("rb") as file, load_workbook(file) as workbook:
            rows = {name: workbook.get_sheet_by_name(name).to_python() for name in workbook.sheet_names[:MAX_SHEETS]}
    except (CalamineError, OSError, ValueError):
        return None
    sheets: JsonObject = {}
    thumbnail: bytes | None = None
    for name, cells in rows.items():
        description, picture = _sheet([_without_end([_text(cell) for cell in row]) for row in cells])
        thumbnail = thumbnail or picture
        if description:
            sheets[name] = description
    return Found({"sheets": sheets} if sheets else {}, thumbnail, acquired(sheets)) if rows else None


def _sheet(rows: list[list[str]]) -> tuple[JsonObject, bytes | None]:
    """Read and plot one sheet."""
    table = find_table(rows)
    if table is None:
        return pairs(rows), None
    description = pairs([*rows[: table.above], *rows[table.end :]]) | {"table": describe_table(rows, table)}
    return description, plot_columns(rows, table)


def _without_end(row: list[str]) -> list[str]:
    while row and not row[-1]:
        row = row[:-1]
    return row


def _text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    if isinstance(cell, date | datetime | time):
        return cell.isoformat()
    return str(cell.total_seconds() if isinstance(cell, timedelta) else cell)
