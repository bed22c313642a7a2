"""HDF5 files, with what ScopeFoundry and NeXus say in them; and the arrays of NumPy's files.

Attributes and single values become metadata. Links and arrays that lie in other files are not followed: they would name
files of the server's. Nothing is unpickled.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage.server.ingest.formats.findings import (
    MAX_ENTRIES,
    Found,
    acquired,
    heat,
    plain,
    plot,
    read_time,
)

MAX_SCALAR_BYTES = 1 << 16


MAX_DEPTH = 6
MAX_PLOTTED_VALUES = 16 << 20  # chosen: what is larger is thinned out before it is read


MAX_READ_BYTES = 256 << 20  # chosen: an array beyond is described by its header


def read_hdf5(path: Path) -> Found | None:
    """Other HDF5: attributes of the root; under `hdf5`, all attributes, single values and shapes of arrays."""
    with opened(path) as file:
        if file is None:
            return None
        own = attributes(file)
        return Found({**own, "hdf5": contents(file)}, None, acquired(own))


def read_scopefoundry(path: Path) -> Found | None:
    """ScopeFoundry: settings of app, hardware and measurement, with units; a single measurement names the dataset's.

    Source: ScopeFoundry writes each component's settings as attributes of `<kind>/<name>/settings`, and their units as
    attributes of `units` below it.
    """
    with opened(path) as file:
        if file is None or not _is_scopefoundry(file):
            return None
        measurements = _settings_of_each(file, "measurement")
        metadata = {
            **attributes(file),
            "app": _settings(_child(file, "app")),
            "hardware": _settings_of_each(file, "hardware"),
            "measurement": measurements,
            "hdf5": {"datasets": contents(file)["datasets"]},
        }
        began = file.attrs.get("time_id")
    said = {"measurement": next(iter(measurements))} if len(measurements) == 1 else {}
    if hasattr(began, "__int__") and 0 < began < 1 << 33:
        said["timestamp"] = datetime.fromtimestamp(int(began), UTC).isoformat()
    return Found({key: value for key, value in metadata.items() if value}, None, said)


class opened:  # noqa: N801 - used as a function
    """The open file, or None for what is no HDF5 file or cannot be read as one here."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def __enter__(self) -> Any:
        try:
            # Optional: large, and most installations never see an HDF5 file.
            import h5py

            self._file = h5py.File(self._path, "r")
        except (ImportError, OSError):
            return None
        return self._file

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _is_scopefoundry(file: Any) -> bool:
    groups = [group for kind in ("hardware", "measurement") for group in _groups(_child(file, kind))]
    return "ScopeFoundry_type" in file.attrs or any(is_group(_child(group, "settings")) for _, group in groups)


def contents(file: Any) -> dict[str, Any]:
    """By path: attributes, single values, and shape and type of each array."""
    noted: dict[str, dict[str, Any]] = {"attributes": {}, "values": {}, "datasets": {}}

    def note(name: str, node: Any) -> None:
        found = {"attributes": attributes(node), "values": scalar(node)}
        if hasattr(node, "shape"):
            found["datasets"] = {"shape": list(node.shape or ()), "dtype": str(node.dtype)}
        for kind, value in found.items():
            if value not in (None, {}) and len(noted[kind]) < MAX_ENTRIES:
                noted[kind][name] = value

    file.visititems(note)
    return noted if noted["values"] else {kind: noted[kind] for kind in ("attributes", "datasets")}


def children(group: Any) -> list[tuple[str, Any]]:
    """Return what lies in a group of this file."""
    names = list(group)[:MAX_ENTRIES] if is_group(group) else []
    return [(name, node) for name in names if (node := _child(group, name)) is not None]


def _child(group: Any, name: str) -> Any:
    """Return what the group has under this name in this very file."""
    import h5py  # for an open file it is loaded already

    if not is_group(group) or isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        return None
    node = group.get(name)
    is_here = node is not None and node.file.filename == group.file.filename and not _lies_elsewhere(node)
    return node if is_here else None


