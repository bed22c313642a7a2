"""Kinds of values, with how each is stored as files of a dataset and read back, and values that are JSON.

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
MOST_CLASSES = 1000  # in one list or dict; with more, the value is stored but cannot be read back
OTHER = "other"  # a class that cannot be read back

Classes = Any
"""None if JSON returns an equal value, the name of a class, or a list of the container's kind and its items'."""


def _nothing(value: object) -> JsonObject:  # noqa: ARG001 (of the form of all descriptions)
    """Return no metadata."""
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


def _load_json(folder: Path) -> Any:
    return json.loads((folder / "value.json").read_text(encoding="utf-8"))


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


def _load_array(folder: Path) -> Any:
    import numpy as np

    array = np.load(folder / "value.npy", allow_pickle=False)
    return array if array.ndim else array[()]


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


def _dump_series(value: Any, folder: Path) -> None:
    _dump_table(value.to_frame(name="value" if value.name is None else value.name), folder)


def _load_series(folder: Path) -> Any:
    table = _load_table(folder)
    return table[table.columns[0]]


def _array(value: Any) -> JsonObject:
    return {"shape": list(value.shape), "dtype": str(value.dtype)}


def _dump_xarray(value: Any, folder: Path) -> None:
    value.to_netcdf(folder / "value.nc", engine="h5netcdf")


def _load_xarray(name: str) -> Callable[[Path], Any]:
    def load(folder: Path) -> Any:
        import xarray

        with getattr(xarray, name)(folder / "value.nc", engine="h5netcdf") as opened:
            return opened.load()

    return load


def _dump_picture(value: Any, folder: Path) -> None:
    save_picture(value, folder / "picture.png")


KINDS: list[Kind] = [
    Kind("text", lambda value: type(value) is str, _dump_text, lambda f: (f / "value.txt").read_bytes().decode()),
    Kind(
        *("json", is_plain, _dump_json, _load_json),
        lambda value: {"keys": list(value)[:100]} if isinstance(value, dict) else {},
    ),
    Kind(
        *("bytes", lambda value: type(value) is bytes), _dump_bytes, lambda folder: (folder / "value.bin").read_bytes()
    ),
    Kind("array", _is_array, _dump_array, _load_array, _array),
    Kind(
        *("table", _is("pandas", "DataFrame"), _dump_table, _load_table),
        lambda value: {"rows": len(value), "columns": {str(name): str(kind) for name, kind in value.dtypes.items()}},
    ),
    Kind("series", _is("pandas", "Series"), _dump_series, _load_series, lambda value: {"rows": len(value)}),
    Kind("xarray", _is("xarray", "Dataset"), _dump_xarray, _load_xarray("open_dataset")),
    Kind("xarray array", _is("xarray", "DataArray"), _dump_xarray, _load_xarray("open_dataarray"), _array),
    Kind("figure", _is("matplotlib.figure", "Figure"), _dump_picture, preview="picture.png"),
    Kind("image", _is("PIL.Image", "Image"), _dump_picture, preview="picture.png"),
    Kind(
        "arrow",
        _speaks_arrow,
        _dump_arrow,
        describe=lambda value: {"rows": len(value)} if hasattr(value, "__len__") else {},
    ),
]


# ---------------------------------------------------------------- values in one file of JSON


class NotJsonError(Exception):
    """Raised if JSON cannot represent the value."""


def spelled(value: object, level: int = 0) -> tuple[Any, Classes]:
    """Return the value as JSON and the classes that `read_spelled` needs. Raises NotJsonError if there is no JSON."""
    if is_plain(value):
        return value, None
    if level > MOST_LEVELS:
        raise NotJsonError
    if isinstance(value, Enum):
        return _by_pydantic(value)
    if isinstance(value, float):
        return _float(value)
    if type(value) is complex:
        return str(value), "complex"
    if isinstance(value, (str, int)):
        plain = str.__str__(value) if isinstance(value, str) else int(value)
        return plain, _number_class(value) or OTHER
    if isinstance(value, Mapping):
        return _mapping(value, level)
    if isinstance(value, (list, tuple, set, frozenset)):
        return _items(value, level)
    if (name := _number_class(value)) is not None:
        return value.item(), name  # type: ignore[attr-defined]
    if isinstance(value, SCALARS) or is_model(value) or is_dataclass(value):
        return _by_pydantic(value)
    raise NotJsonError


def read_spelled(plain: Any, classes: Classes) -> Any:
    """Return the value from its JSON. Raises whatever its class raises if it rejects the JSON."""
    if classes is None:
        return plain
    if isinstance(classes, str):
        return _read_one(plain, classes)
    name, item_classes = classes
    if name == "dict":
        return dict(zip(plain, _read_items(list(plain.values()), item_classes), strict=True))
    if name == "pairs":
        return dict(_read_items(plain, item_classes))
    container: Any = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[name]
    return container(_read_items(plain, item_classes))


def _float(value: float) -> tuple[Any, Classes]:
    name = _number_class(value) or ("float" if type(value) is float else OTHER)
    plain = float(value)
    return (plain, name) if math.isfinite(plain) else (str(plain), name)


def _number_class(value: object) -> str | None:
    """Return the class of a NumPy number that JSON represents exactly; None for other values."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.generic):
        return None
    return f"numpy.{value.dtype.name}" if value.dtype.kind in "biuf" and value.dtype.itemsize <= 8 else None


