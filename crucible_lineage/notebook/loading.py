"""Files as the values that people work with, by the ending of their names; others can be registered."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from crucible_lineage.errors import InputError

__all__ = ["add_loader", "load_file"]

Loader = Callable[[Path], Any]
GROUP = "crucible_lineage.loaders"  # entry points of packages that bring loaders, called by the ending without its dot


def add_loader(ending: str, loader: Loader) -> None:
    """From now on files whose names end so (as `.spc`, whatever the letters' case) are loaded by this function.

    It is given the path, and returns what `Dataset.load` gives. It takes the place of an earlier one.
    """
    if not ending.startswith(".") or len(ending) < 2:
        raise InputError(f"add a loader for {ending!r}: name an ending with its dot, as in '.spc'")
    _LOADERS[ending.lower()] = loader


def load_file(path: Path) -> Any:
    """Load a file: a DataFrame (`.csv`, `.tsv`, `.parquet`, `.xlsx`; without pandas a list of dicts for the
    first two), what JSON holds, an array (`.npy`, `.npz`), an open h5py.File (`.h5`, `.hdf5`, `.nxs`), a picture
    (`.png`, `.jpg`, `.tif`), a text (`.txt`, `.md`, `.log`), or what a registered loader gives.

    A first row of numbers only names no columns: it is data, and they are called `column_1` and so on. Semicolons
    separate where the first row has them and no comma but decimal ones.

    InputError if no loader knows the ending, its library is missing, or the file is not what its ending says.
    """
    endings = ["".join(path.suffixes[at:]).lower() for at in range(len(path.suffixes))]  # `.tar.gz` before `.gz`
    for ending in endings:
        if loader := _LOADERS.get(ending) or _installed(ending):
            return _loaded(loader, path, ending)
    raise InputError(
        f"load {path.name}: no loader knows {endings[-1] if endings else 'a name without an ending'}; register one "
        "with crucible_lineage.add_loader, or read the file at Dataset.path()"
    )


def _loaded(loader: Loader, path: Path, ending: str) -> Any:
    try:
        return loader(path)
    except ImportError as error:
        missing = error.name or str(error)
        raise InputError(f"load {path.name}: {ending} needs the library {missing}; pip install {missing}") from error
    except (
        ValueError,
        OSError,
        EOFError,
        BadZipFile,
    ) as error:  # what libraries raise of files that are not of their kind
        raise InputError(
            f"load {path.name}: it cannot be read as {ending}: {error}; read the file at Dataset.path(), or register "
            "a loader with crucible_lineage.add_loader"
        ) from error


def _installed(ending: str) -> Loader | None:
    for entry in entry_points(group=GROUP, name=ending.removeprefix(".")):
        loader: Loader = entry.load()
        return loader
    return None


def _csv(path: Path) -> Any:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        first = stream.readline()
        has_commas = any("," in line for line in (first, *stream))
    parts = first.strip().split(";")
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    if separator == "," and len(parts) > 1 and ("," not in first or _are_numbers(parts, ",")):
        separator = ";"
    decimal = "," if separator == ";" and has_commas else "."
    cells = next(csv.reader([first], delimiter=separator), [])
    names = [f"column_{at}" for at in range(1, len(cells) + 1)] if _are_numbers(cells, decimal) else None
    try:
        import pandas
    except ImportError:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream, fieldnames=names, delimiter=separator))
    return pandas.read_csv(path, sep=separator, decimal=decimal, header=None if names else "infer", names=names)


def _are_numbers(cells: list[str], decimal: str) -> bool:
    try:
        return bool([float(cell.replace(decimal, ".")) for cell in cells])
    except ValueError:
        return False


def _parquet(path: Path) -> Any:
    import pandas

    return pandas.read_parquet(path)


def _excel(path: Path) -> Any:
    import pandas

    return pandas.read_excel(path)


def _numpy(path: Path) -> Any:
    import numpy

    return numpy.load(path, allow_pickle=False)


def _hdf5(path: Path) -> Any:
    import h5py

    return h5py.File(path, "r")


def _picture(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()
        return picture


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


_LOADERS: dict[str, Loader] = {
    **dict.fromkeys((".csv", ".tsv"), _csv),
    **dict.fromkeys((".h5", ".hdf5", ".nxs"), _hdf5),
    **dict.fromkeys((".npy", ".npz"), _numpy),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp"), _picture),
    **dict.fromkeys((".txt", ".md", ".log"), _text),
    ".json": _json,
    ".parquet": _parquet,
    ".xlsx": _excel,
}