def scalar(node: Any) -> Any:
    """The only value of a field, None where it has several, none, or one that JSON does not know."""
    if not hasattr(node, "shape") or node.size != 1 or _lies_elsewhere(node) or node.nbytes > MAX_SCALAR_BYTES:
        return None
    if node.dtype.kind not in "iufbSUO":
        return None
    try:
        value = node[()]
        return _understood(value.reshape(-1)[0] if getattr(value, "shape", ()) else value)
    except (OSError, TypeError, ValueError, KeyError):  # a filter that is not there, a reference
        return None


def _understood(value: object) -> Any:
    """A single value; None for bytes that are no text, as a string that was never ended has them."""
    if isinstance(value, bytes):
        value = value.rstrip(b"\0").decode("utf-8")  # whose error is a ValueError
    if _is_no_value(value):
        return None
    value = plain(value)
    if isinstance(value, str):
        value = value.strip()
        return value if value and all(character.isprintable() or character in "\n\t" for character in value) else None
    return None if isinstance(value, list | dict) else value


def text(value: Any) -> str | None:
    """An attribute as text, also one that comes as bytes or as the only member of a list."""
    while hasattr(value, "shape") and getattr(value, "size", 0) == 1 and getattr(value, "shape", ()):
        value = value.reshape(-1)[0]
    value = plain(value) if value is not None else None
    return None if value is None or isinstance(value, list | dict) else str(value)


def points_elsewhere(path: Path) -> bool:
    """True for an HDF5 file with any link or array that lies in other files, which a library would follow."""
    with opened(path) as file:
        return file is not None and _points_elsewhere(file, set())


def _points_elsewhere(group: Any, seen: set[Any]) -> bool:
    import h5py  # for an open file it is loaded already

    if group.id in seen:
        return False
    seen.add(group.id)
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            return True
        if isinstance(link, h5py.HardLink):
            node = group[name]
            if _lies_elsewhere(node) or (is_group(node) and _points_elsewhere(node, seen)):
                return True
    return False


def _lies_elsewhere(node: Any) -> bool:
    """True for an array whose bytes are in other files."""
    return hasattr(node, "shape") and (bool(node.external) or bool(node.is_virtual))


def _settings_of_each(file: object, kind: str) -> dict[str, Any]:
    return {name: _settings(group) for name, group in _groups(_child(file, kind))}


def _settings(group: object) -> dict[str, Any]:
    """The settings of one component, with its own attributes where they have other names."""
    if not is_group(group):
        return {}
    settings = _child(group, "settings")
    if not is_group(settings):
        return attributes(group)
    units = _child(settings, "units")
    found = {"units": attributes(units)} if is_group(units) and len(units.attrs) else {}
    return {**attributes(group), **found, **attributes(settings)}


def _groups(parent: object) -> list[tuple[str, Any]]:
    if not is_group(parent):
        return []
    return [(name, node) for name, node in children(parent) if is_group(node)]


def is_group(node: object) -> bool:
    return hasattr(node, "keys") and hasattr(node, "attrs")


def attributes(node: Any) -> dict[str, Any]:
    """Return the values written at the node: no references to what lies in the file, no bytes."""
    found: dict[str, Any] = {}
    for key in list(node.attrs)[:MAX_ENTRIES]:
        try:
            value = node.attrs[key]
            if not _is_no_value(value):
                found[str(key)] = plain(value.decode("utf-8") if isinstance(value, bytes) else value)
        except (OSError, TypeError, ValueError):  # a type that h5py cannot show, bytes that are no text
            continue
    return found


def _is_no_value(value: Any) -> bool:
    """True for a reference and what holds one, for raw bytes, and for nothing."""
    import h5py  # for an open file it is loaded already

    if isinstance(value, h5py.Empty | h5py.Reference):
        return True
    kind = value.dtype.kind if hasattr(value, "dtype") else None
    items = value.tolist() if kind in ("O", "V") else value
    if isinstance(items, list | tuple):
        return any(map(_is_no_value, items))
    return kind == "V" and isinstance(items, bytes)


