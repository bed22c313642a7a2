"""Compare a file with the one that it should be: byte by byte, number by number, pixel by pixel.

Plain Python suffices; NumPy and h5py are used for files of theirs, where they are installed. This file goes into
bundles as it is.
"""

from __future__ import annotations

import json
import math
import re
import struct
import sys
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

__all__ = [
    "ALIKE",
    "DIFFERS",
    "IDENTICAL",
    "MISSING",
    "NEW",
    "WITHIN",
    "Compared",
    "Rules",
    "compare_files",
    "compare_values",
    "worst",
]

IDENTICAL, WITHIN, ALIKE = "identical", "numbers within tolerance", "picture alike"
DIFFERS, MISSING, NEW = "differs", "not made", "not recorded"
ORDER = (IDENTICAL, WITHIN, ALIKE, NEW, MISSING, DIFFERS)
RTOL = 1e-9
SEEN = 8  # of 255: less in one pixel, nobody sees
FEW = 0.0005  # of the pixels: so many may differ in a picture that is alike
_NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf(?:inity)?)(?![\w.])", re.IGNORECASE
)
_NUMPY, _HDF5, _PNG = (".npy", ".npz"), (".h5", ".hdf5", ".nxs", ".hdf", ".nx5"), (".png",)


@dataclass(frozen=True)
class Rules:
    """How files are compared: the tolerance, what a file is by its name, and names whose values do not count."""

    rtol: float = RTOL
    files: Mapping[str, str] | None = None
    ignore: Collection[str] = ()

    def kind(self, name: str) -> str:
        """Return the declared kind of a file: numbers, picture or bytes; empty if none is declared."""
        return next((kind for pattern, kind in (self.files or {}).items() if fnmatchcase(name, pattern)), "")


@dataclass(frozen=True)
class Compared:
    """The verdict on a file or value. `largest` is the largest relative difference of a number."""

    name: str
    verdict: str
    said: str = ""
    largest: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


class _DiffersError(Exception):
    """The two differ otherwise than in a number; the message says where."""


def worst(verdicts: Collection[str]) -> str:
    """Return the worst of these verdicts."""
    return max(verdicts, key=ORDER.index, default=IDENTICAL)


def compare_values(name: str, recorded: Any, made: Any, rules: Rules) -> Compared:
    """Compare values of JSON."""
    return _judged(name, lambda: _json_numbers(recorded, made, rules.ignore), rules)


def compare_files(name: str, recorded: Path, made: Path, rules: Rules) -> Compared:
    """Compare two files."""
    old, new = recorded.read_bytes(), made.read_bytes()
    kind, ending = rules.kind(name), Path(name).suffix.lower()
    if old == new:
        return Compared(name, IDENTICAL)
    if kind == "bytes":
        return Compared(name, DIFFERS, _first_byte(old, new))
    if kind == "picture" or (not kind and ending in _PNG):
        return _picture(name, old, new)
    if ending in _NUMPY:
        return _judged(name, lambda: _numpy_numbers(recorded, made), rules)
    if ending in _HDF5 or old.startswith(b"\x89HDF\r\n"):
        return _judged(name, lambda: _hdf5_numbers(recorded, made, rules.ignore), rules)
    try:
        was, now = old.decode(), new.decode()
    except UnicodeDecodeError:
        return Compared(name, DIFFERS, _first_byte(old, new))
    if ending in (".json", ".geojson"):
        try:
            before, after = json.loads(was), json.loads(now)
        except ValueError:
            pass
        else:
            return _judged(name, lambda: _json_numbers(before, after, rules.ignore), rules)
    return _judged(name, lambda: _text_numbers(was, now), rules)


def _judged(name: str, pairs: Any, rules: Rules) -> Compared:
    """Judge the numbers of two files side by side: (where, recorded, made)."""
    largest, first, moved, total = 0.0, "", 0, 0
    try:
        for where, was, now in pairs():
            total += 1
            if was == now or (math.isnan(was) and math.isnan(now)):
                continue
            moved += 1
            difference = _relative(was, now)
            largest = max(largest, difference)
            if difference > rules.rtol and not first:
                first = f"{where}: {was!r} is recorded, {now!r} was made ({difference:.2g} of it)"
    except _DiffersError as error:
        return Compared(name, DIFFERS, str(error), math.inf)
    if first:
        return Compared(name, DIFFERS, f"{first}; {moved} of {total} numbers differ, by {largest:.2g} at most", largest)
    if moved:
        return Compared(name, WITHIN, f"{moved} of {total} numbers differ, by {largest:.2g} at most", largest)
    return Compared(name, IDENTICAL if name == "returned values" else WITHIN, "the same numbers in other bytes")


