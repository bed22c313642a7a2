"""CSV files as programs write them: any line ends, a byte order mark, semicolons and decimal commas, comments above."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path


@dataclass(frozen=True)
class CsvForm:
    """The separator of cells, the decimal sign of numbers, the names of the columns, and the lines above the first row.

    Without a header the columns are called `column_1` and so on.
    """

    separator: str
    decimal: str
    columns: tuple[str, ...]
    has_header: bool
    lines_above: int

    def with_point(self, cell: str) -> str:
        """Return the cell with a decimal point if it is a number with a decimal comma, else unchanged."""
        return cell.replace(",", ".") if self.decimal == "," and _are_numbers([cell], ",") else cell


def csv_form(path: Path) -> CsvForm:
    """Return the form of a CSV file, from its first row. Raises ValueError if that cannot be read.

    Lines above it that begin with `#` are comments. A first row with only numbers is data; its columns are named by the
    last comment, if that has as many cells. Semicolons separate cells if the first row has them, and commas only in
    decimal numbers. Tabs do in `.tsv`, and if the first row has neither.
    """
    with path.open(encoding="utf-8-sig", newline="") as stream:
        comment, lines_above = "", 0
        for first in stream:
            if first.strip() and not first.startswith("#"):
                break
            comment, lines_above = first.strip("# \r\n") or comment, lines_above + 1
        else:
            raise ValueError("it has no row")
        separator = _separator(path, first)
        try:
            cells = next(csv.reader(chain([first], stream), delimiter=separator, strict=True))
        except csv.Error as error:
            raise ValueError(f"the first row: {error}") from error
        has_commas = separator == ";" and any("," in line for line in chain([first], stream))
    decimal = "," if has_commas else "."
    if not _are_numbers(cells, decimal):
        return CsvForm(separator, decimal, tuple(cells), True, lines_above)
    names = [name.strip() for name in comment.split(separator)]
    if len(names) != len(cells) or not comment:
        names = [f"column_{at}" for at in range(1, len(cells) + 1)]
    return CsvForm(separator, decimal, tuple(names), False, lines_above)


def csv_rows(path: Path, form: CsvForm) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row, one for each column, with the number of its first line. Blank lines are skipped.

    Raises ValueError, with the number of the line, for more cells than columns, or if a quotation mark is not closed.
    """
    width, is_header, start = len(form.columns), form.has_header, form.lines_above + 1
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(islice(stream, form.lines_above, None), delimiter=form.separator, strict=True)
        try:
            for cells in reader:
                line, start = start, form.lines_above + reader.line_num + 1
                if not cells:
                    continue
                if is_header:
                    is_header = False
                    continue
                if any(cells[width:]):
                    raise ValueError(f"line {line}: there are more cells than columns")
                yield line, [*cells[:width], *[""] * (width - len(cells))]
        except csv.Error as error:
            raise ValueError(f"line {start}: {error}") from error


def _separator(path: Path, first: str) -> str:
    parts = first.strip().split(";")
    if path.suffix.lower() == ".tsv":
        return "\t"
    if len(parts) > 1 and ("," not in first or _are_numbers(parts, ",")):
        return ";"
    return "\t" if "\t" in first and "," not in first else ","


def _are_numbers(cells: Sequence[str], decimal: str) -> bool:
    try:
        return bool([float(cell.replace(decimal, ".")) for cell in cells])
    except ValueError:
        return False