def read_nexus(path: Path) -> Found | None:
    """NeXus (an `NXentry`): all single values with units; the default plot. None for another HDF5 file.

    Source: the NeXus manual; an entry is a group of class NXentry, the default plot its chain of `default`, `signal`
    and `axes`.
    """
    with opened(path) as file:
        if file is None:
            return None
        entries = [(name, node) for name, node in children(file) if _class(node) == "NXentry"]
        if not entries:
            return None
        told = {name: _scalars(entry, MAX_DEPTH) for name, entry in entries}
        facts = next(iter(told.values())) if len(told) == 1 else told
        metadata = {**attributes(file), **facts, "hdf5": {"datasets": contents(file)["datasets"]}}
        return Found(metadata, default_plot(file), _attributes(entries[0][1]))


def default_plot(file: Any) -> bytes | None:
    """Return the plot that the file names as its default, or else the first data that name their signal."""
    group, seen = file, 0
    while is_group(group) and (name := text(group.attrs.get("default"))) and seen < MAX_DEPTH:
        group, seen = dict(children(group)).get(name), seen + 1
    for data in [group, *_data_groups(file, MAX_DEPTH)]:
        if is_group(data) and (shown := _shown(data)) is not None:
            return shown
    return None


def _attributes(entry: object) -> dict[str, str]:
    """When the entry's measurement began, and with what instrument."""
    found = {"timestamp": read_time(scalar(dict(children(entry)).get("start_time")))}
    for _, node in children(entry):
        if _class(node) == "NXinstrument":
            found["instrument_name"] = scalar(dict(children(node)).get("name"))
    return {name: str(value) for name, value in found.items() if value}


def _scalars(group: object, depth: int) -> dict[str, Any]:
    """The single values below a group; of one with a unit, both."""
    found: dict[str, Any] = {}
    for name, node in children(group):
        if is_group(node):
            inner = _scalars(node, depth - 1) if depth else {}
            if inner:
                found[name] = inner
        elif (value := scalar(node)) is not None:
            unit = text(node.attrs.get("units"))
            found[name] = {"value": value, "unit": unit} if unit else value
    return found


def _class(node: Any) -> str | None:
    return text(node.attrs.get("NX_class")) if is_group(node) else None


def _data_groups(group: object, depth: int) -> list[Any]:
    """Groups of class NXdata, those nearer to the root first."""
    groups = [node for _, node in children(group) if is_group(node)]
    found = [node for node in groups if _class(node) == "NXdata"]
    return found + [inner for node in groups if depth for inner in _data_groups(node, depth - 1)]


def _shown(data: Any) -> bytes | None:
    """The signal over its axis, or as a picture."""
    fields = dict(children(data))
    name = text(data.attrs.get("signal")) or next((key for key, node in fields.items() if _is_old_signal(node)), None)
    signal = fields.get(name or "")
    if signal is None or not getattr(signal, "shape", None) or signal.dtype.kind not in "iuf":
        return None
    values = _thinned(signal)
    while values.ndim > 2:  # of many frames, the one in the middle
        values = values[values.shape[0] // 2]
    if values.ndim == 2:
        return heat(values)
    axis = _axis(data, fields, signal)
    x = _thinned(axis) if axis is not None else range(len(values))
    label = str(name) if axis is None else f"{name} over {axis.name.rpartition('/')[2]}"
    length = min(len(x), len(values))
    return plot([float(one) for one in x[:length]], [float(one) for one in values[:length]], label)


def _axis(data: Any, fields: dict[str, Any], signal: Any) -> Any:
    """The numbers along a signal of one dimension, None where it names none that fit: as many, or one more as edges."""
    named = data.attrs.get("axes", signal.attrs.get("axes"))
    several = hasattr(named, "__len__") and not isinstance(named, str | bytes) and len(named)
    axis = fields.get(text(named[0] if several else named) or "")
    if axis is None or getattr(axis, "ndim", 0) != 1 or axis.dtype.kind not in "iuf":
        return None
    return axis if 0 <= len(axis) - len(signal) <= 1 else None


def _is_old_signal(node: Any) -> bool:
    return hasattr(node, "shape") and text(node.attrs.get("signal")) == "1"


def _thinned(node: Any) -> Any:
    """The values, or every so many of the first dimension where they are too many to be read."""
    total = 1
    for size in node.shape:
        total *= size
    return node[:: max(1, -(-total // MAX_PLOTTED_VALUES))] if node.shape else node[()]


def read_arrays(path: Path) -> Found | None:
    """Under `numpy`: shape, type and range of each array, nothing unpickled; single values under `values`."""
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