def _relative(was: float, now: float) -> float:
    if math.isnan(was) or math.isnan(now) or math.isinf(was) or math.isinf(now):
        return math.inf
    return abs(now - was) / max(abs(was), abs(now), 1e-300)


def _first_byte(old: bytes, new: bytes) -> str:
    at = next(
        (n for n, (one, other) in enumerate(zip(old, new, strict=False)) if one != other), min(len(old), len(new))
    )
    sizes = "" if len(old) == len(new) else f"; {len(old)} bytes are recorded, {len(new)} were made"
    return f"byte {at} is the first that differs{sizes}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _json_numbers(was: Any, now: Any, ignore: Collection[str], path: str = "") -> Iterator[tuple[str, float, float]]:
    here = path or "the whole"
    if isinstance(was, dict) and isinstance(now, dict):
        old, new = ({key for key in one if key not in ignore} for one in (was, now))
        if old != new:
            name = sorted(old ^ new)[0]
            raise _DiffersError(
                f"{path + '.' if path else ''}{name} is {'not made' if name in old else 'not recorded'}"
            )
        for key in was:
            if key not in ignore:
                yield from _json_numbers(was[key], now[key], ignore, f"{path}.{key}" if path else str(key))
    elif isinstance(was, list) and isinstance(now, list):
        if len(was) != len(now):
            raise _DiffersError(f"{here} has {len(was)} entries by the record, {len(now)} were made")
        for number, (one, other) in enumerate(zip(was, now, strict=False)):
            yield from _json_numbers(one, other, ignore, f"{path}[{number}]")
    elif _is_number(was) and _is_number(now):
        yield here, float(was), float(now)
    elif was != now:
        raise _DiffersError(f"{here}: {_short(was)} is recorded, {_short(now)} was made")


def _text_numbers(was: str, now: str) -> Iterator[tuple[str, float, float]]:
    old, new = was.splitlines(), now.splitlines()
    for number, (one, other) in enumerate(zip(old, new, strict=False), 1):
        if one == other:
            if found := _NUMBER.search(one):
                yield f"line {number}", float(found[0]), float(found[0])
            continue
        if _NUMBER.sub("#", one).split() != _NUMBER.sub("#", other).split():
            raise _DiffersError(f"line {number}: {_short(one)} is recorded, {_short(other)} was made")
        pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=False)
        for place, (left, right) in enumerate(pairs, 1):
            yield f"line {number}, number {place}", float(left), float(right)
    if len(old) != len(new):
        raise _DiffersError(f"{len(old)} lines are recorded, {len(new)} were made")


def _numpy_numbers(recorded: Path, made: Path) -> Iterator[tuple[str, float, float]]:
    try:
        import numpy as np
    except ImportError:
        raise _DiffersError("its bytes differ, and NumPy is not installed to compare its numbers") from None
    was, now = (np.load(path, allow_pickle=False) for path in (recorded, made))
    if isinstance(was, np.ndarray):
        yield from _array_numbers("", was, now, np)
        return
    if set(was.files) != set(now.files):
        raise _DiffersError(f"array {sorted(set(was.files) ^ set(now.files))[0]} is in one of the two only")
    for name in was.files:
        yield from _array_numbers(name, was[name], now[name], np)


def _hdf5_numbers(recorded: Path, made: Path, ignore: Collection[str]) -> Iterator[tuple[str, float, float]]:
    try:
        import h5py
        import numpy as np
    except ImportError:
        raise _DiffersError("its bytes differ, and h5py is not installed to compare its numbers") from None
    with h5py.File(recorded, "r") as was, h5py.File(made, "r") as now:
        names: list[set[str]] = []
        for file in (was, now):
            found: set[str] = {"/"}
            file.visit(found.add)
            names.append({name for name in found if not set(name.split("/")) & set(ignore)})
        if names[0] != names[1]:
            raise _DiffersError(f"{sorted(names[0] ^ names[1])[0]} is in one of the two only")
        for name in sorted(names[0]):
            old, new = was[name], now[name]
            keys = [set(one.attrs) - set(ignore) for one in (old, new)]
            if keys[0] != keys[1]:
                raise _DiffersError(f"{name}: the attribute {sorted(keys[0] ^ keys[1])[0]} is in one of the two only")
            for key in sorted(keys[0]):
                yield from _array_numbers(f"{name}@{key}", np.asarray(old.attrs[key]), np.asarray(new.attrs[key]), np)
            if isinstance(old, h5py.Dataset) != isinstance(new, h5py.Dataset):
                raise _DiffersError(f"{name} is a dataset in one of the two only")
            if isinstance(old, h5py.Dataset):
                yield from _array_numbers(name, np.asarray(old[()]), np.asarray(new[()]), np)


