"""Formats of microscopes and spectrometers by RosettaSciIO: the measured signal, its axes and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from crucible_lineage.server.ingest.formats.acquisition import read_time
from crucible_lineage.server.ingest.formats.findings import Found, plain
from crucible_lineage.server.ingest.formats.hdf5 import points_elsewhere
from crucible_lineage.server.ingest.formats.plot import heat, plot

__all__ = ["MICROSCOPY", "read_signals"]

MAX_READ_BYTES = 256 << 20  # chosen: of a larger signal only axes and metadata are read
MAX_SIGNALS = 50

# By name: the plugin of RosettaSciIO, and the suffixes that no other kind of file shares.
_PLUGINS: dict[str, tuple[str, frozenset[str]]] = {
    "DigitalMicrographIngestor": ("digitalmicrograph", frozenset({".dm3", ".dm4"})),
    "EMDIngestor": ("emd", frozenset({".emd"})),
    "FEISeriesIngestor": ("tia", frozenset({".ser"})),
    "BrukerIngestor": ("bruker", frozenset({".bcf"})),
    "MRCIngestor": ("mrc", frozenset({".mrc"})),
    "EMSAIngestor": ("msa", frozenset({".msa", ".ems", ".emsa"})),
    "RenishawIngestor": ("renishaw", frozenset({".wdf"})),
    "DigitalSurfIngestor": ("digitalsurf", frozenset({".sur", ".pro"})),
    "HyperSpyIngestor": ("hspy", frozenset({".hspy"})),
}


def read_signals(plugin: str, path: Path) -> Found | None:
    """Under `signals` each one's axes, type and metadata; the first is shown.

    None without RosettaSciIO, and for a file by which it would read others.
    """
    try:
        # Optional, and slow to import: only these files need it.
        reader = import_module(f"rsciio.{plugin}").file_reader
    except ImportError:
        return None
    if points_elsewhere(path):
        return None
    signals = _read(reader, path)
    told = [_told(signal) for signal in signals[:MAX_SIGNALS]]
    general = signals[0].get("metadata", {}) if signals else {}
    return Found({"signals": told}, _picture(signals[0]) if signals else None, _attributes(general))


MICROSCOPY: tuple[tuple[str, frozenset[str], Callable[[Path], Found | None], tuple[str, ...]], ...] = tuple(
    (name, suffixes, partial(read_signals, plugin), (f"rsciio.{plugin}",))
    for name, (plugin, suffixes) in _PLUGINS.items()
)


def _read(reader: Any, path: Path) -> list[dict[str, Any]]:
    """The signals, lazily where the format has that."""
    try:
        return list(reader(str(path), lazy=True))
    except (NotImplementedError, TypeError, ValueError):  # not every file lies in pieces
        return list(reader(str(path)))


def _told(signal: Mapping[str, Any]) -> dict[str, Any]:
    data = signal["data"]
    axes = [
        {
            name: value
            for name in ("name", "units", "size", "scale", "offset")
            if (value := _plain(axis.get(name))) is not None
        }
        for axis in signal.get("axes", ())
    ]
    told = {
        "shape": list(data.shape),
        "dtype": str(data.dtype),
        "axes": axes,
        "metadata": _plain(signal.get("metadata", {})),
    }
    return {name: value for name, value in told.items() if value not in ({}, [])}


def _plain(value: object) -> Any:
    """A value as JSON can hold it; what is empty is left out, and so is what the reader only notes for itself."""
    if isinstance(value, Mapping):
        inner = {str(key): _plain(item) for key, item in value.items() if not str(key).startswith(("_", "FileIO"))}
        return {key: item for key, item in inner.items() if item not in (None, "", {}, [])}
    if isinstance(value, datetime | date):
        return value.isoformat()
    return (
        plain(value)
        if value is None or isinstance(value, str | int | float | bool | list | tuple) or hasattr(value, "tolist")
        else None
    )


def _attributes(metadata: Mapping[str, Any]) -> dict[str, str]:
    """When it was measured and with what, in the words that all of RosettaSciIO's readers share."""
    general = metadata.get("General", {})
    taken = read_time(f"{general.get('date', '')} {general.get('time', '')}", str(general.get("time_zone", "") or ""))
    taken = taken or read_time(f"{general.get('date', '')} {general.get('time', '')}")
    kinds = metadata.get("Acquisition_instrument", {})
    names = [kind["microscope"] for kind in kinds.values() if isinstance(kind, Mapping) and kind.get("microscope")]
    return ({"timestamp": taken} if taken else {}) | ({"instrument_name": str(names[0])} if names else {})


def _picture(signal: Mapping[str, Any]) -> bytes | None:
    """A spectrum as a line, an image as it is, a stack by the sum over what it was scanned over or spectra hold."""
    data, axes = signal["data"], list(signal.get("axes", ()))
    if data.nbytes > MAX_READ_BYTES or data.dtype.kind not in "iufb" or not data.ndim or len(axes) != data.ndim:
        return None
    values = data.compute(scheduler="synchronous") if hasattr(data, "compute") else data
    scanned = [index for index, axis in enumerate(axes) if axis.get("navigate")]
    measured = [index for index in range(values.ndim) if index not in scanned]
    if values.ndim > 2:  # a map of spectra becomes a map, anything else one image
        values = values.sum(
            axis=tuple(measured if len(scanned) == 2 and len(measured) == 1 else scanned or measured[:-2])
        )
    if values.ndim == 1:
        return _line(values, axes[measured[0] if len(measured) == 1 else scanned[0]])
    return heat(values) if values.ndim == 2 else None


def _line(values: Any, axis: Mapping[str, Any]) -> bytes | None:
    scale, offset = float(axis.get("scale", 1) or 1), float(axis.get("offset", 0) or 0)
    unit = f"({axis['units']})" if isinstance(axis.get("units"), str) else ""
    label = " ".join(filter(None, (str(axis.get("name") or ""), unit)))
    return plot([offset + scale * place for place in range(len(values))], [float(one) for one in values], label)
