"""HDF5 files, including those of ScopeFoundry and NeXus; and the arrays of NumPy's files.

Attributes and single values become metadata. Links and arrays in other files are not followed, because they would name
files of the server. Nothing is unpickled.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage.server.database import JsonObject
from crucible_lineage.server.ingest.formats.findings import (
    MAX_ENTRIES,
    Found,
    acquired,
    given,
    heat,
    plain,
    plot,
    read_time,
)

MAX_SCALAR_BYTES = 1 << 16


MAX_DEPTH = 6
MAX_PLOTTED_VALUES = 16 << 20  # chosen: larger arrays are thinned out while they are read


MAX_READ_BYTES = 256 << 20  # chosen: larger arrays are described by their header


def read_hdf5(path: Path) -> Found | None:
    """Other HDF5: attributes of the root; under `hdf5`, all attributes, single values and shapes of arrays."""
    with opened(path) as file:
        if file is None:
            return None
        root_attributes = attributes(file)
        return Found({**root_attributes, "hdf5": contents(file)}, None, acquired(root_attributes))


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
        start_time = file.attrs.get("time_id")
    fields = {"measurement": next(iter(measurements))} if len(measurements) == 1 else {}
    if hasattr(start_time, "__int__") and 0 < start_time < 1 << 33:
        fields["timestamp"] = datetime.fromtimestamp(int(start_time), UTC).isoformat()
    return Found({key: value for key, value in metadata.items() if value}, None, fields)


class opened:  # noqa: N801 - used as a function
    """An open HDF5 file, or None if the file is none or cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def __enter__(self) -> Any:
        try:
            # Optional: large, and most installations never get an HDF5 file.
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


def contents(file: Any) -> JsonObject:
    """Return attributes, single values, and shape and type of each array, by path."""
    result: dict[str, JsonObject] = {"attributes": {}, "values": {}, "datasets": {}}

    def collect(name: str, node: Any) -> None:
        properties = {"attributes": attributes(node), "values": scalar(node)}
        if hasattr(node, "shape"):
            properties["datasets"] = {"shape": list(node.shape or ()), "dtype": str(node.dtype)}
        for kind, value in properties.items():
            if value not in (None, {}) and len(result[kind]) < MAX_ENTRIES:
                result[kind][name] = value

    file.visititems(collect)
    return result if result["values"] else {kind: result[kind] for kind in ("attributes", "datasets")}


def children(group: Any) -> list[tuple[str, Any]]:
    """Return the members of a group that are in this file."""
    names = list(group)[:MAX_ENTRIES] if is_group(group) else []
    return [(name, node) for name in names if (node := _child(group, name)) is not None]


def _child(group: Any, name: str) -> Any:
    """Return the member of the group with this name, if it is in the same file."""
    import h5py  # loaded already if a file is open

    if not is_group(group) or isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        return None
    node = group.get(name)
    is_local = node is not None and node.file.filename == group.file.filename and not _lies_elsewhere(node)
    return node if is_local else None


def scalar(node: Any) -> Any:
    """Return the only value of a field; None if it has several, none, or one that JSON cannot represent."""
    if not hasattr(node, "shape") or node.size != 1 or _lies_elsewhere(node) or node.nbytes > MAX_SCALAR_BYTES:
        return None
    if node.dtype.kind not in "iufbSUO":
        return None
    try:
        value = node[()]
        return _json_value(value.reshape(-1)[0] if getattr(value, "shape", ()) else value)
    except (OSError, TypeError, ValueError, KeyError):  # a missing filter, a reference
        return None


def _json_value(value: object) -> Any:
    """Convert a single value; None for bytes that are not text, such as unterminated strings."""
    if isinstance(value, bytes):
        value = value.rstrip(b"\0").decode("utf-8")  # its error is a ValueError
    if _is_no_value(value):
        return None
    value = plain(value)
    if isinstance(value, str):
        value = value.strip()
        return value if value and all(character.isprintable() or character in "\n\t" for character in value) else None
    return None if isinstance(value, list | dict) else value


