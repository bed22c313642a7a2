"""Pictures: size, tags and thumbnail; signals of microscopes and spectrometers, read by RosettaSciIO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.server.database import JsonObject
from crucible_lineage.server.ingest.formats.findings import (
    MAX_ENTRIES,
    THUMBNAIL_PX,
    Found,
    given,
    heat,
    plain,
    plot,
    read_time,
    square,
)
from crucible_lineage.server.ingest.formats.hdf5 import points_elsewhere

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# Only these, whatever the file's name: Pillow would start Ghostscript for what looks like EPS.
FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP")
MAX_PIXELS = 100_000_000  # chosen: larger pictures are described, but get no thumbnail
BROKEN = (OSError, ValueError, SyntaxError, EOFError)  # what Pillow raises for malformed bytes


MAX_READ_BYTES = 256 << 20  # chosen: of larger signals, only axes and metadata are read
MAX_SIGNALS = 50

# By name: the plugin of RosettaSciIO, and the suffixes that belong to this kind of file only.
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


def read_image(path: Path) -> Found | None:
    """Under `image`: size, mode, frames and tags; the picture, upright, unless it is huge or broken."""
    try:
        # Optional: only pictures need it.
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        return None
    Image.MAX_IMAGE_PIXELS = None  # `MAX_PIXELS` instead of a warning
    try:
        with Image.open(path, formats=FORMATS) as image:
            tags = _tags(image)
            properties = {
                "width_px": image.width,
                "height_px": image.height,
                "mode": image.mode,
                "format": image.format,
                "frames": getattr(image, "n_frames", 1),
                "tags": tags,
            }
            metadata = {"image": {key: value for key, value in properties.items() if value not in (None, {})}}
            thumbnail = _thumbnail(image) if image.width * image.height <= MAX_PIXELS else None
            return Found(metadata, thumbnail, _attributes(tags))
    except (UnidentifiedImageError, *BROKEN):
        return None


def _tags(image: Picture) -> JsonObject:
    """Return TIFF tags, EXIF and text chunks by name; a later kind does not overwrite an earlier one."""
    from PIL import ExifTags, TiffTags

    tags: JsonObject = {}
    for number, value in dict(getattr(image, "tag_v2", {})).items():
        tags.setdefault(TiffTags.lookup(number).name, value)
    if "exif" in image.info or hasattr(image, "tag_v2"):  # without either, Pillow would decode a PNG to find EXIF
        exif = image.getexif()
        for number, value in {**exif.get_ifd(ExifTags.IFD.Exif), **exif}.items():
            tags.setdefault(ExifTags.TAGS.get(number, str(number)), value)
    for name, value in image.info.items():
        if name == "dpi" or isinstance(value, str):
            tags.setdefault(str(name), value)
    descriptive = {name: value for name, value in tags.items() if not isinstance(value, bytes) and not _is_layout(name)}
    return {name: plain(value) for name, value in list(descriptive.items())[:MAX_ENTRIES]}


def _attributes(tags: Mapping[str, Any]) -> dict[str, str]:
    """Return when and with what the picture was taken, not when its file was written."""
    timestamp = read_time(tags.get("DateTimeOriginal", ""), tags.get("OffsetTimeOriginal") or "")
    parts = [" ".join(str(tags.get(name) or "").split()) for name in ("Make", "Model")]
    camera = parts[1] if parts[1].startswith(parts[0]) else " ".join(parts)
    return given(timestamp=timestamp, instrument_name=camera if all(parts) else None)


def _is_layout(name: str) -> bool:
    """Return whether the tag only describes the layout of the file."""
    return name.endswith(("Offsets", "ByteCounts", "Offset", "IFD"))


def _thumbnail(image: Picture) -> bytes | None:
    """Return the picture in upright orientation; None if it is truncated."""
    from PIL import Image, ImageOps

    try:
        image.draft("RGB", (THUMBNAIL_PX, THUMBNAIL_PX))  # JPEG decodes at a fraction of its size
        small = _eight_bits(image)
        small.thumbnail((2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX), Image.Resampling.BILINEAR)
        return square(ImageOps.exif_transpose(small))
    except BROKEN:
        return None


def _eight_bits(image: Picture) -> Picture:
    """Stretch detector counts, of 16 or more bits, from the lowest to the highest."""
    if not image.mode.startswith(("I", "F")):
        return image
    counts = image.convert("F")
    counts.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    low, high = counts.getextrema()
    scale = 255 / (high - low) if high > low else 0.0  # type: ignore[operator]
    return counts.point(lambda value: value * scale - low * scale).convert("L")  # type: ignore[operator]


def read_signals(plugin: str, path: Path) -> Found | None:
    """Under `signals`: axes and metadata as RosettaSciIO names them; a spectrum, an image, or a map of sums.

    None without RosettaSciIO, and for a file that refers to other files.
    """
    try:
        # Optional, and slow to import: only these files need it.
        reader = import_module(f"rsciio.{plugin}").file_reader
    except ImportError:
        return None
    if points_elsewhere(path):
        return None
    signals = _read(reader, path)
    descriptions = [_describe(signal) for signal in signals[:MAX_SIGNALS]]
    general = signals[0].get("metadata", {}) if signals else {}
    return Found({"signals": descriptions}, _picture(signals[0]) if signals else None, _signal_attributes(general))


MICROSCOPY: tuple[tuple[str, frozenset[str], Callable[[Path], Found | None], tuple[str, ...]], ...] = tuple(
    (name, suffixes, partial(read_signals, plugin), (f"rsciio.{plugin}",))
    for name, (plugin, suffixes) in _PLUGINS.items()
)


def _read(reader: Any, path: Path) -> list[JsonObject]:
    """Read the signals, lazily if the format supports that."""
    try:
        return list(reader(str(path), lazy=True))
    except (NotImplementedError, TypeError, ValueError):  # not every file supports lazy reading
        return list(reader(str(path)))


def _describe(signal: Mapping[str, Any]) -> JsonObject:
    data = signal["data"]
    axes = [
        {
            name: value
            for name in ("name", "units", "size", "scale", "offset")
            if (value := _plain(axis.get(name))) is not None
        }
        for axis in signal.get("axes", ())
    ]
    description = {
        "shape": list(data.shape),
        "dtype": str(data.dtype),
        "axes": axes,
        "metadata": _plain(signal.get("metadata", {})),
    }
    return {name: value for name, value in description.items() if value not in ({}, [])}


def _plain(value: object) -> Any:
    """Convert a value to JSON without empty entries and the reader's internal notes."""
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


def _signal_attributes(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return when and with what the signal was measured, in the vocabulary shared by RosettaSciIO's readers."""
    general = metadata.get("General", {})
    moment = f"{general.get('date', '')} {general.get('time', '')}"
    timestamp = read_time(moment, str(general.get("time_zone", "") or "")) or read_time(moment)
    instruments = metadata.get("Acquisition_instrument", {})
    names = (instrument.get("microscope") for instrument in instruments.values() if isinstance(instrument, Mapping))
    return given(timestamp=timestamp, instrument_name=next(filter(None, names), None))


def _picture(signal: Mapping[str, Any]) -> bytes | None:
    """Draw a spectrum as a line, an image as it is, and a stack as the sum over its scan or its spectra."""
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
    return plot([offset + scale * index for index in range(len(values))], [float(value) for value in values], label)