def _array_numbers(name: str, was: Any, now: Any, np: Any) -> Iterator[tuple[str, float, float]]:
    if was.shape != now.shape:
        raise _DiffersError(f"{name or 'the array'} has the shape {was.shape} by the record, {now.shape} was made")
    if was.dtype.names:
        if was.dtype.names != now.dtype.names:
            raise _DiffersError(f"{name or 'the array'} has other columns")
        for column in was.dtype.names:
            yield from _array_numbers(f"{name}.{column}", was[column], now[column], np)
        return
    if was.dtype.kind == now.dtype.kind == "c":
        yield from _array_numbers(f"{name}, real part", was.real, now.real, np)
        yield from _array_numbers(f"{name}, imaginary part", was.imag, now.imag, np)
        return
    if was.dtype.kind not in "fiub" or now.dtype.kind not in "fiub":
        if not np.array_equal(was, now):
            raise _DiffersError(f"{name or 'the array'} has other texts")
        return
    old, new = np.ravel(was).astype(float), np.ravel(now).astype(float)
    differ = np.flatnonzero(~((old == new) | (np.isnan(old) & np.isnan(new))))
    if not differ.size and old.size:
        yield name, float(old[0]), float(old[0])
    for at in differ:
        index = ", ".join(map(str, np.unravel_index(at, was.shape))) if was.shape else ""
        yield f"{name}[{index}]" if index else name, float(old[at]), float(new[at])


def _picture(name: str, old: bytes, new: bytes) -> Compared:
    try:
        was, now = _pixels(old), _pixels(new)
    except (ValueError, KeyError, IndexError, struct.error, zlib.error):
        return Compared(name, DIFFERS, f"{_first_byte(old, new)}; it is no PNG whose pixels can be compared")
    if was[:3] != now[:3]:
        return Compared(name, DIFFERS, f"{was[0]} x {was[1]} pixels are recorded, {now[0]} x {now[1]} were made")
    width, height, channels = was[:3]
    if was[3] == now[3]:
        return Compared(name, ALIKE, "the same pixels in other bytes")
    stride = width * channels
    seen, rows, columns = 0, [], []
    for row in range(height):
        one, other = was[3][row * stride : (row + 1) * stride], now[3][row * stride : (row + 1) * stride]
        if one == other:
            continue
        found = {at // channels for at in range(stride) if abs(one[at] - other[at]) > SEEN}
        if found:
            seen += len(found)
            rows.append(row)
            columns += [min(found), max(found)]
    share = seen / (width * height)
    if share <= FEW:
        return Compared(name, ALIKE, f"{seen} of {width * height} pixels differ visibly")
    where = f"columns {min(columns)} to {max(columns)}, rows {rows[0]} to {rows[-1]}"
    return Compared(name, DIFFERS, f"{share:.2%} of its pixels differ visibly, in {where}")


def _pixels(data: bytes) -> tuple[int, int, int, bytes]:
    """Return width, height, channels and pixels of a PNG of 8 bits that is not interlaced. ValueError for others."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("no PNG")
    at, packed = 8, b""
    width = height = channels = 0
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        part = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", part)
            if depth != 8 or interlaced:
                raise ValueError("another kind of PNG")
            channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        elif kind == b"IDAT":
            packed += part
        at += 12 + length
    raw, stride = zlib.decompress(packed), width * channels
    before, rows = bytearray(stride), []
    for row in range(height):
        start = row * (stride + 1)
        before = _unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + stride]), before, channels)
        rows.append(bytes(before))
    return width, height, channels, b"".join(rows)


def _unfiltered(kind: int, line: bytearray, above: bytearray, step: int) -> bytearray:
    """Undo the filter of a row of a PNG. Source: PNG specification, section 9."""
    if kind == 0:
        return line
    if kind == 2:
        return bytearray((one + up) & 255 for one, up in zip(line, above, strict=False))
    for at in range(len(line)):
        left = line[at - step] if at >= step else 0
        up = above[at]
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + up) >> 1
        else:
            corner = above[at - step] if at >= step else 0
            near = left + up - corner
            distances = (abs(near - left), abs(near - up), abs(near - corner))
            guess = (left, up, corner)[distances.index(min(distances))]
        line[at] = (line[at] + guess) & 255
    return line


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def main() -> int:
    """Compare what a request of JSON names, and write the verdicts beside it."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rules = Rules(**request["rules"])
    found = [compare_files(one["name"], Path(one["recorded"]), Path(one["made"]), rules) for one in request["pairs"]]
    found += [compare_values(one["name"], one["recorded"], one["made"], rules) for one in request["values"]]
    Path(request["answer"]).write_text(json.dumps([one.to_json() for one in found]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