def text(value: Any) -> str | None:
    """Return an attribute as text, also if it is stored as bytes or as the only member of a list."""
    while hasattr(value, "shape") and getattr(value, "size", 0) == 1 and getattr(value, "shape", ()):
        value = value.reshape(-1)[0]
    value = plain(value) if value is not None else None
    return None if value is None or isinstance(value, list | dict) else str(value)


def points_elsewhere(path: Path) -> bool:
    """Return whether an HDF5 file has a link or array in other files, which a library would follow."""
    with opened(path) as file:
        return file is not None and _points_elsewhere(file, set())


def _points_elsewhere(group: Any, seen: set[Any]) -> bool:
    import h5py  # loaded already if a file is open

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
    """Return whether the bytes of an array are in other files."""
    return hasattr(node, "shape") and (bool(node.external) or bool(node.is_virtual))


def _settings_of_each(file: object, kind: str) -> JsonObject:
    return {name: _settings(group) for name, group in _groups(_child(file, kind))}


def _settings(group: object) -> JsonObject:
    """Return the settings of one component, with those of its own attributes that have other names."""
    if not is_group(group):
        return {}
    settings = _child(group, "settings")
    if not is_group(settings):
        return attributes(group)
    units = _child(settings, "units")
    unit_settings = {"units": attributes(units)} if is_group(units) and len(units.attrs) else {}
    return {**attributes(group), **unit_settings, **attributes(settings)}


def _groups(parent: object) -> list[tuple[str, Any]]:
    if not is_group(parent):
        return []
    return [(name, node) for name, node in children(parent) if is_group(node)]


def is_group(node: object) -> bool:
    return hasattr(node, "keys") and hasattr(node, "attrs")


def attributes(node: Any) -> JsonObject:
    """Return the attributes of a node, without references and raw bytes."""
    result: JsonObject = {}
    for key in list(node.attrs)[:MAX_ENTRIES]:
        try:
            value = node.attrs[key]
            if not _is_no_value(value):
                result[str(key)] = plain(value.decode("utf-8") if isinstance(value, bytes) else value)
        except (OSError, TypeError, ValueError):  # a type that h5py cannot convert, bytes that are not text
            continue
    return result


def _is_no_value(value: Any) -> bool:
    """Return whether the value is or contains a reference, or is raw bytes or empty."""
    import h5py  # loaded already if a file is open

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
        values = {name: _scalars(entry, MAX_DEPTH) for name, entry in entries}
        facts = next(iter(values.values())) if len(values) == 1 else values
        metadata = {**attributes(file), **facts, "hdf5": {"datasets": contents(file)["datasets"]}}
        return Found(metadata, default_plot(file), _attributes(entries[0][1]))


def default_plot(file: Any) -> bytes | None:
    """Draw the plot that the file names as its default, or else the first data that name their signal."""
    group, depth = file, 0
    while is_group(group) and (name := text(group.attrs.get("default"))) and depth < MAX_DEPTH:
        group, depth = dict(children(group)).get(name), depth + 1
    for data in [group, *_data_groups(file, MAX_DEPTH)]:
        if is_group(data) and (picture := _draw_data(data)) is not None:
            return picture
    return None


def _attributes(entry: object) -> dict[str, str]:
    """Return when the entry's measurement began, and the instrument."""
    fields = {"timestamp": read_time(scalar(dict(children(entry)).get("start_time")))}
    for _, node in children(entry):
        if _class(node) == "NXinstrument":
            fields["instrument_name"] = scalar(dict(children(node)).get("name"))
    return given(**fields)


def _scalars(group: object, depth: int) -> JsonObject:
    """Return the single values below a group, with their units if they have one."""
    result: JsonObject = {}
    for name, node in children(group):
        if is_group(node):
            inner = _scalars(node, depth - 1) if depth else {}
            if inner:
                result[name] = inner
        elif (value := scalar(node)) is not None:
            unit = text(node.attrs.get("units"))
            result[name] = {"value": value, "unit": unit} if unit else value
    return result


def _class(node: Any) -> str | None:
    return text(node.attrs.get("NX_class")) if is_group(node) else None


def _data_groups(group: object, depth: int) -> list[Any]:
    """Return the groups of class NXdata, those nearer to the root first."""
    groups = [node for _, node in children(group) if is_group(node)]
    direct = [node for node in groups if _class(node) == "NXdata"]
    return direct + [inner for node in groups if depth for inner in _data_groups(node, depth - 1)]


