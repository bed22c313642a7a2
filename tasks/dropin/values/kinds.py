"""Kinds of values, with how each is stored as files of a dataset and read back. Users can add kinds.

No value is pickled: stored values have to be readable in ten years, and equal values have to give equal bytes.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

from crucible_lineage.json_types import JsonObject
from crucible_lineage.pictures import save_picture

Described = JsonObject

SCALARS = (complex, datetime, date, time, timedelta, Decimal, UUID)


def _nothing(_: object) -> Described:
    """Describe a value by its kind alone."""
    return {}


@dataclass(frozen=True)
class Kind:
    """One kind of value. `dump` writes it into an empty folder, `load` reads it from there (None: it cannot be read
    back); `describe` returns metadata about it. `preview` is a glob for the file that is shown as its picture.
    """

    name: str
    accepts: Callable[[Any], bool]
    dump: Callable[[Any, Path], None]
    load: Callable[[Path], Any] | None = None
    describe: Callable[[Any], Described] = field(default=_nothing)
    preview: str | None = None


def add_kind(kind: Kind) -> None:
    """Add a kind that takes precedence over all existing ones."""
    KINDS.insert(0, kind)


def kind_of(value: object) -> Kind | None:
    """Return the first kind that accepts the value; None if there is none."""
    return next((kind for kind in KINDS if kind.accepts(value)), None)


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


# ---------------------------------------------------------------- plain values


def _dump_json(value: object, folder: Path) -> None:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    (folder / "value.json").write_text(text, encoding="utf-8")


def _load_json(folder: Path) -> Any:
    return json.loads((folder / "value.json").read_text(encoding="utf-8"))


def _is_tuple(value: object) -> bool:
    return type(value) is tuple and all(map(is_plain, value))


def _is_set(value: object) -> bool:
    return type(value) is set and all(type(item) in (str, int) for item in value) and len(set(map(type, value))) <= 1


def _is_not_finite(value: object) -> bool:
    return type(value) is float and not math.isfinite(value)


def _is_scalar(value: object) -> bool:
    return type(value) in SCALARS or isinstance(value, Enum)


def _dump_bytes(value: bytes, folder: Path) -> None:
    (folder / "value.bin").write_bytes(value)


def _dump_text(value: str, folder: Path) -> None:
    (folder / "value.txt").write_text(value, encoding="utf-8", newline="")


def _load_text(folder: Path) -> str:
    return (folder / "value.txt").read_bytes().decode()


# ---------------------------------------------------------------- arrays and tables


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray:  # a masked array would lose its mask
        return False
    return bool(value.dtype.kind not in "OV" or value.dtype.names) and not value.dtype.hasobject


def _dump_array(value: Any, folder: Path) -> None:
    import numpy as np

    np.save(folder / "value.npy", value, allow_pickle=False)


def _load_array(folder: Path) -> Any:
    import numpy as np

    return np.load(folder / "value.npy", allow_pickle=False)


def _is_number(value: object) -> bool:
    """Return whether JSON cannot represent a NumPy number: complex, a date, more than 64 bits."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.generic):
        return False
    return value.dtype.kind in "cMmS" or (value.dtype.kind == "f" and value.dtype.itemsize > 8)


def _dump_number(value: object, folder: Path) -> None:
    import numpy as np

    np.save(folder / "value.npy", np.asarray(value), allow_pickle=False)


def _load_number(folder: Path) -> Any:
    return _load_array(folder)[()]


def _dump_table(value: Any, folder: Path) -> None:
    """Write as parquet, or as CSV if parquet refuses (mixed objects, complex numbers, columns of one name)."""
    try:
        value.to_parquet(folder / "value.parquet")
    except Exception:  # the library raises many kinds of errors
        (folder / "value.parquet").unlink(missing_ok=True)
        value.to_csv(folder / "value.csv")


def _load_table(folder: Path) -> Any:
    import pandas as pd

    return pd.read_parquet(folder / "value.parquet")


def _dump_series(value: Any, folder: Path) -> None:
    _dump_table(value.to_frame(name="value" if value.name is None else value.name), folder)


