"""Pictures: their size, tags and thumbnail."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.server.ingest.formats.acquisition import read_time
from crucible_lineage.server.ingest.formats.findings import MAX_ENTRIES, THUMBNAIL_PX, Found, plain
from crucible_lineage.server.ingest.formats.plot import square

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["read_image"]

# Whatever the file is called: Pillow would start Ghostscript for what looks like EPS.
FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP")
MAX_PIXELS = 100_000_000  # chosen: what is larger is described, but not decoded for a thumbnail
BROKEN = (OSError, ValueError, SyntaxError, EOFError)  # what Pillow raises over bytes that are not as they should be


def read_image(path: Path) -> Found | None:
    """Under `image`: width, height, mode, format, frames and tags; a thumbnail unless the picture is huge or broken."""
    try:
        # Optional: only pictures need it.
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        return None
    Image.MAX_IMAGE_PIXELS = None  # `MAX_PIXELS` instead of a warning
    try:
        with Image.open(path, formats=FORMATS) as image:
            tags = _tags(image)
            described = {
                "width_px": image.width,
                "height_px": image.height,
                "mode": image.mode,
                "format": image.format,
                "frames": getattr(image, "n_frames", 1),
                "tags": tags,
            }
            found = {"image": {key: value for key, value in described.items() if value not in (None, {})}}
            thumbnail = _thumbnail(image) if image.width * image.height <= MAX_PIXELS else None
            return Found(found, thumbnail, _attributes(tags))
    except (UnidentifiedImageError, *BROKEN):
        return None


def _tags(image: Picture) -> dict[str, Any]:
    """TIFF tags, EXIF and text chunks by their names; a later kind does not overwrite an earlier one."""
    from PIL import ExifTags, TiffTags

    tags: dict[str, Any] = {}
    for number, value in dict(getattr(image, "tag_v2", {})).items():
        tags.setdefault(TiffTags.lookup(number).name, value)
    if "exif" in image.info or hasattr(image, "tag_v2"):  # without any, a PNG would be decoded to look behind its end
        exif = image.getexif()
        for number, value in {**exif.get_ifd(ExifTags.IFD.Exif), **exif}.items():
            tags.setdefault(ExifTags.TAGS.get(number, str(number)), value)
    for name, value in image.info.items():
        if name == "dpi" or isinstance(value, str):
            tags.setdefault(str(name), value)
    descriptive = {name: value for name, value in tags.items() if not isinstance(value, bytes) and not _is_layout(name)}
    return {name: plain(value) for name, value in list(descriptive.items())[:MAX_ENTRIES]}


def _attributes(tags: Mapping[str, Any]) -> dict[str, str]:
    """When the picture was taken, not when its file was written, and with what."""
    taken = (
        read_time(tags["DateTimeOriginal"], tags.get("OffsetTimeOriginal") or "")
        if "DateTimeOriginal" in tags
        else None
    )
    parts = [" ".join(str(tags.get(name) or "").split()) for name in ("Make", "Model")]
    camera = parts[1] if parts[1].startswith(parts[0]) else " ".join(parts)
    return ({"timestamp": taken} if taken else {}) | ({"instrument_name": camera} if all(parts) else {})


def _is_layout(name: str) -> bool:
    """True for tags that say where the bytes lie, which is nothing about the picture."""
    return name.endswith(("Offsets", "ByteCounts", "Offset", "IFD"))


def _thumbnail(image: Picture) -> bytes | None:
    """The picture as a person holds it upright; None if it is cut off."""
    from PIL import Image, ImageOps

    try:
        image.draft("RGB", (THUMBNAIL_PX, THUMBNAIL_PX))  # JPEG decodes at a fraction of its size
        small = _eight_bits(image)
        small.thumbnail((2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX), Image.Resampling.BILINEAR)
        return square(ImageOps.exif_transpose(small))
    except BROKEN:
        return None


def _eight_bits(image: Picture) -> Picture:
    """Detector counts, of 16 or more bits, stretched between the lowest and the highest."""
    if not image.mode.startswith(("I", "F")):
        return image
    counts = image.convert("F")
    counts.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    low, high = counts.getextrema()
    scale = 255 / (high - low) if high > low else 0.0  # type: ignore[operator]
    return counts.point(lambda value: value * scale - low * scale).convert("L")  # type: ignore[operator]
