"""Workbooks of spreadsheets: on each sheet the table, and what stands above it."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from crucible_lineage.server.ingest.formats.acquisition import acquired
from crucible_lineage.server.ingest.formats.findings import Found
from crucible_lineage.server.ingest.formats.tables import described, find_table, pairs
from crucible_lineage.server.ingest.formats.text import plotted

__all__ = ["read_workbook"]

MAX_SHEETS = 50
MAX_FILE_BYTES = 64 << 20


def read_workbook(path: Path) -> Found | None:
    """Under `sheets` what each says: names with values, and its table; the first table is plotted."""
    try:
        # Optional: a reader in Rust, which only workbooks need.
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
    sheets: dict[str, Any] = {}
    thumbnail: bytes | None = None
    for name, cells in rows.items():
        told, picture = _sheet([_without_end([_text(cell) for cell in row]) for row in cells])
        thumbnail = thumbnail or picture
        if told:
            sheets[name] = told
    return Found({"sheets": sheets} if sheets else {}, thumbnail, acquired(sheets)) if rows else None


def _sheet(rows: list[list[str]]) -> tuple[dict[str, Any], bytes | None]:
    """Read one sheet, and plot it."""
    table = find_table(rows)
    if table is None:
        return pairs(rows), None
    told = pairs([*rows[: table.above], *rows[table.end :]]) | {"table": described(rows, table)}
    return told, plotted(rows, table)


def _without_end(row: list[str]) -> list[str]:
    while row and not row[-1]:
        row = row[:-1]
    return row


def _text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    return (
        cell.isoformat()
        if isinstance(cell, date | datetime | time)
        else str(cell)
        if not isinstance(cell, timedelta)
        else str(cell.total_seconds())
    )
