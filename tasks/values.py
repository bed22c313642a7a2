"""Values as files of a dataset: kinds, one file of JSON, and those in lists, tuples and dicts. Paths are their files.

No value is pickled: stored values have to be readable in ten years, and equal values have to give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from crucible_lineage.json_types import JsonObject
from crucible_lineage.machine.checksums import scan_file
from crucible_lineage.machine.opened import names_file
from crucible_lineage.machine.pictures import save_picture
from crucible_lineage.registration.payload import LocalFile
from crucible_lineage.text.masking import is_key_file

SCALARS = (datetime, date, time, timedelta, Decimal, UUID)
MOST_LEVELS = 50  # of nested lists and dicts


@dataclass(frozen=True)
class Kind:
    """One kind of value: `dump` writes it into an empty folder, `describe` returns metadata about it, and `preview` is
    the name of the file that is shown as its picture.
    """

    name: str
    accepts: Callable[[Any], bool]
    dump: Callable[[Any, Path], object]
    describe: Callable[[Any], JsonObject] | None = None
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


def _is_table(value: Any) -> bool:
    """Return whether a value gives its data as a stream of Arrow, as tables do; a reader would be used up by that."""
    is_arrow = hasattr(type(value), "__arrow_c_stream__") and not hasattr(type(value), "__next__")
    return is_arrow or _is("pandas", "DataFrame", "Series")(value)


def _dump_table(value: Any, folder: Path) -> None:
    """Write as parquet, or as CSV what parquet refuses (mixed objects, complex numbers, columns of one name)."""
    if _is("pandas", "Series")(value):
        value = value.to_frame(name="value" if value.name is None else value.name)
    path = folder / "value.parquet"
    try:
        import pyarrow
        from pyarrow import parquet

        try:
            table = pyarrow.table(value)
        except (TypeError, ValueError, pyarrow.ArrowException):  # one column
            table = pyarrow.table({"value": pyarrow.chunked_array(value)})
        parquet.write_table(table, path)
    except Exception:  # the libraries raise many kinds of errors
        path.unlink(missing_ok=True)
        if not hasattr(value, "to_csv"):
            raise
        value.to_csv(folder / "value.csv")


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
    Kind(
        "text",
        lambda value: type(value) is str,
        lambda value, at: (at / "value.txt").write_text(value, encoding="utf-8", newline=""),
    ),
    Kind(
        *("json", is_plain, lambda value, at: (at / "value.json").write_text(json_text(value), encoding="utf-8")),
        lambda value: {"keys": list(value)[:100]} if isinstance(value, dict) else {},
    ),
    Kind("bytes", lambda value: type(value) is bytes, lambda value, at: (at / "value.bin").write_bytes(value)),
    Kind("array", _is_array, _dump_array, _array),
    Kind("table", _is_table, _dump_table, _table),
    Kind("xarray", _is("xarray", "Dataset"), _dump_xarray),
    Kind("xarray array", _is("xarray", "DataArray"), _dump_xarray, _array),
    Kind("figure", _is("matplotlib.figure", "Figure"), _dump_picture, preview="picture.png"),
    Kind("image", _is("PIL.Image", "Image"), _dump_picture, preview="picture.png"),
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
    if isinstance(value, (set, frozenset)):  # which have no order
        try:
            value = sorted(value)
        except TypeError:
            value = sorted(value, key=repr)
    if isinstance(value, (list, tuple)):
        return [spelled(item, level + 1) for item in value]
    if isinstance(value, (*SCALARS, complex)) or is_model(value) or is_dataclass(value):
        return _by_pydantic(value)
    return _number(value)


def _by_pydantic(value: object) -> Any:
    try:
        return json.loads(to_json(value, inf_nan_mode="strings", fallback=_number))
    except Exception as error:  # whatever a class of the user raises
        raise NotJsonError from error


def _number(value: Any) -> Any:
    """Return a NumPy number that JSON represents exactly. Raises NotJsonError for other values."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.generic):
        raise NotJsonError
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
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


# ---------------------------------------------------------------- values as files

DESCRIPTION = "description"  # the kind of what is not stored
MOST_PARTS = 200  # of a list, tuple or dict; each is a file of its own


