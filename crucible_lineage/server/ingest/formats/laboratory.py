"""Laboratory formats: FITS, JCAMP-DX, XRDML of PANalytical, RAS of Rigaku, MCA of multichannel analysers, SPC."""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.server.database import JsonObject
from crucible_lineage.server.ingest.formats.findings import MAX_ENTRIES, Found, acquired, given, plot, read_time
from crucible_lineage.server.ingest.formats.tables import number, value_of
from crucible_lineage.server.ingest.formats.text import read_text

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

FITS_CARD, FITS_BLOCK = 80, 2880  # as in the standard
MAX_FITS_BLOCKS = 200

_CARD = re.compile(r"([A-Z0-9_-]{1,8}) *= *('(?:[^']|'')*'|[^/]*)")
_LABEL = re.compile(r"##([^=]*)=[ \t]*(.*)")
_AFFN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_JCAMP_OWN = ("TITLE", "JCAMPDX", "END", "XYDATA", "PEAKTABLE", "XYPOINTS")
_FITS_OWN = ("SIMPLE", "BITPIX", "NAXIS", "EXTEND", "COMMENT", "HISTORY", "CHECKSUM", "DATASUM", "END", "CONTINUE")


MAX_SPC_BYTES = 256 << 20  # chosen: real files of this kind are smaller
MAX_SPECTRA = 100_000
EARLIEST, LATEST = 1970, 2100  # plausible years of a spectrum
NEW_FORM = 0x4B
_HEAD = struct.Struct("<BBBbiddiBBBBi9s9sh32s130s30siiBBhf48sfifB187s")
_SUB = struct.Struct("<BbhfffiifI")
_SHORT, _MULTI, _OWN_LABELS, _OWN_X, _HAS_X = 0x01, 0x04, 0x20, 0x40, 0x80  # flags of the file
_FLOAT = -128  # the exponent that marks ordinates as floats
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
    structural = [name for name in cards if name.startswith(_FITS_OWN)]
    header = {name: value for name, value in cards.items() if name not in structural and value not in (None, "")}
    summary = {"shape": axes[::-1], "bits": cards.get("BITPIX"), "header": dict(list(header.items())[:MAX_ENTRIES])}
    observed_at = str(header.get("DATE-OBS") or "")
    observed_at += f"T{header['TIME-OBS']}" if "T" not in observed_at and "TIME-OBS" in header else ""
    zone = "Z" if header.get("TIMESYS", "UTC") == "UTC" and "T" in observed_at else ""  # the default
    timestamp = read_time(observed_at, zone) if zone else None
    return Found({"fits": summary}, None, given(timestamp=timestamp, instrument_name=header.get("INSTRUME")))


def _fits_cards(path: Path) -> JsonObject | None:
    """Read the keywords up to END; None if the file is not FITS or END is missing."""
    cards: JsonObject = {}
    with path.open("rb") as file:
        for _ in range(MAX_FITS_BLOCKS):
            block = file.read(FITS_BLOCK)
            if len(block) < FITS_BLOCK or (not cards and not block.startswith(b"SIMPLE  =")):
                return None
            lines = [block[at : at + FITS_CARD].decode("ascii", "replace") for at in range(0, FITS_BLOCK, FITS_CARD)]
            for line in lines:
                if (match := _CARD.match(line)) and line[8:10] == "= ":
                    cards.setdefault(match[1], _fits_value(match[2]))
            if any(line.rstrip() == "END" for line in lines):
                return cards
    return None


