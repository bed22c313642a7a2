"""Files as the values that people work with, by the ending of their names; others can be registered."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

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
    """What is in the file: a DataFrame (`.csv`, `.tsv`, `.parquet`, `.xlsx`; without pandas a list of dicts for the
    first two), what JSON holds, an array (`.npy`, `.npz`), an open h5py.File (`.h5`, `.hdf5`, `.nxs`), a picture
    (`.png`, `.jpg`, `.tif`), a text (`.txt`, `.md`, `.log`), or what a registered loader gives.

    InputError if no loader knows the ending, or the library that it needs is missing.
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


def _installed(ending: str) -> Loader | None:
    for entry in entry_points(group=GROUP, name=ending.removeprefix(".")):
        loader: Loader = entry.load()
        return loader
    return None


def _csv(path: Path) -> Any:
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        import pandas
    except ImportError:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream, delimiter=separator))
    return pandas.read_csv(path, sep=separator)


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
