"""HDF5 files: attributes become metadata; files by ScopeFoundry are told by what was set on each device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crucible_lineage.server.ingest.formats.findings import MAX_ENTRIES, Found, plain

__all__ = ["read_hdf5", "read_scopefoundry"]


def read_hdf5(path: Path) -> Found | None:
    """The root's attributes as they are, and under `hdf5` those of all else with the shape and type of each array."""
    with _opened(path) as file:
        return None if file is None else Found({**_attributes(file), "hdf5": _contents(file)})


def read_scopefoundry(path: Path) -> Found | None:
    """Root attributes, `app`, `hardware` and `measurement` settings; the only measurement names the dataset's.

    Source: ScopeFoundry writes each component's settings as attributes of `<kind>/<name>/settings`, and their units as
    attributes of `units` below it.
    """
    with _opened(path) as file:
        if file is None or not _is_scopefoundry(file):
            return None
        measurements = _settings_of_each(file, "measurement")
        metadata = {
            **_attributes(file),
            "app": _settings(file.get("app")),
            "hardware": _settings_of_each(file, "hardware"),
            "measurement": measurements,
            "hdf5": {"datasets": _contents(file)["datasets"]},
        }
    name = next(iter(measurements)) if len(measurements) == 1 else None
    return Found({key: value for key, value in metadata.items() if value}, None, {"measurement": name} if name else {})


class _opened:  # noqa: N801 - used as a function
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
    groups = [group for kind in ("hardware", "measurement") for group in _groups(file.get(kind))]
    return "ScopeFoundry_type" in file.attrs or any(_is_group(group.get("settings")) for _, group in groups)


def _contents(file: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    arrays: dict[str, Any] = {}

    def note(name: str, node: Any) -> None:
        if len(attributes) < MAX_ENTRIES and (values := _attributes(node)):
            attributes[name] = values
        if hasattr(node, "shape") and len(arrays) < MAX_ENTRIES:
            arrays[name] = {"shape": list(node.shape or ()), "dtype": str(node.dtype)}

    file.visititems(note)
    return {"attributes": attributes, "datasets": arrays}


def _settings_of_each(file: Any, kind: str) -> dict[str, Any]:
    return {name: _settings(group) for name, group in _groups(file.get(kind))}


def _settings(group: Any) -> dict[str, Any]:
    """The settings of one component, with its own attributes where they have other names."""
    if not _is_group(group):
        return {}
    settings = group.get("settings")
    if not _is_group(settings):
        return _attributes(group)
    units = settings.get("units")
    found = {"units": _attributes(units)} if _is_group(units) and len(units.attrs) else {}
    return {**_attributes(group), **found, **_attributes(settings)}


def _groups(parent: Any) -> list[tuple[str, Any]]:
    if not _is_group(parent):
        return []
    return [(name, node) for name in list(parent)[:MAX_ENTRIES] if _is_group(node := parent.get(name))]


def _is_group(node: Any) -> bool:
    return hasattr(node, "keys") and hasattr(node, "attrs")


def _attributes(node: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in list(node.attrs)[:MAX_ENTRIES]:
        try:
            found[str(key)] = plain(node.attrs[key])
        except (OSError, TypeError, ValueError):  # a type that h5py cannot show
            found[str(key)] = None
    return found
