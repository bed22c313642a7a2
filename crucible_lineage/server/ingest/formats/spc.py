"""Spectra in the SPC format of Thermo Galactic (GRAMS), in its newer form with the low byte first."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from crucible_lineage.server.ingest.formats.acquisition import acquired
from crucible_lineage.server.ingest.formats.findings import Found
from crucible_lineage.server.ingest.formats.plot import plot

__all__ = ["read_spc"]

MAX_BYTES = 256 << 20  # chosen: longer files of this kind are none
MAX_SPECTRA = 100_000
EARLIEST, LATEST = 1970, 2100  # years that a spectrum may be of
NEW_FORM = 0x4B
_HEAD = struct.Struct("<BBBbiddiBBBBi9s9sh32s130s30siiBBhf48sfifB187s")
_SUB = struct.Struct("<BbhfffiifI")
_SHORT, _MULTI, _OWN_LABELS, _OWN_X, _HAS_X = 0x01, 0x04, 0x20, 0x40, 0x80  # flags of the file
_FLOAT = -128  # the exponent that says that ordinates are floats
_X = {
    1: "wavenumber (cm-1)", 2: "wavelength (um)", 3: "wavelength (nm)", 4: "time (s)", 5: "time (min)",
    6: "frequency (Hz)", 7: "frequency (kHz)", 8: "frequency (MHz)", 9: "mass (m/z)", 10: "parts per million",
    11: "time (d)", 12: "time (years)", 13: "raman shift (cm-1)", 14: "energy (eV)", 16: "diode", 17: "channel",
    18: "angle (deg)", 19: "temperature (F)", 20: "temperature (C)", 21: "temperature (K)", 22: "data points",
    23: "time (ms)", 24: "time (us)", 25: "time (ns)", 26: "frequency (GHz)", 27: "length (cm)", 28: "length (m)",
    29: "length (mm)", 30: "time (h)",
}  # fmt: skip
_Y = {
    0: "arbitrary intensity", 1: "interferogram", 2: "absorbance", 3: "kubelka-munk", 4: "counts", 5: "volts",
    6: "degrees", 7: "milliamps", 8: "millimeters", 9: "millivolts", 10: "log(1/R)", 11: "percent", 12: "intensity",
    13: "relative intensity", 14: "energy", 16: "decibel", 128: "transmission", 129: "reflectance",
    130: "single beam", 131: "emission",
}  # fmt: skip


def read_spc(path: Path) -> Found | None:
    """What the head says, and the range of the curve or curves; None for what is no such file."""
    if not _HEAD.size <= path.stat().st_size <= MAX_BYTES:
        return None
    raw = path.read_bytes()
    head = _HEAD.unpack_from(raw)
    flags, form, _, exponent, points, first, last, spectra, x_type, y_type, _, _, date = head[:13]
    if form != NEW_FORM or not 1 <= max(spectra, 1) <= MAX_SPECTRA or points < 0:
        return None
    try:
        curves = _curves(raw, flags, exponent, points, (first, last), max(spectra, 1))
    except (struct.error, ValueError, OverflowError):  # shorter than its head says: some other kind of file
        return None
    x_label, y_label = _labels(head[18] if flags & _OWN_LABELS else b"", x_type, y_type)
    told: dict[str, Any] = {"x": x_label, "y": y_label, "comment": _text(head[17]), "source": _text(head[14])}
    told |= {"resolution": _text(head[13]), "method": _text(head[25])}
    told = {name: value for name, value in told.items() if value}
    told |= {"spectra": len(curves)} if len(curves) > 1 else {}
    across = [value for x, _ in curves for value in (min(x), max(x))]
    up = [value for _, y in curves for value in (min(y), max(y))]
    told |= {"points": sum(len(y) for _, y in curves), "min_x": min(across), "max_x": max(across)}
    told |= {"min": min(up), "max": max(up)}
    picture = None
    if len(curves) == 1 and len(curves[0][0]) > 1:
        picture = plot(*curves[0], f"{y_label or 'y'} over {x_label or 'x'}")
    return Found({"spc": told}, picture, acquired({"start": _moment(date)}))


def _labels(own: bytes, x_type: int, y_type: int) -> tuple[str, str]:
    """Return what the axes show: as the file names them itself, else by the number of the quantity."""
    labels = [part.decode("cp1252", "replace").strip() for part in own.split(b"\0")]
    return labels[0] or _X.get(x_type, ""), (len(labels) > 1 and labels[1]) or _Y.get(y_type, "")


def _curves(
    raw: bytes, flags: int, exponent: int, points: int, ends: tuple[float, float], spectra: int
) -> list[tuple[list[float], list[float]]]:
    """Abscissas and ordinates of each spectrum. ValueError or struct.error where the file does not hold them."""
    at = _HEAD.size
    shared: list[float] = []
    if flags & _HAS_X and not flags & _OWN_X:
        shared, at = _floats(raw, at, points), at + 4 * points
    found = []
    for _ in range(spectra):
        sub = _SUB.unpack_from(raw, at)
        at += _SUB.size
        number = sub[6] if flags & _OWN_X else points
        if number < 1:
            raise ValueError("a spectrum without points")
        x = shared
        if flags & _OWN_X:
            x, at = _floats(raw, at, number), at + 4 * number
        elif not flags & _HAS_X:
            step = (ends[1] - ends[0]) / max(number - 1, 1)
            x = [ends[0] + step * index for index in range(number)]
        scale = sub[1] if flags & _MULTI else exponent
        y, taken = _ordinates(raw, at, number, scale, short=bool(flags & _SHORT))
        at += taken
        if not all(value == value and abs(value) < 1e300 for value in (*x, *y)):
            raise ValueError("no numbers")
        found.append((list(x), list(y)))
    return found


def _ordinates(raw: bytes, at: int, number: int, scale: int, *, short: bool) -> tuple[Sequence[float], int]:
    if scale == _FLOAT:
        return _floats(raw, at, number), 4 * number
    kind, bits = ("h", 16) if short else ("i", 32)
    factor = 2.0 ** (scale - bits)
    return [value * factor for value in struct.unpack_from(f"<{number}{kind}", raw, at)], number * bits // 8


def _floats(raw: bytes, at: int, number: int) -> list[float]:
    return list(struct.unpack_from(f"<{number}f", raw, at))


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("cp1252", "replace").strip()


def _moment(packed: int) -> str:
    """The date in its bits; empty where nobody set it."""
    try:
        year, month, day = packed >> 20, packed >> 16 & 0xF, packed >> 11 & 0x1F
        if not EARLIEST <= year <= LATEST:  # some programs count years from 1900
            return ""
        return datetime(year, month, day, packed >> 6 & 0x1F, packed & 0x3F).isoformat()
    except ValueError:
        return ""
