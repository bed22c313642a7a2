"""Tables among the rows of a text or a sheet: where the numbers begin, what the columns are called, what stands above.

A table is the longest run of rows with equally many cells and numbers in them. The row above it names the columns if it
has words only, and the one between may give their units. What else stands above is read as names with values; what is
neither is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from crucible_lineage.server.ingest.formats.findings import MAX_ENTRIES, plain

SAMPLED_ROWS = 100  # chosen: enough to tell a column of words
MAX_NAME_WORDS = 4  # chosen: more is a sentence
_MISSING = ("", "nan", "NaN", "NAN", "-", "--", "n/a", "N/A", "#N/A")
_UNIT = re.compile(r".*\S\s*[(\[]\s*([^()\[\]]{1,20})\s*[)\]]")
_NAME = re.compile(r"[A-Za-z][\w .()/%°µ-]{0,80}")
# The first cell of a line that says one thing, above a table and not of it.
_PREAMBLE = re.compile(r"[^:=]*\S\s*[:=]|[:=]|[A-Za-z][\w ()/%.-]*: \S.*")
AXIS_COLUMNS = 8  # chosen: fewer numbers that rise are no axis yet
WRAPPED_COLUMNS = 5  # chosen: as many counts in a row, and no name above them, are one list
MISSING_GAP = 2.0  # chosen: as many spans of the other values a code for a missing one is away from them
_COUNT = re.compile(r"\d+")
_MISSING_CODE = re.compile(r"-9{3,}0*(\.9+)?|-9{2,}00|-99\.9+|-999\.25|9{4,}(\.9+)?|-?1e\+3\d|9\.96921e\+36")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d+")
_EITHER = re.compile(r"[+-]?\d{1,3}(\.\d{3})+")  # among decimal commas: thousands or a fraction
_LONG_INTEGER = re.compile(r"[+-]?\d{16,}")
# What stands in a row of units: symbols with prefixes, words, and products, quotients and powers of them; or brackets.
_UNIT_WORD = (
    r"(?:[YZEPTGMkhdcmuµμnpf]?(?:m|s|g|A|K|V|W|Hz|eV|[Oo]hm|Ω|C|F|T|G|Oe|emu|Pa|bar|J|N|mol|L|l|H|S|Torr|rad|M|cps|Å)"
    r"|h|d|min|sec|dBm?|°[CF]?|deg|(?:at|wt|vol)?\.?[%‰]|ppm|ppb|px|rpm|sccm|slm|atm|psi|amu|Da|a\.?u\.?"
    r"|arb(?:\.|itrary) ?u(?:nits?|\.)?"
    r"|(?i:(?:second|minute|hour|day|volt|amp|ampere|watt|ohm|kelvin|celsius|meter|metre|hertz|degree|radian|tesla"
    r"|pascal|joule|newton|angstrom|pixel|count|point)s?))(?:\^?[-−]?[1-3]|⁻?[¹²³])?"
)
_A_UNIT = re.compile(rf"(?:1/)?{_UNIT_WORD}(?:[/·* ]{_UNIT_WORD})*|[-#]?|[(\[][^()\[\]]+[)\]]")
_NO_NAME = re.compile(r"[kcmuµμnp](?:m|s|g|A|K|V|W|Hz|eV|Pa|bar|T|L|Ohm|Ω)|eV|Hz|Oe|emu|°[CF]|Å|.*[/^].*|[a-z]+[-−]1")
_STARTS_WITH_NUMBER = re.compile(r"\s*[+-]?[.,]?\d")  # as no name does
_SECTION = re.compile(r"\[([\w .-]{1,80})\]")

Row = Sequence[str]


@dataclass(frozen=True)
class TextTable:
    """Where the rows of numbers lie, as indices of rows, and what their columns are called and measured in."""

    first: int
    end: int
    names: tuple[str, ...]
    units: tuple[str | None, ...]
    above: int  # how many rows stand above, without those that name the columns

    @property
    def is_named(self) -> bool:
        return any(not name.startswith("column_") for name in self.names)


def number(cell: str, decimal: str = ".") -> float | None:
    """The finite number in a cell."""
    if decimal == "," and _THOUSANDS.fullmatch(cell.strip()):
        cell = cell.replace(".", "")
    if decimal == "," and "." not in cell:
        cell = cell.replace(",", ".")
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def understood(cell: str, decimal: str = ".") -> float | None:
    """The same, None also for `1.500` among decimal commas, which may be thousands or a fraction."""
    return None if decimal == "," and _EITHER.fullmatch(cell.strip()) else number(cell, decimal)


def find_table(rows: Sequence[Row], decimal: str = ".") -> TextTable | None:
    """The longest table, None where there is none of at least two columns."""
    first, end = _longest_run(rows, decimal)
    if end - first < 1:
        return None
    width = len(rows[first])
    while width > 2 and not any(row[width - 1].strip() for row in rows[first:end]):
        width -= 1  # a separator that ends each row, and no column
    heading = _heading(rows, first, width, decimal)
    if not _are_columns(rows, first, end, width, heading, decimal):
        return None
    if not heading and _is_axis(rows, first, end, width, decimal):
        axis = tuple(cell.strip()[:200] or "column_1" for cell in rows[first][:width])
        return TextTable(first + 1, end, axis, (None,) * width, first)
    names = heading[0] if heading else [f"column_{column}" for column in range(1, width + 1)]
    given = heading[1] if len(heading) > 1 else [""] * width
    units = [unit.strip("()[] ") or _unit_in(name) for name, unit in zip(names, given, strict=True)]
    return TextTable(first, end, tuple(name[:200] for name in names), tuple(units), first - len(heading))


def _are_columns(rows: Sequence[Row], first: int, end: int, width: int, heading: Sequence[Row], decimal: str) -> bool:
    """Return whether rows of equal length are a table, and not lines that say one thing each."""
    if end - first == 1 and not heading:
        return False
    some = rows[first : end : -(-(end - first) // SAMPLED_ROWS)]
    numeric = sum(all(fits(row[column], decimal) for row in some) for column in range(width))
    # With words among the numbers only if it is all there is, or if most columns are numbers.
    starts_file = bool(heading) and not any(map(any, rows[: first - len(heading)]))
    return starts_file or numeric == width or numeric * 2 > width


def described(rows: Sequence[Row], table: TextTable, decimal: str = ".") -> dict[str, Any]:
    """The number of rows, and of each column its name, unit and range."""
    columns = []
    named = list(zip(table.names, table.units, strict=True))[:MAX_ENTRIES]
    for index, (name, unit) in enumerate(named):
        cells = [row[index] for row in rows[table.first : table.end]]
        values = [understood(cell, decimal) for cell in cells]
        found = [value for value in values if value is not None]
        code = _missing_code(found)
        count, found = found.count(code) if code is not None else 0, [value for value in found if value != code]
        words = any(value is None and cell.strip() not in _MISSING for value, cell in zip(values, cells, strict=True))
        columns.append(
            {"name": name}
            | ({"unit": unit} if unit else {})
            | ({"min": min(found), "max": max(found)} if found and not words else {})
            | ({"missing": {"value": code, "count": count}} if count and not words else {})
        )
    return {"rows": table.end - table.first, "columns": columns}


def is_wrapped(rows: Sequence[Row], table: TextTable) -> bool:
    """True for one long list of counts that is set in many columns, as some analysers write it."""
    if table.is_named or len(table.names) < WRAPPED_COLUMNS:
        return False
    cells = [cell for row in rows[table.first : table.end] for cell in row[: len(table.names)]]
    return all(_COUNT.fullmatch(cell.strip()) for cell in cells)


def wrapped(rows: Sequence[Row], table: TextTable) -> dict[str, Any]:
    """Describe the counts in such a list: how many, and their range."""
    found = [int(cell) for row in rows[table.first : table.end] for cell in row[: len(table.names)]]
    return {"values": len(found), "min": min(found), "max": max(found)}


def _is_axis(rows: Sequence[Row], first: int, end: int, width: int, decimal: str) -> bool:
    """True if the first row holds the values of an axis, as of wavenumbers: it rises or falls, and no other does."""
    if width < AXIS_COLUMNS or end - first < 2:
        return False
    below = rows[first + 1 : end : max(1, (end - first) // 10)]
    return _is_monotonic(rows[first][1:width], decimal) and not any(
        _is_monotonic(row[1:width], decimal) for row in below
    )


def _is_monotonic(cells: Row, decimal: str) -> bool:
    found = [number(cell, decimal) for cell in cells]
    values = [value for value in found if value is not None]
    rising = all(left < right for left, right in pairwise(values))
    return len(values) == len(found) and (rising or all(left > right for left, right in pairwise(values)))


def _missing_code(values: Sequence[float]) -> float | None:
    """The number that stands for a missing value (-9999 and the like): far from all others, on one side of them."""
    for code in {min(values, default=0.0), max(values, default=0.0)}:
        rest = [value for value in values if value != code]
        if not rest or not _MISSING_CODE.fullmatch(f"{code:g}"):
            continue
        gap = min(rest) - code if code < min(rest) else code - max(rest)
        if gap > MISSING_GAP * max(max(rest) - min(rest), abs(max(rest, key=abs)) / MISSING_GAP):
            return code
    return None


def pairs(rows: Sequence[Row], decimal: str = ".") -> dict[str, Any]:
    """Read rows as names with values, and perhaps units, below the sections that they stand in."""
    found: dict[str, Any] = {}
    section = found
    for row, below in pairwise([*rows, ()]):
        cells = [cell.strip() for cell in row]
        names = 2 <= len(cells) == len(below) and number(cells[1], decimal) is None
        if names and _STARTS_WITH_NUMBER.match(below[0]):
            continue  # it names the columns of a table
        while cells and not cells[-1]:
            cells.pop()
        if len(cells) == 1 and (matched := _SECTION.fullmatch(cells[0])):
            section = found.setdefault(matched[1].strip(), {})
            if not isinstance(section, dict):
                section = found
        elif (pair := _pair(cells, decimal)) and len(section) < MAX_ENTRIES:
            section.setdefault(*pair)
    return {name: value for name, value in found.items() if value != {}}


def _pair(cells: Sequence[str], decimal: str) -> tuple[str, Any] | None:
    if not 2 <= len(cells) <= 3:
        return None
    name = cells[0].rstrip(":= ").strip()
    if not _NAME.fullmatch(name) or len(name.split()) > MAX_NAME_WORDS or not cells[1]:
        return None
    if "  " in cells[1]:  # set in columns, which nobody here knows
        return None
    value = _value(cells[1], decimal)
    if len(cells) == 2:
        return name, value
    unit = cells[2].strip("()[] ")
    is_unit = unit and number(unit, decimal) is None
    return (name, {"value": value, "unit": unit}) if is_unit and isinstance(value, int | float) else None


def _value(text: str, decimal: str) -> Any:
    if re.fullmatch(r"[+-]?(0|[1-9]\d{0,14})", text):
        return int(text)
    if re.fullmatch(r"0\d+", text) or _LONG_INTEGER.fullmatch(text):  # a serial number, a code
        return text
    found = number(text, decimal)
    return plain(text) if found is None else found


def _longest_run(rows: Sequence[Row], decimal: str) -> tuple[int, int]:
    """The first row and the one after the last of the run with the most rows, which have numbers and equal width."""
    best, start, width = (0, 0), 0, -1
    for index, row in enumerate([*rows, ()]):
        fits = len(row) >= 2 and (_has_numbers(row, decimal) or (len(row) == width and _is_gap(row)))
        if not fits or len(row) != width:
            if width >= 2 and index - start > best[1] - best[0]:
                best = (start, index)
            start, width = index, len(row) if fits else -1
    return best


def _has_numbers(row: Row, decimal: str) -> bool:
    """True where at least one cell is a number."""
    return any(number(cell, decimal) is not None for cell in row)


def _is_gap(row: Row) -> bool:
    """True for a row in which nothing was measured, for a date or the like."""
    return len(row) > 2 and sum(cell.strip() in _MISSING for cell in row) >= len(row) - 1


def _heading(rows: Sequence[Row], first: int, width: int, decimal: str) -> list[list[str]]:
    """The rows right above that have as many cells, and words in all of them: names, and perhaps units."""
    found: list[list[str]] = []
    for row in reversed(rows[max(0, first - 2) : first]):
        cells = [cell.strip() for cell in row]
        if len(cells) < width or any(cells[width:]):
            break
        cells = cells[:width]
        if not _may_name_columns(cells, decimal, above_units=bool(found)):
            break
        if not _are_units(found[0]) if found else not any(cells):
            break  # of two rows of words the lower one names the columns
        found.insert(0, cells)
    while found and (not all(found[0]) or len(set(found[0])) < len(found[0])):
        found.pop(0)  # names stand above all columns, and are different ones
    return found


def _may_name_columns(cells: Sequence[str], decimal: str, *, above_units: bool) -> bool:
    """Return whether a row may be a heading: words, and not a line that says one thing."""
    is_keysight = above_units and cells[0].lower() == "x-axis"  # its channels have numbers, with the units below
    if any(number(cell, decimal) is not None for cell in cells) and not is_keysight:
        return False
    says_one_thing = _PREAMBLE.fullmatch(cells[0]) and not all(":" in cell for cell in cells)
    return not says_one_thing and not any(cell in (":", "=") for cell in cells)


def _are_units(cells: Row) -> bool:
    """True if all are units, or one is that could not be a name."""
    units = [cell for cell in cells if _A_UNIT.fullmatch(cell)]
    return len(units) == len(cells) or any(map(_NO_NAME.fullmatch, units))


def _unit_in(name: str) -> str | None:
    matched = _UNIT.fullmatch(name)
    return matched[1].strip() if matched else None


def fits(cell: str, decimal: str) -> bool:
    """True for a number, and for a cell in which there is none."""
    return cell.strip() in _MISSING or number(cell, decimal) is not None