def read_jcamp(path: Path) -> Found | None:
    """Under `jcamp`: labels, and the curve with its range if it is in plain numbers."""
    text = read_text(path)
    if text is None or not text.lstrip().startswith("##"):
        return None
    labels, rows, spectra = _jcamp_blocks(text)
    if "JCAMPDX" not in labels and "TITLE" not in labels:
        return None
    settings = {name.lower(): value_of(value) for name, value in labels.items() if value and name not in _JCAMP_OWN}
    summary: JsonObject = {"title": labels.get("TITLE", ""), **dict(list(settings.items())[:MAX_ENTRIES])}
    points = list(_jcamp_points(labels, rows))
    summary |= {"spectra": spectra} if spectra > 1 else {}
    x, y = [a for a, _ in points], [b for _, b in points]
    units = f"{labels.get('YUNITS', 'y').lower()} over {labels.get('XUNITS', 'x').lower()}"
    picture = plot(x, y, units)
    summary |= _range(y)
    facts = {
        "date": labels.get("LONGDATE") or labels.get("DATE", ""),
        "instrument": system if re.search(r"\w", system := labels.get("SPECTROMETERDATASYSTEM", "")) else "",
    }
    return Found({"jcamp": summary}, picture, acquired({**facts, "time": labels.get("TIME", "")}))


def _jcamp_blocks(text: str) -> tuple[dict[str, str], list[str], int]:
    """Return the labels, the rows of the spectrum if there is only one, and the number of spectra.

    Of nested blocks, only the labels of the outer one are read.
    """
    labels: dict[str, str] = {}
    data: list[str] | None = None
    rows: list[str] = []
    spectra, nested = 0, False
    for line in text.splitlines():
        line = line.partition("$$")[0].strip()
        if match := _LABEL.fullmatch(line):
            name = re.sub(r"[\s/_-]", "", match[1]).upper()
            spectra += name in ("XYDATA", "XYPOINTS")
            nested = nested or (name == "TITLE" and "TITLE" in labels)
            if nested:  # inner blocks have labels of their own
                data = None
                continue
            data = rows if name in ("XYDATA", "XYPOINTS") and spectra == 1 else None
            labels.setdefault(name, match[2].strip())
        elif data is not None and line:
            data.append(line)
    return labels, rows if spectra == 1 and not nested else [], spectra  # several: none represents all


def read_xrdml(path: Path) -> Found | None:
    """Under `xrdml`: wavelength, tube and range of a PANalytical scan; the curve."""
    root = _xrdml_root(read_text(path) or "")
    if root is None:
        return None
    texts = {_bare(node.tag): (node.text or "").strip() for node in root.iter() if (node.text or "").strip()}
    counts = next((texts[name] for name in ("counts", "intensities") if name in texts), "")
    y = [float(part) for part in counts.split() if _AFFN.fullmatch(part)]
    axis = next((node for node in root.iter() if _bare(node.tag) == "positions" and node.get("axis") == "2Theta"), None)
    ends = {_bare(node.tag): float(node.text or "nan") for node in (axis if axis is not None else ())
            if _bare(node.tag) in ("startPosition", "endPosition")}  # fmt: skip
    names = ("kAlpha1", "kAlpha2", "tension", "current", "anodeMaterial", "commonCountingTime")
    summary: JsonObject = {name: value_of(texts[name]) for name in names if name in texts}
    summary |= (
        {"start_2theta_deg": ends["startPosition"], "end_2theta_deg": ends["endPosition"]} if len(ends) == 2 else {}
    )
    summary |= _range(y)
    picture = None
    if len(ends) == 2 and len(y) > 1:
        step = (ends["endPosition"] - ends["startPosition"]) / (len(y) - 1)
        picture = plot([ends["startPosition"] + step * at for at in range(len(y))], y, "counts over 2theta (deg)")
    return Found({"xrdml": summary}, picture, acquired({"start": texts.get("startTimeStamp", "")}))


def _xrdml_root(text: str) -> Element | None:
    """Parse an XRDML document; None for anything else, and for one with entities, which may expand endlessly."""
    from xml.etree import ElementTree  # only these files are XML

    if "<xrdMeasurement" not in text[:4000] or "<!ENTITY" in text:
        return None
    try:
        return ElementTree.fromstring(text)  # noqa: S314 (without entities)
    except ElementTree.ParseError:
        return None


