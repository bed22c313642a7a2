"""Formats of laboratories: FITS, JCAMP-DX, XRDML of PANalytical, RAS of Rigaku, MCA of multichannel analysers, SPC."""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.server.ingest.formats.findings import MAX_ENTRIES, Found, acquired, plot, read_time

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_BYTES = 64 << 20  # chosen: longer files of these kinds are none
FITS_CARD, FITS_BLOCK = 80, 2880  # as the standard has them
MAX_FITS_BLOCKS = 200

_CARD = re.compile(r"([A-Z0-9_-]{1,8}) *= *('(?:[^']|'')*'|[^/]*)")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?")
_LABEL = re.compile(r"##([^=]*)=[ \t]*(.*)")
_AFFN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_JCAMP_OWN = ("TITLE", "JCAMPDX", "END", "XYDATA", "PEAKTABLE", "XYPOINTS")
_FITS_OWN = ("SIMPLE", "BITPIX", "NAXIS", "EXTEND", "COMMENT", "HISTORY", "CHECKSUM", "DATASUM", "END", "CONTINUE")


MAX_SPC_BYTES = 256 << 20  # chosen: longer files of this kind are none
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


def read_fits(path: Path) -> Found | None:
    """Under `fits`: shape, and keywords of the primary header. None for other files."""
    cards = _fits_cards(path)
    if cards is None:
        return None
    axes = [
        cards[f"NAXIS{number}"] for number in range(1, int(cards.get("NAXIS") or 0) + 1) if f"NAXIS{number}" in cards
    ]
    own = [name for name in cards if name.startswith(_FITS_OWN)]
    said = {name: value for name, value in cards.items() if name not in own and value not in (None, "")}
    told = {"shape": axes[::-1], "bits": cards.get("BITPIX"), "header": dict(list(said.items())[:MAX_ENTRIES])}
    observed = str(said.get("DATE-OBS") or "")
    observed += f"T{said['TIME-OBS']}" if "T" not in observed and "TIME-OBS" in said else ""
    zone = "Z" if said.get("TIMESYS", "UTC") == "UTC" and "T" in observed else ""  # which is its default
    attributes = {"timestamp": read_time(observed, zone) if zone else None, "instrument_name": said.get("INSTRUME")}
    return Found({"fits": told}, None, {name: str(value) for name, value in attributes.items() if value})


def _fits_cards(path: Path) -> dict[str, Any] | None:
    """Read the keywords up to END; None where the file does not begin so, or where END is missing."""
    cards: dict[str, Any] = {}
    with path.open("rb") as file:
        for _ in range(MAX_FITS_BLOCKS):
            block = file.read(FITS_BLOCK)
            if len(block) < FITS_BLOCK or (not cards and not block.startswith(b"SIMPLE  =")):
                return None
            lines = [block[at : at + FITS_CARD].decode("ascii", "replace") for at in range(0, FITS_BLOCK, FITS_CARD)]
            for line in lines:
                if (matched := _CARD.match(line)) and line[8:10] == "= ":
                    cards.setdefault(matched[1], _fits_value(matched[2]))
            if any(line.rstrip() == "END" for line in lines):
                return cards
    return None


def read_jcamp(path: Path) -> Found | None:
    """Under `jcamp`: labels, and the curve with its range if it is in plain numbers."""
    text = _text(path)
    if text is None or not text.lstrip().startswith("##"):
        return None
    labels, rows, spectra = _jcamp_blocks(text)
    if "JCAMPDX" not in labels and "TITLE" not in labels:
        return None
    said = {name.lower(): _value(value) for name, value in labels.items() if value and name not in _JCAMP_OWN}
    told: dict[str, Any] = {"title": labels.get("TITLE", ""), **dict(list(said.items())[:MAX_ENTRIES])}
    points = list(_jcamp_points(labels, rows))
    told |= {"spectra": spectra} if spectra > 1 else {}
    x, y = [a for a, _ in points], [b for _, b in points]
    units = f"{labels.get('YUNITS', 'y').lower()} over {labels.get('XUNITS', 'x').lower()}"
    picture = plot(x, y, units) if len(points) > 1 else None
    told |= {"points": len(points), "min": min(y), "max": max(y)} if points else {}
    facts = {
        "date": labels.get("LONGDATE") or labels.get("DATE", ""),
        "instrument": system if re.search(r"\w", system := labels.get("SPECTROMETERDATASYSTEM", "")) else "",
    }
    return Found({"jcamp": told}, picture, acquired({**facts, "time": labels.get("TIME", "")}))