def _load_series(folder: Path) -> Any:
    table = _load_table(folder)
    return table[table.columns[0]]


def _table(value: Any) -> Described:
    return {"rows": len(value), "columns": {str(name): str(kind) for name, kind in value.dtypes.items()}}


def _array(value: Any) -> Described:
    return {"shape": list(value.shape), "dtype": str(value.dtype)}


def _dump_xarray(value: Any, folder: Path) -> None:
    value.to_netcdf(folder / "value.nc", engine="h5netcdf")


def _load_xarray(name: str) -> Callable[[Path], Any]:
    def load(folder: Path) -> Any:
        import xarray

        with getattr(xarray, name)(folder / "value.nc", engine="h5netcdf") as opened:
            return opened.load()

    return load


# ---------------------------------------------------------------- pictures


def _dump_figure(value: Any, folder: Path) -> None:
    save_picture(value, folder / "figure.png")


def _dump_image(value: Any, folder: Path) -> None:
    save_picture(value, folder / "image.png")


# ---------------------------------------------------------------- records


def _is_model(value: object) -> bool:
    return not isinstance(value, type) and hasattr(value, "model_dump_json") and hasattr(value, "model_fields_set")


def _dump_model(value: Any, folder: Path) -> None:
    (folder / "value.json").write_text(value.model_dump_json(), encoding="utf-8")


def _is_dataclass(value: object) -> bool:
    return hasattr(type(value), "__dataclass_fields__") and not isinstance(value, type)


def _dump_typed(value: object, folder: Path) -> None:
    from pydantic import TypeAdapter

    (folder / "value.json").write_bytes(TypeAdapter(type(value)).dump_json(value))


def fields_of(value: object) -> dict[str, Any]:
    """Return the fields of a model or dataclass by their names."""
    if _is_dataclass(value):
        return {item.name: getattr(value, item.name) for item in fields(value) if hasattr(value, item.name)}  # type: ignore[arg-type]
    return dict(value) if _is_model(value) else {}  # type: ignore[call-overload]


def _class(value: object) -> Described:
    return {"class": f"{type(value).__module__}.{type(value).__qualname__}"}


def _mapping(value: Mapping[str, object]) -> Described:
    return {"keys": list(value)[:100]}


KINDS: list[Kind] = [
    Kind("text", lambda value: type(value) is str, _dump_text, _load_text),
    Kind("json", is_plain, _dump_json, _load_json, lambda value: _mapping(value) if isinstance(value, dict) else {}),
    Kind("not finite", _is_not_finite, lambda value, f: _dump_json(str(value), f), lambda f: float(_load_json(f))),
    Kind("tuple", _is_tuple, lambda value, folder: _dump_json(list(value), folder), lambda f: tuple(_load_json(f))),
    Kind("set", _is_set, lambda value, folder: _dump_json(sorted(value), folder), lambda f: set(_load_json(f))),
    Kind(
        "bytes",
        lambda value: type(value) is bytes,
        _dump_bytes,
        lambda folder: (folder / "value.bin").read_bytes(),
    ),
    Kind("array", _is_array, _dump_array, _load_array, _array),
    Kind("number", _is_number, _dump_number, _load_number, _array),
    Kind("table", _is("pandas", "DataFrame"), _dump_table, _load_table, _table),
    Kind("series", _is("pandas", "Series"), _dump_series, _load_series, lambda value: {"rows": len(value)}),
    Kind("xarray", _is("xarray", "Dataset"), _dump_xarray, _load_xarray("open_dataset")),
    Kind("xarray array", _is("xarray", "DataArray"), _dump_xarray, _load_xarray("open_dataarray"), _array),
    Kind("figure", _is("matplotlib.figure", "Figure"), _dump_figure, preview="figure.png"),
    Kind("image", _is("PIL.Image", "Image"), _dump_image, preview="image.png"),
    Kind("model", _is_model, _dump_model, None, _class),
    Kind("dataclass", _is_dataclass, _dump_typed, None, _class),
    Kind("scalar", _is_scalar, _dump_typed, None, _class),
]