def read_ras(path: Path) -> Found | None:
    """Under `ras`: settings and range of a Rigaku scan; the curve."""
    text = read_text(path)
    if text is None or not text.lstrip().startswith("*RAS_"):
        return None
    settings: JsonObject = {}
    points: list[tuple[float, float]] = []
    for line in text.splitlines():
        if match := re.fullmatch(r'\*([A-Z][A-Z0-9_]*)\s+"(.*)"', line.strip()):
            settings.setdefault(match[1].lower(), value_of(match[2]))
        elif len(parts := line.split()) in (2, 3) and all(map(_AFFN.fullmatch, parts)):
            points.append((float(parts[0]), float(parts[1]) * (float(parts[2]) if len(parts) == 3 else 1.0)))
    y = [value for _, value in points]
    non_empty = {name: value for name, value in settings.items() if value != ""}
    summary: JsonObject = {**dict(list(non_empty.items())[:MAX_ENTRIES])}
    summary |= _range(y)
    axis = str(settings.get("meas_scan_axis_x") or "angle")
    picture = plot([x for x, _ in points], y, f"intensity over {axis}")
    facts = {
        "start": str(settings.get("meas_scan_start_time") or ""),
        "instrument": str(settings.get("hw_goniometer_name-0") or ""),
    }
    return Found({"ras": summary}, picture, acquired(facts))


def read_rigaku_ascii(path: Path) -> Found | None:
    """Under `rigaku`: settings and range of a scan exported as ASCII; the curve."""
    text = read_text(path)
    if text is None or not re.match(r"\*TYPE\s*=.*\n\*CLASS\s*=\s*ASCII CLASS", text):
        return None
    settings: JsonObject = {}
    counts: list[float] = []
    groups = 0
    for line in map(str.strip, text.splitlines()):
        if match := re.fullmatch(r"\*([A-Z0-9_]+)\s*=\s*(.*)", line):
            groups += match[1] == "START"
            if "," not in match[2] and match[2] not in ("", "Unknown"):  # the values of a list have no names
                settings.setdefault(match[1].lower(), value_of(match[2]))
        elif line and not line.startswith("*"):
            parts = [part.strip() for part in line.split(",")]
            if not all(map(_AFFN.fullmatch, parts)):
                return None
            counts += map(float, parts)
    summary: JsonObject = dict(list(settings.items())[:MAX_ENTRIES])
    if groups > 1 or settings.get("count") != len(counts):  # several scans: none represents all
        return Found({"rigaku": summary})
    summary |= _range(counts)
    picture, start, step = None, settings.get("start"), settings.get("step")
    if isinstance(start, int | float) and isinstance(step, int | float):
        axis = f"{settings.get('yunit', 'counts')} over {settings.get('scan_axis', 'angle')}"
        picture = plot([start + step * at for at in range(len(counts))], counts, axis)
    return Found({"rigaku": summary}, picture)


def read_mca(path: Path) -> Found | None:
    """Under `mca`: settings and range of an Amptek spectrum; the curve."""
    text = read_text(path)
    if text is None or not text.startswith("<<PMCA SPECTRUM>>"):
        return None
    settings: JsonObject = {}
    counts: list[int] = []
    section = ""
    for line in map(str.strip, text.splitlines()):
        if match := re.fullmatch(r"<<(.+)>>", line):
            section = match[1]
        elif section == "DATA" and line.isdigit():
            counts.append(int(line))
        elif section == "PMCA SPECTRUM" and (match := re.fullmatch(r"([A-Z_]+) - (.*)", line)):
            settings[match[1].lower()] = value_of(match[2])
    summary: JsonObject = {name: value for name, value in settings.items() if value != ""}
    summary |= {"channels": len(counts), "counts": sum(counts), "max": max(counts)} if counts else {}
    picture = plot(list(map(float, range(len(counts)))), list(map(float, counts)), "counts over channel")
    return Found({"mca": summary}, picture)


def _range(values: Sequence[float]) -> JsonObject:
    return {"points": len(values), "min": min(values), "max": max(values)} if values else {}


