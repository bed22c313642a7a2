"""Tables as CSV, as Parquet, and as a pandas DataFrame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import InputError
from crucible_lineage.lineage.extra import require_library
from crucible_lineage.lineage.values import csv_text
from crucible_lineage.queries.table.table import Table

if TYPE_CHECKING:
    import pandas

__all__ = ["data_frame", "require_target", "write_table"]

ENDINGS = (".csv", ".parquet", ".json")


def require_target(path: Path) -> None:
    """Raise InputError if no table can be written to this file: for its ending, or for want of a library."""
    if path.suffix.lower() == ".parquet":
        require_library(f"{path.name} as Parquet", "pyarrow", "table")
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"write a table to {path}: its ending says as what, one of {', '.join(ENDINGS)}")
    if path.is_dir():
        raise InputError(f"write a table to {path}: that is a folder; name a file")


def write_table(table: Table, path: Path) -> None:
    """Write the whole table to the file, in the format of its ending. InputError as for `require_target`."""
    require_target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        if path.suffix.lower() == ".parquet":
            _write_parquet(table, part)
        else:
            whole = json.dumps(table.to_json(), ensure_ascii=False, indent=1) + "\n"
            said = whole if path.suffix.lower() == ".json" else csv_text(table.columns, table.rows)
            part.write_text(said, encoding="utf-8", newline="")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def data_frame(table: Table) -> pandas.DataFrame:
    """The table as a DataFrame. InputError if pandas is not installed."""
    try:
        import pandas  # half a second, and an optional library
    except ImportError as error:
        raise InputError("make a DataFrame: the library pandas is missing; pip install pandas") from error
    return pandas.DataFrame(list(table.rows), columns=list(table.columns))


def _write_parquet(table: Table, path: Path) -> None:
    import pyarrow as arrow  # an optional library
    from pyarrow import parquet

    rows = zip(*table.rows, strict=True) if table.rows else [() for _ in table.columns]
    made = {name: _typed(list(column)) for name, column in zip(table.columns, rows, strict=True)}
    parquet.write_table(arrow.table(made), path)


def _typed(values: list[Any]) -> list[object]:
    """A column of one type: numbers, truth values, texts, or lists of numbers; anything else as JSON."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) <= 1 and not kinds & {list, dict, tuple}:
        return (
            values
            if not kinds & {int} or all(-(2**63) <= v < 2**63 for v in values if v is not None)
            else [None if value is None else float(value) for value in values]
        )
    return [value if value is None or isinstance(value, str) else _json(value) for value in values]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