def _draw_data(data: Any) -> bytes | None:
    """Draw the signal over its axis, or as a picture."""
    fields = dict(children(data))
    name = text(data.attrs.get("signal")) or next((key for key, node in fields.items() if _is_old_signal(node)), None)
    signal = fields.get(name or "")
    if signal is None or not getattr(signal, "shape", None) or signal.dtype.kind not in "iuf":
        return None
    values = _read_sampled(signal)
    while values.ndim > 2:  # of many frames, the middle one
        values = values[values.shape[0] // 2]
    if values.ndim == 2:
        return heat(values)
    axis = _axis(data, fields, signal)
    x = _read_sampled(axis) if axis is not None else range(len(values))
    label = str(name) if axis is None else f"{name} over {axis.name.rpartition('/')[2]}"
    length = min(len(x), len(values))
    return plot([float(number) for number in x[:length]], [float(number) for number in values[:length]], label)


def _axis(data: Any, fields: JsonObject, signal: Any) -> Any:
    """Return the axis of a one-dimensional signal, with as many numbers, or one more as edges; None if none fits."""
    axes = data.attrs.get("axes", signal.attrs.get("axes"))
    is_list = hasattr(axes, "__len__") and not isinstance(axes, str | bytes) and len(axes)
    axis = fields.get(text(axes[0] if is_list else axes) or "")
    if axis is None or getattr(axis, "ndim", 0) != 1 or axis.dtype.kind not in "iuf":
        return None
    return axis if 0 <= len(axis) - len(signal) <= 1 else None


def _is_old_signal(node: Any) -> bool:
    return hasattr(node, "shape") and text(node.attrs.get("signal")) == "1"


def _read_sampled(node: Any) -> Any:
    """Read the values, or of too many only every nth along the first dimension."""
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
    arrays: JsonObject = {"array": loaded}
    if not isinstance(loaded, np.ndarray):
        with loaded:
            arrays = {
                name: array for name in loaded.files[:MAX_ENTRIES] if (array := _member(loaded, name)) is not None
            }
    values = {
        name: plain(array.item()) for name, array in arrays.items() if array.ndim == 0 and array.dtype.kind in "iufbSU"
    }
    descriptions = {name: _describe_array(array) for name, array in arrays.items() if name not in values}
    summary = {"arrays": descriptions} | ({"values": values} if values else {})
    thumbnail = next((png for array in arrays.values() if (png := picture_of(array)) is not None), None)
    return Found({"numpy": summary}, thumbnail)


def picture_of(array: Any) -> bytes | None:
    """Draw a line for one dimension or two columns, a picture for two dimensions, or the middle frame of more."""
    if array.dtype.kind not in "iufb" or array.nbytes > MAX_READ_BYTES:
        return None
    while array.ndim > 2 and not (array.ndim == 3 and array.shape[-1] in (3, 4)):
        array = array[array.shape[0] // 2]
    if array.ndim == 3:  # colours
        array = array[..., :3].mean(axis=2)
    if array.ndim == 1 and len(array) > 1:
        return plot(list(range(len(array))), [float(number) for number in array], "value over index")
    if array.ndim == 2 and array.shape[1] == 2 and len(array) > 2:
        return plot(
            [float(number) for number in array[:, 0]], [float(number) for number in array[:, 1]], "column 2 over 1"
        )
    return heat(array) if array.ndim == 2 and min(array.shape) > 1 else None


def _member(archive: Any, name: str) -> Any:
    """Return one array of an archive; None if reading it would need unpickling."""
    try:
        return archive[name]
    except ValueError:
        return None


def _describe_array(array: Any) -> JsonObject:
    import numpy as np

    described: JsonObject = {"shape": list(array.shape), "dtype": str(array.dtype)}
    if array.dtype.kind in "iuf" and 0 < array.nbytes <= MAX_READ_BYTES:
        finite = array[np.isfinite(array)]
        described |= {"min": plain(finite.min()), "max": plain(finite.max())} if finite.size else {}
    return described