def _fits_value(text: str) -> Any:
    text = text.strip()
    if text.startswith("'"):
        return text[1:-1].replace("''", "'").rstrip()
    if text in ("T", "F"):
        return text == "T"
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    return number(re.sub("[dD]", "e", text))  # None for complex numbers


def _jcamp_points(labels: Mapping[str, str], rows: Sequence[str]) -> Iterator[tuple[float, float]]:
    """Yield the points of a curve in plain numbers; none if it is packed or lacks its first abscissa."""
    form = (labels.get("XYDATA") or labels.get("XYPOINTS") or "").replace(" ", "")
    if any(re.search(r"[^\d\s.,;eE+-]", row) for row in rows):
        return
    numbers = [[float(part) for part in _AFFN.findall(row)] for row in rows]
    try:
        x_factor, y_factor = float(labels.get("XFACTOR") or 1), float(labels.get("YFACTOR") or 1)
        if form.startswith("(XY..XY)"):
            flat = list(itertools.chain.from_iterable(numbers))
            yield from ((x * x_factor, y * y_factor) for x, y in zip(flat[::2], flat[1::2], strict=False))
            return
        first, last = float(labels["FIRSTX"]), float(labels["LASTX"])
    except (KeyError, ValueError):
        return
    values = list(itertools.chain.from_iterable(row[1:] for row in numbers))
    if form.startswith("(X++(Y..Y))") and len(values) > 1 and len(values) == int(float(labels.get("NPOINTS") or 0)):
        step = (last - first) / (len(values) - 1)
        yield from ((first + step * at, value * y_factor) for at, value in enumerate(values))


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
    except (struct.error, ValueError, OverflowError):  # shorter than its header states: another kind of file
        return None
    x_label, y_label = _labels(head[18] if flags & _OWN_LABELS else b"", x_type, y_type)
    summary: JsonObject = {
        "x": x_label,
        "y": y_label,
        "comment": _spc_text(head[17]),
        "source": _spc_text(head[14]),
    }
    summary |= {"resolution": _spc_text(head[13]), "method": _spc_text(head[25])}
    summary = {name: value for name, value in summary.items() if value}
    summary |= {"spectra": len(curves)} if len(curves) > 1 else {}
    x_values = [value for x, _ in curves for value in (min(x), max(x))]
    y_values = [value for _, y in curves for value in (min(y), max(y))]
    summary |= {"points": sum(len(y) for _, y in curves), "min_x": min(x_values), "max_x": max(x_values)}
    summary |= {"min": min(y_values), "max": max(y_values)}
    picture = None
    if len(curves) == 1:
        picture = plot(*curves[0], f"{y_label or 'y'} over {x_label or 'x'}")
    return Found({"spc": summary}, picture, acquired({"start": _moment(date)}))


def _labels(own: bytes, x_type: int, y_type: int) -> tuple[str, str]:
    """Return the labels of the axes: the file's own, or those of the quantities' numbers."""
    labels = [part.decode("cp1252", "replace").strip() for part in own.split(b"\0")]
    return labels[0] or _X.get(x_type, ""), (len(labels) > 1 and labels[1]) or _Y.get(y_type, "")


def _curves(
    raw: bytes, flags: int, exponent: int, points: int, ends: tuple[float, float], spectra: int
) -> list[tuple[list[float], list[float]]]:
    """Return the abscissas and ordinates of each spectrum. ValueError or struct.error if the file lacks them."""
    at = _HEAD.size
    shared: list[float] = []
    if flags & _HAS_X and not flags & _OWN_X:
        shared, at = _floats(raw, at, points), at + 4 * points
    curves = []
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
        y, size = _ordinates(raw, at, number, scale, short=bool(flags & _SHORT))
        at += size
        if not all(value == value and abs(value) < 1e300 for value in (*x, *y)):
            raise ValueError("no numbers")
        curves.append((list(x), list(y)))
    return curves


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
    """Decode the packed date; empty if it is not set."""
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
