"""NeXus files: the scalars of each entry with their units, and the plot that the file itself calls its default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crucible_lineage.server.ingest.formats.acquisition import read_time
from crucible_lineage.server.ingest.formats.findings import Found
from crucible_lineage.server.ingest.formats.hdf5 import attributes, children, contents, is_group, opened, scalar, text
from crucible_lineage.server.ingest.formats.plot import heat, plot

__all__ = ["default_plot", "read_nexus"]

MAX_DEPTH = 6
MAX_PLOTTED_VALUES = 16 << 20  # chosen: what is larger is thinned out before it is read


def read_nexus(path: Path) -> Found | None:
    """Title, times and all other scalars as the entry groups them; the arrays under `hdf5`. None for another HDF5 file.

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
