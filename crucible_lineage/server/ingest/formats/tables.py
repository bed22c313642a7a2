"""Tables in the rows of a text or sheet: where the numbers begin, the names of columns, and the lines above.

A table is the longest run of rows with equally many cells that contain numbers. The row above it names the columns if
it has words only, and one in between may give their units. Other rows above it are read as names with values; the rest
is ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from crucible_lineage.server.database import JsonObject
from crucible_lineage.server.ingest.formats.findings import MAX_ENTRIES, plain

SAMPLED_ROWS = 100  # chosen: enough to recognize a column of words
MAX_NAME_WORDS = 4  # chosen: more is a sentence
_MISSING = ("", "nan", "NaN", "NAN", "-", "--", "n/a", "N/A", "#N/A")
_UNIT = re.compile(r".*\S\s*[(\[]\s*([^()\[\]]{1,20})\s*[)\]]")
_NAME = re.compile(r"[A-Za-z][\w .()/%°µ-]{0,80}")
# The first cell of a line above a table that is a setting, not a part of the table.
_PREAMBLE = re.compile(r"[^:=]*\S\s*[:=]|[:=]|[A-Za-z][\w ()/%.-]*: \S.*")
AXIS_COLUMNS = 8  # chosen: fewer rising numbers do not make an axis
WRAPPED_COLUMNS = 5  # chosen: as many counts in a row, without names above, are one list
MISSING_GAP = 2.0  # chosen: how many spans of the other values separate them from the code of a missing one
_COUNT = re.compile(r"\d+")
_MISSING_CODE = re.compile(r"-9{3,}0*(\.9+)?|-9{2,}00|-99\.9+|-999\.25|9{4,}(\.9+)?|-?1e\+3\d|9\.96921e\+36")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d+")
_EITHER = re.compile(r"[+-]?\d{1,3}(\.\d{3})+")  # among decimal commas: thousands or a fraction
_LONG_INTEGER = re.compile(r"[+-]?\d{16,}")
# A cell of a row of units: symbols with prefixes, words, and products, quotients and powers of them; or brackets.
_UNIT_WORD = (
    r"(?:[YZEPTGMkhdcmuµμnpf]?(?:m|s|g|A|K|V|W|Hz|eV|[Oo]hm|Ω|C|F|T|G|Oe|emu|Pa|bar|J|N|mol|L|l|H|S|Torr|rad|M|cps|Å)"
    r"|h|d|min|sec|dBm?|°[CF]?|deg|(?:at|wt|vol)?\.?[%‰]|ppm|ppb|px|rpm|sccm|slm|atm|psi|amu|Da|a\.?u\.?"
    r"|arb(?:\.|itrary) ?u(?:nits?|\.)?"
    r"|(?i:(?:second|minute|hour|day|volt|amp|ampere|watt|ohm|kelvin|celsius|meter|metre|hertz|degree|radian|tesla"
    r"|pascal|joule|newton|angstrom|pixel|count|point)s?))(?:\^?[-−]?[1-3]|⁻?[¹²³])?"
)
_A_UNIT = re.compile(rf"(?:1/)?{_UNIT_WORD}(?:[/·* ]{_UNIT_WORD})*|[-#]?|[(\[][^()\[\]]+[)\]]")
_NO_NAME = re.compile(r"[kcmuµμnp](?:m|s|g|A|K|V|W|Hz|eV|Pa|bar|T|L|Ohm|Ω)|eV|Hz|Oe|emu|°[CF]|Å|.*[/^].*|[a-z]+[-−]1")
_STARTS_WITH_NUMBER = re.compile(r"\s*[+-]?[.,]?\d")  # no name does
_SECTION = re.compile(r"\[([\w .-]{1,80})\]")

Row = Sequence[str]


@dataclass(frozen=True)
class TextTable:
    """The rows of numbers, as indices, with the names and units of their columns."""

    first: int
    end: int
    names: tuple[str, ...]
    units: tuple[str | None, ...]
    above: int  # the number of rows above, without those that name the columns

    @property
    def is_named(self) -> bool:
        return any(not name.startswith("column_") for name in self.names)


def number(cell: str, decimal: str = ".") -> float | None:
    """Return the finite number in a cell, or None."""
    if decimal == "," and _THOUSANDS.fullmatch(cell.strip()):
        cell = cell.replace(".", "")
    if decimal == "," and "." not in cell:
        cell = cell.replace(",", ".")
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def unambiguous_number(cell: str, decimal: str = ".") -> float | None:
    """Like `number`, but None also for `1.500` among decimal commas, which may be thousands or a fraction."""
    return None if decimal == "," and _EITHER.fullmatch(cell.strip()) else number(cell, decimal)


def find_table(rows: Sequence[Row], decimal: str = ".") -> TextTable | None:
    """Return the longest table, or None if none has at least two columns."""
    first, end = _longest_run(rows, decimal)
    if end - first < 1:
        return None
    width = len(rows[first])
    while width > 2 and not any(row[width - 1].strip() for row in rows[first:end]):
        width -= 1  # a separator that ends each row, not a column
    heading = _heading(rows, first, width, decimal)
    if not _are_columns(rows, first, end, width, heading, decimal):
        return None
    if not heading and _is_axis(rows, first, end, width, decimal):
        axis = tuple(cell.strip()[:200] or "column_1" for cell in rows[first][:width])
        return TextTable(first + 1, end, axis, (None,) * width, first)
    names = heading[0] if heading else [f"column_{column}" for column in range(1, width + 1)]
    stated_units = heading[1] if len(heading) > 1 else [""] * width
    units = [unit.strip("()[] ") or _unit_in(name) for name, unit in zip(names, stated_units, strict=True)]
    return TextTable(first, end, tuple(name[:200] for name in names), tuple(units), first - len(heading))


def _are_columns(rows: Sequence[Row], first: int, end: int, width: int, heading: Sequence[Row], decimal: str) -> bool:
    """Return whether rows of equal length are a table, and not single settings."""
    if end - first == 1 and not heading:
        return False
    sample = rows[first : end : -(-(end - first) // SAMPLED_ROWS)]
    numeric = sum(all(fits(row[column], decimal) for row in sample) for column in range(width))
    # Words among the numbers are accepted only if the table is all there is, or if most columns are numbers.
    starts_file = bool(heading) and not any(map(any, rows[: first - len(heading)]))
    return starts_file or numeric == width or numeric * 2 > width


def describe_table(rows: Sequence[Row], table: TextTable, decimal: str = ".") -> JsonObject:
    """Return the number of rows, and the name, unit and range of each column."""
    columns = []
    headings = list(zip(table.names, table.units, strict=True))[:MAX_ENTRIES]
    for index, (name, unit) in enumerate(headings):
        cells = [row[index] for row in rows[table.first : table.end]]
        values = [unambiguous_number(cell, decimal) for cell in cells]
        numbers = [value for value in values if value is not None]
        code = _missing_code(numbers)
        count, numbers = numbers.count(code) if code is not None else 0, [value for value in numbers if value != code]
        has_words = any(
            value is None and cell.strip() not in _MISSING for value, cell in zip(values, cells, strict=True)
        )
        columns.append(
            {"name": name}
            | ({"unit": unit} if unit else {})
            | ({"min": min(numbers), "max": max(numbers)} if numbers and not has_words else {})
            | ({"missing": {"value": code, "count": count}} if count and not has_words else {})
        )
    return {"rows": table.end - table.first, "columns": columns}


def is_wrapped(rows: Sequence[Row], table: TextTable) -> bool:
    """Return whether the table is one long list of counts that is set in many columns, as some analysers write it."""
    if table.is_named or len(table.names) < WRAPPED_COLUMNS:
        return False
    cells = [cell for row in rows[table.first : table.end] for cell in row[: len(table.names)]]
    return all(_COUNT.fullmatch(cell.strip()) for cell in cells)


def describe_wrapped(rows: Sequence[Row], table: TextTable) -> JsonObject:
    """Return the number and range of the counts in such a list."""
    counts = [int(cell) for row in rows[table.first : table.end] for cell in row[: len(table.names)]]
    return {"values": len(counts), "min": min(counts), "max": max(counts)}


def _is_axis(rows: Sequence[Row], first: int, end: int, width: int, decimal: str) -> bool:
    """Return whether the first row holds an axis, as of wavenumbers: it rises or falls, and no other row does."""
    if width < AXIS_COLUMNS or end - first < 2:
        return False
    below = rows[first + 1 : end : max(1, (end - first) // 10)]
    return _is_monotonic(rows[first][1:width], decimal) and not any(
        _is_monotonic(row[1:width], decimal) for row in below
    )


def _is_monotonic(cells: Row, decimal: str) -> bool:
    numbers = [number(cell, decimal) for cell in cells]
    values = [value for value in numbers if value is not None]
    rising = all(left < right for left, right in pairwise(values))
    return len(values) == len(numbers) and (rising or all(left > right for left, right in pairwise(values)))


def _missing_code(values: Sequence[float]) -> float | None:
    """Return the number that stands for a missing value (-9999 and the like): far from all others, on one side."""
    for code in {min(values, default=0.0), max(values, default=0.0)}:
        rest = [value for value in values if value != code]
        if not rest or not _MISSING_CODE.fullmatch(f"{code:g}"):
            continue
        gap = min(rest) - code if code < min(rest) else code - max(rest)
        if gap > MISSING_GAP * max(max(rest) - min(rest), abs(max(rest, key=abs)) / MISSING_GAP):
            return code
    return None


def pairs(rows: Sequence[Row], decimal: str = ".") -> JsonObject:
    """Read rows as names with values, and perhaps units, grouped by section."""
    result: JsonObject = {}
    section = result
    for row, below in pairwise([*rows, ()]):
        cells = [cell.strip() for cell in row]
        names = 2 <= len(cells) == len(below) and number(cells[1], decimal) is None
        if names and _STARTS_WITH_NUMBER.match(below[0]):
            continue  # it names the columns of a table
        while cells and not cells[-1]:
            cells.pop()
        if len(cells) == 1 and (match := _SECTION.fullmatch(cells[0])):
            section = result.setdefault(match[1].strip(), {})
            if not isinstance(section, dict):
                section = result
        elif (pair := _pair(cells, decimal)) and len(section) < MAX_ENTRIES:
            section.setdefault(*pair)
    return {name: value for name, value in result.items() if value != {}}


def _pair(cells: Sequence[str], decimal: str) -> tuple[str, Any] | None:
    if not 2 <= len(cells) <= 3:
        return None
    name = cells[0].rstrip(":= ").strip()
    if not _NAME.fullmatch(name) or len(name.split()) > MAX_NAME_WORDS or not cells[1]:
        return None
    if "  " in cells[1]:  # set in columns of unknown meaning
        return None
    value = value_of(cells[1], decimal)
    if len(cells) == 2:
        return name, value
    unit = cells[2].strip("()[] ")
    is_unit = unit and number(unit, decimal) is None
    return (name, {"value": value, "unit": unit}) if is_unit and isinstance(value, int | float) else None


def value_of(text: str, decimal: str = ".") -> Any:
    """Return the number that a text is, or else the text."""
    text = text.strip()
    if re.fullmatch(r"[+-]?(0|[1-9]\d{0,14})", text):
        return int(text)
    if re.fullmatch(r"0\d+", text) or _LONG_INTEGER.fullmatch(text):  # such as a serial number or a code
        return text
    value = number(text, decimal)
    return plain(text) if value is None else value


def _longest_run(rows: Sequence[Row], decimal: str) -> tuple[int, int]:
    """Return the start and end of the longest run of rows of equal width that contain numbers."""
    best, start, width = (0, 0), 0, -1
    for index, row in enumerate([*rows, ()]):
        fits = len(row) >= 2 and (_has_numbers(row, decimal) or (len(row) == width and _is_gap(row)))
        if not fits or len(row) != width:
            if width >= 2 and index - start > best[1] - best[0]:
                best = (start, index)
            start, width = index, len(row) if fits else -1
    return best


def _has_numbers(row: Row, decimal: str) -> bool:
    """Return whether at least one cell is a number."""
    return any(number(cell, decimal) is not None for cell in row)


def _is_gap(row: Row) -> bool:
    """Return whether nothing was measured in this row, for a date or the like."""
    return len(row) > 2 and sum(cell.strip() in _MISSING for cell in row) >= len(row) - 1


def _heading(rows: Sequence[Row], first: int, width: int, decimal: str) -> list[list[str]]:
    """Return the rows right above that have as many cells, all of them words: names, and perhaps units."""
    heading: list[list[str]] = []
    for row in reversed(rows[max(0, first - 2) : first]):
        cells = [cell.strip() for cell in row]
        if len(cells) < width or any(cells[width:]):
            break
        cells = cells[:width]
        if not _may_name_columns(cells, decimal, above_units=bool(heading)):
            break
        if not _are_units(heading[0]) if heading else not any(cells):
            break  # of two rows of words, the lower one names the columns
        heading.insert(0, cells)
    while heading and (not all(heading[0]) or len(set(heading[0])) < len(heading[0])):
        heading.pop(0)  # every column has a name, and no two are equal
    return heading


def _may_name_columns(cells: Sequence[str], decimal: str, *, above_units: bool) -> bool:
    """Return whether a row may be a heading: words, and not a single setting."""
    is_keysight = above_units and cells[0].lower() == "x-axis"  # its channels are numbered, with units below
    if any(number(cell, decimal) is not None for cell in cells) and not is_keysight:
        return False
    is_setting = _PREAMBLE.fullmatch(cells[0]) and not all(":" in cell for cell in cells)
    return not is_setting and not any(cell in (":", "=") for cell in cells)


def _are_units(cells: Row) -> bool:
    """Return whether all cells are units, or one is a unit that could not be a name."""
    units = [cell for cell in cells if _A_UNIT.fullmatch(cell)]
    return len(units) == len(cells) or any(map(_NO_NAME.fullmatch, units))


def _unit_in(name: str) -> str | None:
    match = _UNIT.fullmatch(name)
    return match[1].strip() if match else None


def fits(cell: str, decimal: str) -> bool:
    """Return whether the cell is a number or empty."""
    return cell.strip() in _MISSING or number(cell, decimal) is not None
