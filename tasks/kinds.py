"""Kinds of values, with how each is stored as files of a dataset, and values that are JSON.

No value is pickled: stored values have to be readable in ten years, and equal values have to give equal bytes.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

from crucible_lineage.json_types import JsonObject
from crucible_lineage.pictures import save_picture

SCALARS = (datetime, date, time, timedelta, Decimal, UUID)
MOST_LEVELS = 50  # of nested lists and dicts


def _nothing(value: object) -> JsonObject:  # noqa: ARG001 (of the form of all descriptions)
    """Return no metadata."""
    return {}


@dataclass(frozen=True)
class Kind:
    """One kind of value: `dump` writes it into an empty folder, `describe` returns metadata about it, and `preview` is
    the name of the file that is shown as its picture.
    """

    name: str
    accepts: Callable[[Any], bool]
    dump: Callable[[Any, Path], None]
    describe: Callable[[Any], JsonObject] = _nothing
    preview: str | None = None


def add_kind(kind: Kind) -> None:
    """Add a kind that takes precedence over all existing ones."""
    KINDS.insert(0, kind)


def kind_of(value: object) -> Kind | None:
    """Return the first kind that accepts the value; None if there is none."""
    return next((kind for kind in KINDS if kind.accepts(value)), None)


def is_data(value: object) -> bool:
    """Return whether a value is an input of its own, not a parameter: an array, a table, a picture."""
    kind = kind_of(value)
    return kind is not None and kind.name not in ("text", "json", "bytes")


def is_plain(value: object) -> bool:
    """Return whether JSON returns exactly this value: no tuple, no NaN, no key other than text."""
    if value is None or type(value) in (bool, int, str):
        return True
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is list:
        return all(map(is_plain, value))
    if type(value) is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    return False


def _is(module: str, *names: str) -> Callable[[Any], bool]:
    """Return a check for classes of a library that does not import the library."""

    def accepts(value: object) -> bool:
        library = sys.modules.get(module)
        classes = tuple(kind for name in names if isinstance(kind := getattr(library, name, None), type))
        return isinstance(value, classes)

    return accepts


def _dump_json(value: object, folder: Path) -> None:
    (folder / "value.json").write_text(json_text(value), encoding="utf-8")


def _dump_bytes(value: bytes, folder: Path) -> None:
    (folder / "value.bin").write_bytes(value)


def _dump_text(value: str, folder: Path) -> None:
    (folder / "value.txt").write_text(value, encoding="utf-8", newline="")


# ---------------------------------------------------------------- arrays and tables


def _is_array(value: Any) -> bool:
    """Return whether a value is an array without Python objects, or a NumPy number that JSON cannot represent."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return False
    if isinstance(value, numpy.generic):
        return value.dtype.kind in "cMmS" or (value.dtype.kind == "f" and value.dtype.itemsize > 8)
    if type(value) is not numpy.ndarray:  # a masked array would lose its mask
        return False
    return bool(value.dtype.kind not in "OV" or value.dtype.names) and not value.dtype.hasobject


def _dump_array(value: Any, folder: Path) -> None:
    import numpy as np

    np.save(folder / "value.npy", np.asarray(value), allow_pickle=False)


def _dump_pandas(value: Any, folder: Path) -> None:
    """Write as parquet, or as CSV if parquet refuses (mixed objects, complex numbers, columns of one name)."""
    table = value if value.ndim > 1 else value.to_frame(name="value" if value.name is None else value.name)
    try:
        table.to_parquet(folder / "value.parquet")
    except Exception:  # the library raises many kinds of errors
        (folder / "value.parquet").unlink(missing_ok=True)
        table.to_csv(folder / "value.csv")


def _speaks_arrow(value: object) -> bool:
    """Return whether a value gives its data as a stream of Arrow, as tables of polars, pyarrow and DuckDB do.

    A reader would be used up by that.
    """
    is_table = hasattr(type(value), "__arrow_c_stream__") and not hasattr(type(value), "__next__")
    return is_table and importlib.util.find_spec("pyarrow") is not None