def _jcamp_blocks(text: str) -> tuple[dict[str, str], list[str], int]:
    """Return the labels, the rows of the only spectrum, none where there are several, and how many spectra there are.

    Of blocks within blocks, only the labels of the outer one are read.
    """
    labels: dict[str, str] = {}
    data: list[str] | None = None
    rows: list[str] = []
    spectra, nested = 0, False
    for line in text.splitlines():
        line = line.partition("$$")[0].strip()
        if matched := _LABEL.fullmatch(line):
            name = re.sub(r"[\s/_-]", "", matched[1]).upper()
            spectra += name in ("XYDATA", "XYPOINTS")
            nested = nested or (name == "TITLE" and "TITLE" in labels)
            if nested:  # of several blocks, those within speak for themselves
                data = None
                continue
            data = rows if name in ("XYDATA", "XYPOINTS") and spectra == 1 else None
            labels.setdefault(name, matched[2].strip())
        elif data is not None and line:
            data.append(line)
    return labels, rows if spectra == 1 and not nested else [], spectra  # of several, none stands for all


def read_xrdml(path: Path) -> Found | None:
    """Under `xrdml`: wavelength, tube and range of a PANalytical scan; the curve."""
    root = _xrdml_root(_text(path) or "")
    if root is None:
        return None
    found = {_bare(node.tag): (node.text or "").strip() for node in root.iter() if (node.text or "").strip()}
    counts = next((found[name] for name in ("counts", "intensities") if name in found), "")
    y = [float(part) for part in counts.split() if _AFFN.fullmatch(part)]
    axis = next((node for node in root.iter() if _bare(node.tag) == "positions" and node.get("axis") == "2Theta"), None)
    ends = {_bare(node.tag): float(node.text or "nan") for node in (axis if axis is not None else ())
            if _bare(node.tag) in ("startPosition", "endPosition")}  # fmt: skip
    names = ("kAlpha1", "kAlpha2", "tension", "current", "anodeMaterial", "commonCountingTime")
    told: dict[str, Any] = {name: _value(found[name]) for name in names if name in found}
    told |= {"start_2theta_deg": ends["startPosition"], "end_2theta_deg": ends["endPosition"]} if len(ends) == 2 else {}
    told |= {"points": len(y), "min": min(y), "max": max(y)} if y else {}
    picture = None
    if len(ends) == 2 and len(y) > 1:
        step = (ends["endPosition"] - ends["startPosition"]) / (len(y) - 1)
        picture = plot([ends["startPosition"] + step * at for at in range(len(y))], y, "counts over 2theta (deg)")
    return Found({"xrdml": told}, picture, acquired({"start": found.get("startTimeStamp", "")}))


def _xrdml_root(text: str) -> Element | None:
    """Parse an XRDML document; None for anything else, and for one with entities, which may expand without end."""
    from xml.etree import ElementTree  # only these files are XML

    if "<xrdMeasurement" not in text[:4000] or "<!ENTITY" in text:
        return None
    try:
        return ElementTree.fromstring(text)  # noqa: S314 (without entities)
    except ElementTree.ParseError:
        return None


def read_ras(path: Path) -> Found | None:
    """Under `ras`: settings and range of a Rigaku scan; the curve."""
    text = _text(path)
    if text is None or not text.lstrip().startswith("*RAS_"):
        return None
    said: dict[str, Any] = {}
    points: list[tuple[float, float]] = []
    for line in text.splitlines():
        if matched := re.fullmatch(r'\*([A-Z][A-Z0-9_]*)\s+"(.*)"', line.strip()):
            said.setdefault(matched[1].lower(), _value(matched[2]))
        elif len(parts := line.split()) in (2, 3) and all(map(_AFFN.fullmatch, parts)):
            points.append((float(parts[0]), float(parts[1]) * (float(parts[2]) if len(parts) == 3 else 1.0)))
    y = [value for _, value in points]
    kept = {name: value for name, value in said.items() if value != ""}
    told: dict[str, Any] = {**dict(list(kept.items())[:MAX_ENTRIES])}
    told |= {"points": len(y), "min": min(y), "max": max(y)} if y else {}
    axis = str(said.get("meas_scan_axis_x") or "angle")
    picture = plot([x for x, _ in points], y, f"intensity over {axis}") if len(points) > 1 else None
    facts = {
        "start": str(said.get("meas_scan_start_time") or ""),
        "instrument": str(said.get("hw_goniometer_name-0") or ""),
    }
    return Found({"ras": told}, picture, acquired(facts))


def read_rigaku_ascii(path: Path) -> Found | None:
    """Under `rigaku`: settings and range of a scan exported as ASCII; the curve."""
    text = _text(path)
    if text is None or not re.match(r"\*TYPE\s*=.*\n\*CLASS\s*=\s*ASCII CLASS", text):
        return None
    said: dict[str, Any] = {}
    counts: list[float] = []
    groups = 0
    for line in map(str.strip, text.splitlines()):
        if matched := re.fullmatch(r"\*([A-Z0-9_]+)\s*=\s*(.*)", line):
            groups += matched[1] == "START"
            if "," not in matched[2] and matched[2] not in ("", "Unknown"):  # of a list, nobody says what is what
                said.setdefault(matched[1].lower(), _value(matched[2]))
        elif line and not line.startswith("*"):
            parts = [part.strip() for part in line.split(",")]
            if not all(map(_AFFN.fullmatch, parts)):
                return None
            counts += map(float, parts)
    told: dict[str, Any] = dict(list(said.items())[:MAX_ENTRIES])
    if groups > 1 or said.get("count") != len(counts):  # of several scans, none stands for all
        return Found({"rigaku": told})
    told |= {"points": len(counts), "min": min(counts), "max": max(counts)} if counts else {}
    picture, start, step = None, said.get("start"), said.get("step")
    if len(counts) > 1 and isinstance(start, int | float) and isinstance(step, int | float):
        axis = f"{said.get('yunit', 'counts')} over {said.get('scan_axis', 'angle')}"
        picture = plot([start + step * at for at in range(len(counts))], counts, axis)
    return Found({"rigaku": told}, picture)


