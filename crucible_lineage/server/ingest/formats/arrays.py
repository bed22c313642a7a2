"""NumPy's files: shape, type and range of each array, a picture of the first that has one. Nothing is unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crucible_lineage.server.ingest.formats.findings import MAX_ENTRIES, Found, plain
from crucible_lineage.server.ingest.formats.plot import heat, plot

__all__ = ["picture_of", "read_arrays"]

MAX_READ_BYTES = 256 << 20  # chosen: an array beyond is described by its header


def read_arrays(path: Path) -> Found | None:
    """Under `numpy` what each array is; single values under `values`. None for what is no such file."""
    try:
        import numpy as np
    except ImportError:
        return None
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    arrays: dict[str, Any] = {"array": loaded}
    if not isinstance(loaded, np.ndarray):
        with loaded:
            arrays = {
                name: array for name in loaded.files[:MAX_ENTRIES] if (array := _member(loaded, name)) is not None
            }
    values = {
        name: plain(array.item()) for name, array in arrays.items() if array.ndim == 0 and array.dtype.kind in "iufbSU"
    }
    shown = {name: _described(array) for name, array in arrays.items() if name not in values}
    told = {"arrays": shown} | ({"values": values} if values else {})
    thumbnail = next((png for array in arrays.values() if (png := picture_of(array)) is not None), None)
    return Found({"numpy": told}, thumbnail)


def picture_of(array: Any) -> bytes | None:
    """A line for one dimension, or for two columns; a picture for two; of more dimensions the frame in the middle."""
    if array.dtype.kind not in "iufb" or array.nbytes > MAX_READ_BYTES:
        return None
    while array.ndim > 2 and not (array.ndim == 3 and array.shape[-1] in (3, 4)):
        array = array[array.shape[0] // 2]
    if array.ndim == 3:  # colours
        array = array[..., :3].mean(axis=2)
    if array.ndim == 1 and len(array) > 1:
        return plot(list(range(len(array))), [float(one) for one in array], "value over index")
    if array.ndim == 2 and array.shape[1] == 2 and len(array) > 2:
        return plot([float(one) for one in array[:, 0]], [float(one) for one in array[:, 1]], "column 2 over 1")
    return heat(array) if array.ndim == 2 and min(array.shape) > 1 else None


def _member(archive: Any, name: str) -> Any:
    """One array of an archive, None for one that only unpickling could read."""
    try:
        return archive[name]
    except ValueError:
        return None


def _described(array: Any) -> dict[str, Any]:
    import numpy as np

    described: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    if array.dtype.kind in "iuf" and 0 < array.nbytes <= MAX_READ_BYTES:
        finite = array[np.isfinite(array)]
        described |= {"min": plain(finite.min()), "max": plain(finite.max())} if finite.size else {}
    return described
