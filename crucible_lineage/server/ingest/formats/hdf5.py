"""HDF5 files: attributes and single values become metadata; those of ScopeFoundry tell what was set on each device.

Links and arrays that lie in other files are not followed: they would name files of the server's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage.server.ingest.formats.acquisition import acquired
from crucible_lineage.server.ingest.formats.findings import MAX_ENTRIES, Found, plain

__all__ = [
    "attributes", "children", "contents", "is_group", "opened", "points_elsewhere", "read_hdf5", "read_scopefoundry",
    "scalar", "text",
]  # fmt: skip

MAX_SCALAR_BYTES = 1 << 16


def read_hdf5(path: Path) -> Found | None:
    """The root's attributes as they are; under `hdf5` those of all else, single values, and the form of each array."""
    with opened(path) as file:
        if file is None:
            return None
        own = attributes(file)
        return Found({**own, "hdf5": contents(file)}, None, acquired(own))


def read_scopefoundry(path: Path) -> Found | None:
    """Root attributes, `app`, `hardware` and `measurement` settings; the only measurement names the dataset's.

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
