"""Machine-readable tables as CDS and the AAS have them: a description of each column by its bytes, then the rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from crucible_lineage.server.ingest.formats.findings import MAX_ENTRIES, Found

__all__ = ["read_cds"]

MAX_BYTES = 64 << 20  # chosen: longer tables of this kind are rare
_MARK = "Byte-by-byte Description of file"
_RULE = re.compile(r"[-=]{20,}\s*")
_COLUMN = re.compile(r"\s*(?:(\d+)\s*-\s*)?(\d+)\s+([AIFED]\d+(?:\.\d+)?)\s+(\S+)\s+(\S+)(?:\s+(.*))?")
_SAID = re.compile(r"(Title|Authors?|Table):\s*(.*)")


def read_cds(path: Path) -> Found | None:
    """Title, authors and columns with their units and ranges; None for what is no such table."""
    if path.stat().st_size > MAX_BYTES:
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return None
    marks = [at for at, line in enumerate(lines) if line.startswith(_MARK)]
    if len(marks) != 1:  # of several files, nobody can tell which rows these are
        return None
    (mark,) = marks
    rules = [at for at in range(mark, len(lines)) if _RULE.fullmatch(lines[at])]
    if len(rules) < 3:
        return None
    columns = [found for line in lines[rules[1] + 1 : rules[2]] if (found := _COLUMN.fullmatch(line))]
    if not columns:
        return None
    rows = [line for line in lines[rules[-1] + 1 :] if line.strip()]
    told: dict[str, Any] = {**_said(lines[:mark]), "rows": len(rows)} if rows else _said(lines[:mark])
    told["columns"] = [_column(column, rows) for column in columns[:MAX_ENTRIES]]
    return Found({"cds": told})


def _said(lines: list[str]) -> dict[str, str]:
    """Title, authors and table, each with the lines that go on with it."""
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if matched := _SAID.fullmatch(line.strip()):
            name = matched[1].lower()
            found[name] = matched[2].strip()
        elif name and line[:1].isspace() and line.strip():
            found[name] = f"{found[name]} {line.strip()}"
        else:
            name = ""
    return {name: text for name, text in found.items() if text}


def _column(column: re.Match[str], rows: list[str]) -> dict[str, Any]:
    first, last, kind, unit, name, explained = column.groups()
    shown: dict[str, Any] = {"name": name, **({"unit": unit} if unit != "---" else {})}
    if kind[0] == "A":
        return shown
    null = re.match(r"\?=(\S+)", explained or "")  # what stands for a missing value
    start, end = int(first or last) - 1, int(last)
    values = [_number(row[start:end], null[1] if null else "") for row in rows]
    numbers = [value for value in values if value is not None]
    return {**shown, **({"min": min(numbers), "max": max(numbers)} if numbers else {})}


def _number(text: str, null: str) -> float | None:
    text = text.strip()
    try:
        if null and float(text) == float(null):
            return None
        return float(text)
    except ValueError:
        return None