def read_mca(path: Path) -> Found | None:
    """Under `mca`: settings and range of an Amptek spectrum; the curve."""
    text = _text(path)
    if text is None or not text.startswith("<<PMCA SPECTRUM>>"):
        return None
    said: dict[str, Any] = {}
    counts: list[int] = []
    section = ""
    for line in map(str.strip, text.splitlines()):
        if matched := re.fullmatch(r"<<(.+)>>", line):
            section = matched[1]
        elif section == "DATA" and line.isdigit():
            counts.append(int(line))
        elif section == "PMCA SPECTRUM" and (matched := re.fullmatch(r"([A-Z_]+) - (.*)", line)):
            said[matched[1].lower()] = _value(matched[2])
    told: dict[str, Any] = {name: value for name, value in said.items() if value != ""}
    told |= {"channels": len(counts), "counts": sum(counts), "max": max(counts)} if counts else {}
    picture = plot(list(map(float, range(len(counts)))), list(map(float, counts)), "counts over channel")
    return Found({"mca": told}, picture)


def _text(path: Path) -> str | None:
    if path.stat().st_size > MAX_BYTES:
        return None
    raw = path.read_bytes()
    if b"\0" in raw[:4096]:
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def _value(text: str) -> Any:
    """A number, where the text is one; else the text."""
    text = text.strip()
    if re.fullmatch(r"[+-]?(0|[1-9]\d{0,14})", text):
        return int(text)
    return float(text) if _AFFN.fullmatch(text) and not re.fullmatch(r"0\d+", text) else text


def _fits_value(text: str) -> Any:
    text = text.strip()
    if text.startswith("'"):
        return text[1:-1].replace("''", "'").rstrip()
    if text in ("T", "F"):
        return text == "T"
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    return float(re.sub("[dD]", "e", text)) if _NUMBER.fullmatch(text) else None  # a complex number is left out


def _jcamp_points(labels: Mapping[str, str], rows: Sequence[str]) -> Iterator[tuple[float, float]]:
    """The points of a curve in plain numbers; none where it is packed, or where the first abscissa is not told."""
    form = (labels.get("XYDATA") or labels.get("XYPOINTS") or "").replace(" ", "")
    if any(re.search(r"[^\d\s.,;eE+-]", row) for row in rows):
        return
    numbers = [[float(part) for part in _AFFN.findall(row)] for row in rows]
    try:
        across, up = float(labels.get("XFACTOR") or 1), float(labels.get("YFACTOR") or 1)
        if form.startswith("(XY..XY)"):
            flat = list(itertools.chain.from_iterable(numbers))
            yield from ((x * across, y * up) for x, y in zip(flat[::2], flat[1::2], strict=False))
            return
        first, last = float(labels["FIRSTX"]), float(labels["LASTX"])
    except (KeyError, ValueError):
        return
    values = list(itertools.chain.from_iterable(row[1:] for row in numbers))
    if form.startswith("(X++(Y..Y))") and len(values) > 1 and len(values) == int(float(labels.get("NPOINTS") or 0)):
        step = (last - first) / (len(values) - 1)
        yield from ((first + step * at, value * up) for at, value in enumerate(values))


def _bare(tag: object) -> str:
    return str(tag).rpartition("}")[2]


def read_spc(path: Path) -> Found | None:
    """Under `spc` (newer GRAMS form): axes, comment, number of spectra, ranges; a curve. None for other files."""
    if not _HEAD.size <= path.stat().st_size <= MAX_SPC_BYTES:
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
    told: dict[str, Any] = {"x": x_label, "y": y_label, "comment": _spc_text(head[17]), "source": _spc_text(head[14])}
    told |= {"resolution": _spc_text(head[13]), "method": _spc_text(head[25])}
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


def _spc_text(raw: bytes) -> str:
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


LABORATORY = (
    ("FITSIngestor", frozenset({".fits", ".fit", ".fts"}), read_fits),
    ("JCAMPIngestor", frozenset({".jdx", ".dx", ".jcamp"}), read_jcamp),
    ("XRDMLIngestor", frozenset({".xrdml"}), read_xrdml),
    ("RigakuIngestor", frozenset({".ras"}), read_ras),
    ("RigakuASCIIIngestor", frozenset({".asc"}), read_rigaku_ascii),
    ("MCAIngestor", frozenset({".mca"}), read_mca),
    ("SPCIngestor", frozenset({".spc"}), read_spc),
)