class NotStorableError(Exception):
    """Raised if the value is of no kind that can be stored; the message names its class."""


@dataclass(frozen=True)
class Stored:
    """A value as files, with the document that says which file holds what."""

    document: JsonObject
    files: tuple[LocalFile, ...]
    paths: Mapping[Path, str] = field(default_factory=dict)  # the names here of files that were copied
    described: Mapping[str, str] = field(default_factory=dict)  # files that only describe a value, and the reason

    @property
    def is_whole(self) -> bool:
        """Whether more than its class is stored."""
        return self.document.get("kind") != DESCRIPTION

    @property
    def digest(self) -> str:
        """SHA-256 over the bytes of the files."""
        return digest_of(file.ref.sha256 for file in self.files)


def digest_of(hashes: Iterable[str]) -> str:
    """Return the SHA-256 over the files' SHA-256, whatever their names."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def store_value(value: object, folder: Path, prefix: str = "", given: Collection[Path] = ()) -> Stored:
    """Write the value as files into the folder, with names that begin with `prefix`; else a description of it.

    Strings that name files stand for these files; in lists and dicts, paths `given` to the call stay strings.
    """
    try:
        return _stored(value, folder, prefix, given)
    except NotStorableError as error:
        return described_only(value, folder, str(error), prefix)


def _stored(value: object, folder: Path, prefix: str, given: Collection[Path]) -> Stored:
    if isinstance(value, Path):
        return _path(value, folder, prefix)
    if type(value) is str and names_file(value) and not (prefix and Path(value) in given):
        return _path(Path(value), folder, prefix)
    if holds_path_text(value, given):
        return _container(value, folder, prefix, given)
    if (kind := kind_of(value)) is not None:
        return _of_kind(kind, value, folder, prefix)
    with suppress(NotJsonError):
        return _spelled(value, folder, prefix)
    if (fields := fields_of(value)) is not None:
        stored = _container(fields, folder, prefix)
        return replace(stored, document={**stored.document, "class": _class_name(value)})
    if isinstance(value, (list, tuple, Mapping)):
        return _container(value, folder, prefix, given)
    raise NotStorableError(f"a {_class_name(value)}")


def described_only(value: object, folder: Path, reason: str, prefix: str = "") -> Stored:
    """Write a file with the class of a value that is not stored."""
    path = folder / f"{prefix}value.txt"
    name = _class_name(value)
    path.write_text(f"a value of class {name}, which was not stored\n", encoding="utf-8")
    document = {"kind": DESCRIPTION, "class": name, "files": [path.name]}
    return Stored(document, (_file(path),), described={path.name: reason})


def _class_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def parts_of(document: JsonObject, value: Any) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield a stored value and those stored in it, each with the names of its files (none: all of the files)."""
    yield value, tuple(document.get("files", ()))
    if "parts" in document:
        whole = value if (fields := fields_of(value)) is None else fields
        items = whole.values() if isinstance(whole, Mapping) else whole
        for part, item in zip(document["parts"], items, strict=True):
            yield from parts_of(part, item)


def _of_kind(kind: Kind, value: object, folder: Path, prefix: str) -> Stored:
    own = Path(tempfile.mkdtemp(dir=folder)) if prefix else folder  # which is empty
    try:
        kind.dump(value, own)
    except Exception as error:  # whatever the library or the user's own kind raises
        raise NotStorableError(
            f"a {_class_name(value)} ({type(error).__name__} when written as {kind.name})"
        ) from error
    written = sorted(own.iterdir())
    names = [path.replace(folder / f"{prefix}{path.name}") for path in written] if prefix else written
    files = tuple(_file(path, preview=not prefix and path.name == kind.preview) for path in names)
    more = kind.describe(value) if kind.describe else {}
    return Stored({"kind": kind.name, "files": [path.name for path in names], **more}, files)


def _spelled(value: object, folder: Path, prefix: str) -> Stored:
    """Store as one file of JSON. Raises NotJsonError if JSON cannot represent the value."""
    plain, path = json_text(spelled(value)), folder / f"{prefix}value.json"
    path.write_text(plain, encoding="utf-8")
    return Stored({"kind": "json", "files": [path.name], "class": _class_name(value)}, (_file(path),))