def _mapping(value: Mapping[Any, Any], level: int) -> tuple[Any, Classes]:
    """Return a mapping as a JSON object, or as pairs if keys are not strings."""
    if all(type(key) is str for key in value):
        items = [spelled(item, level + 1) for item in value.values()]
        item_classes = _classes([classes for _, classes in items])
        plain: Any = dict(zip(value, [plain for plain, _ in items], strict=True))
        return plain, ["dict", item_classes] if type(value) is dict else OTHER
    pairs, item_classes = _items(list(value.items()), level)
    return pairs, ["pairs", item_classes[1]] if type(value) is dict else OTHER


def _items(value: Any, level: int) -> tuple[Any, Classes]:
    if hasattr(value, "_asdict"):  # a named tuple
        return _mapping(value._asdict(), level)[0], OTHER
    items = value
    if isinstance(value, (set, frozenset)):
        try:
            items = sorted(value)
        except TypeError:
            items = sorted(value, key=repr)
    spellings = [spelled(item, level + 1) for item in items]
    name = type(value).__name__ if type(value) in (list, tuple, set, frozenset) else ""
    item_classes = _classes([classes for _, classes in spellings])
    return [plain for plain, _ in spellings], [name, item_classes] if name else OTHER


def _classes(classes: list[Classes]) -> Classes:
    """Return None, one class for all items, or one for each."""
    if not classes or all(other == classes[0] for other in classes):
        return {"each": classes[0]} if classes and classes[0] is not None else None
    return classes if len(classes) <= MOST_CLASSES else {"each": OTHER}


def _by_pydantic(value: object) -> tuple[Any, Classes]:
    from pydantic_core import to_json

    try:
        plain = json.loads(to_json(value, inf_nan_mode="strings", fallback=_number))
    except Exception as error:  # whatever a class of the user raises
        raise NotJsonError from error
    return plain, f"{type(value).__module__}.{type(value).__qualname__}"


def _number(value: Any) -> Any:
    if _number_class(value) is None:
        raise NotJsonError
    return value.item()


def _read_items(plain: list[Any], item_classes: Classes) -> list[Any]:
    each = (
        [item_classes["each"]] * len(plain) if isinstance(item_classes, dict) else item_classes or [None] * len(plain)
    )
    return [read_spelled(item, classes) for item, classes in zip(plain, each, strict=True)]


def _read_one(plain: Any, name: str) -> Any:
    if name == OTHER:
        raise NotJsonError
    if name in ("float", "complex"):
        return float(plain) if name == "float" else complex(plain)
    if name.startswith("numpy."):
        import numpy

        return numpy.dtype(name.removeprefix("numpy.")).type(plain)
    from pydantic import TypeAdapter

    module, _, qualname = name.rpartition(".")
    cls: Any = importlib.import_module(module)
    for part in qualname.split("."):
        cls = getattr(cls, part)
    return TypeAdapter(cls).validate_python(plain)


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