def _dump_arrow(value: Any, folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    try:
        table = pyarrow.table(value)
    except (TypeError, ValueError, pyarrow.ArrowException):  # one column
        table = pyarrow.table({"value": pyarrow.chunked_array(value)})
    parquet.write_table(table, folder / "value.parquet")


def _table(value: Any) -> JsonObject:
    columns = {str(name): str(kind) for name, kind in value.dtypes.items()} if getattr(value, "ndim", 1) > 1 else {}
    rows = {"rows": len(value)} if hasattr(value, "__len__") else {}
    return {**rows, **({"columns": columns} if columns else {})}


def _array(value: Any) -> JsonObject:
    return {"shape": list(value.shape), "dtype": str(value.dtype)}


def _dump_xarray(value: Any, folder: Path) -> None:
    value.to_netcdf(folder / "value.nc", engine="h5netcdf")


def _dump_picture(value: Any, folder: Path) -> None:
    save_picture(value, folder / "picture.png")


KINDS: list[Kind] = [
    Kind("text", lambda value: type(value) is str, _dump_text),
    Kind(
        *("json", is_plain, _dump_json),
        lambda value: {"keys": list(value)[:100]} if isinstance(value, dict) else {},
    ),
    Kind("bytes", lambda value: type(value) is bytes, _dump_bytes),
    Kind("array", _is_array, _dump_array, _array),
    Kind("table", _is("pandas", "DataFrame", "Series"), _dump_pandas, _table),
    Kind("xarray", _is("xarray", "Dataset"), _dump_xarray),
    Kind("xarray array", _is("xarray", "DataArray"), _dump_xarray, _array),
    Kind("figure", _is("matplotlib.figure", "Figure"), _dump_picture, preview="picture.png"),
    Kind("image", _is("PIL.Image", "Image"), _dump_picture, preview="picture.png"),
    Kind("arrow", _speaks_arrow, _dump_arrow, _table),
]


# ---------------------------------------------------------------- values in one file of JSON


class NotJsonError(Exception):
    """Raised if JSON cannot represent the value."""


def spelled(value: object, level: int = 0) -> Any:
    """Return the value as JSON. Raises NotJsonError if there is none."""
    if is_plain(value):
        return value
    if level > MOST_LEVELS:
        raise NotJsonError
    if isinstance(value, Enum):
        return _by_pydantic(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, (str, int)):
        return str.__str__(value) if isinstance(value, str) else int(value)
    if hasattr(value, "_asdict"):  # a named tuple
        value = value._asdict()
    if isinstance(value, Mapping):
        if all(type(key) is str for key in value):
            return {key: spelled(item, level + 1) for key, item in value.items()}
        value = list(value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [spelled(item, level + 1) for item in _in_order(value)]
    if _is_number(value):
        return value.item()  # type: ignore[attr-defined]
    if isinstance(value, (*SCALARS, complex)) or is_model(value) or is_dataclass(value):
        return _by_pydantic(value)
    raise NotJsonError


def _in_order(value: Any) -> Any:
    """Return the items of a collection, sorted if it has no order."""
    if isinstance(value, (list, tuple)):
        return value
    try:
        return sorted(value)
    except TypeError:
        return sorted(value, key=repr)


def _is_number(value: object) -> bool:
    """Return whether a value is a NumPy number that JSON represents exactly."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.generic):
        return False
    return value.dtype.kind in "biuf" and value.dtype.itemsize <= 8


def _by_pydantic(value: object) -> Any:
    from pydantic_core import to_json

    try:
        return json.loads(to_json(value, inf_nan_mode="strings", fallback=_number))
    except Exception as error:  # whatever a class of the user raises
        raise NotJsonError from error


def _number(value: Any) -> Any:
    if not _is_number(value):
        raise NotJsonError
    return value.item()


def json_text(plain: object) -> str:
    """Return JSON as it is stored."""
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def is_model(value: object) -> bool:
    """Return whether a value is an instance of a pydantic model."""
    return not isinstance(value, type) and hasattr(value, "model_dump_json") and hasattr(value, "model_fields_set")


def fields_of(value: Any) -> dict[str, Any] | None:
    """Return the fields of a model or dataclass by their names; None for other values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in fields(value) if hasattr(value, item.name)}
    return dict(value) if is_model(value) else None