def _container(value: Any, folder: Path, prefix: str, given: Collection[Path] = ()) -> Stored:
    items = list(value.items()) if isinstance(value, Mapping) else list(enumerate(value))
    if len(items) > MOST_PARTS:
        raise NotStorableError(
            f"a {type(value).__name__} of {len(items)} values, of which at most {MOST_PARTS} are stored"
        )
    if not all(type(key) in (str, int) for key, _ in items):
        raise NotStorableError("a dict with keys that are neither text nor numbers")
    prefixes = _prefixes([key for key, _ in items])
    parts = [store_value(item, folder, f"{prefix}{own}", given) for (_, item), own in zip(items, prefixes, strict=True)]
    document: JsonObject = {"kind": "list", "parts": [part.document for part in parts]}
    if isinstance(value, Mapping):
        document |= {"kind": "dict", "keys": [key for key, _ in items]}
    return Stored(
        document,
        tuple(file for part in parts for file in part.files),
        {path: name for part in parts for path, name in part.paths.items()},
        described={name: reason for part in parts for name, reason in part.described.items()},
    )


def _prefixes(keys: list[Any]) -> list[str]:
    """Return the prefix of each value's files: its key, with a number if keys alone might be ambiguous."""
    prefixes = [re.sub(r"[^\w.-]", "_", str(key)) + "-" for key in keys]
    ordered = sorted(prefixes)
    if any(later.startswith(earlier) for earlier, later in pairwise(ordered)):
        width = len(str(len(keys) - 1))
        return [f"{index:0{width}}-{stem}" for index, stem in enumerate(prefixes)]
    return prefixes


def _path(path: Path, folder: Path, prefix: str) -> Stored:
    """Copy the files that a path names, so that later changes by the flow do not matter."""
    if path.is_file():
        paths, base = [path], path.parent
        if is_key_file(path):
            raise NotStorableError(f"the path of a file of keys: {path.name}")
    elif path.is_dir():
        files_below = (file for file in path.rglob("*") if file.is_file() and not is_key_file(file))
        paths, base = sorted(files_below), path
    else:
        raise NotStorableError(f"the path of a file that is not there: {path.name}")
    if not paths or len(paths) > MOST_PARTS:
        raise NotStorableError(f"a folder of {len(paths)} files, of which one to {MOST_PARTS} are stored")
    files = tuple(copy_file(file, folder, f"{prefix}{flat(file.relative_to(base))}") for file in paths)
    document = {"kind": "path", "files": [file.ref.name for file in files]}
    return Stored(document, files, dict(zip(paths, document["files"], strict=True)))


def copy_file(path: Path, folder: Path, name: str) -> LocalFile:
    """Copy a file into the folder under this name."""
    target = folder / name
    shutil.copyfile(path, target)
    return _file(target)


def _file(path: Path, *, preview: bool = False) -> LocalFile:
    return LocalFile.of(path, scan_file(path), preview=preview)


def flat(path: PurePath) -> str:
    """Return a relative path as a plain name, since Crucible has no folders."""
    return "__".join(path.parts)


def holds_path_text(value: object, given: Collection[Path] = (), depth: int = 4) -> bool:
    """Return whether strings in a list, tuple or dict name files other than those given."""
    if type(value) not in (list, tuple, dict) or len(value) > MOST_PARTS:  # type: ignore[arg-type]
        return False
    for item in value.values() if isinstance(value, dict) else value:  # type: ignore[attr-defined]
        if type(item) is str and names_file(item) and Path(item) not in given:
            return True
        if depth and holds_path_text(item, given, depth - 1):
            return True
    return False


def plain_digest(value: object) -> str:
    """Return the digest of a list or dict stored alone as JSON; empty if it is stored otherwise."""
    if not isinstance(value, (list, dict)) or holds_path_text(value):
        return ""
    try:
        return digest_of([hashlib.sha256(json_text(spelled(value)).encode()).hexdigest()])
    except NotJsonError:
        return ""
