"""Compare a file with the recorded one: byte by byte, number by number, pixel by pixel.

Plain Python suffices; NumPy and h5py are used for their files, if installed. This file is copied into bundles.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import math
import re
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

IDENTICAL, WITHIN, ALIKE = "identical", "numbers within tolerance", "picture alike"
DIFFERS, MISSING, NEW = "differs", "not made", "not recorded"
ORDER = (IDENTICAL, WITHIN, ALIKE, NEW, MISSING, DIFFERS)
RTOL = 1e-9
RETURNED = "returned values"
VISIBLE = 8  # of 255: smaller differences of a pixel are invisible
FEW = 0.0005  # share of pixels that may differ in pictures that are alike
_NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf(?:inity)?)(?![\w.])", re.IGNORECASE
)
_NUMPY, _HDF5, _PNG = (".npy", ".npz"), (".h5", ".hdf5", ".nxs", ".hdf", ".nx5"), (".png",)
_PACKED: Mapping[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}
MOST_NOTES = 3  # of differences other than in numbers

Pairs = Iterator[tuple[str, Any, Any]]  # position, recorded number, number made


@dataclass(frozen=True)
class Rules:
    """Rules of comparison: the tolerance, the kinds of files by name, and names whose values are ignored."""

    rtol: float = RTOL
    files: Mapping[str, str] | None = None
    ignore: Collection[str] = ()

    def kind(self, name: str) -> str:
        """Return the declared kind of a file: numbers, picture or bytes; empty if none is declared."""
        return next((kind for pattern, kind in (self.files or {}).items() if fnmatchcase(name, pattern)), "")


@dataclass(frozen=True)
class Comparison:
    """The verdict on a file or value. `largest` is the largest relative difference of a number."""

    name: str
    verdict: str
    note: str = ""
    largest: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON."""
        return {"name": self.name, "verdict": self.verdict, "said": self.note, "largest": self.largest}


class _DiffersError(Exception):
    """Raised if two files differ other than in a number; the message says where."""


def compare_values(name: str, recorded: Any, made: Any, rules: Rules) -> Comparison:
    """Compare values of JSON."""
    return _compare_numbers(name, lambda notes: _json_numbers(recorded, made, rules.ignore, notes), rules)


def compare_files(name: str, recorded: Path, made: Path, rules: Rules) -> Comparison:
    """Compare two files."""
    old, new = recorded.read_bytes(), made.read_bytes()
    kind, ending = rules.kind(name), Path(name).suffix.lower()
    if old == new:
        return Comparison(name, IDENTICAL)
    if kind == "bytes":
        return Comparison(name, DIFFERS, _first_byte(old, new))
    if kind == "picture" or (not kind and ending in _PNG):
        return _compare_pictures(name, old, new)
    if ending in _NUMPY:
        return _compare_numbers(name, lambda notes: _numpy_numbers(recorded, made, notes), rules)
    if ending in _HDF5 or old.startswith(b"\x89HDF\r\n"):
        return _compare_numbers(name, lambda notes: _hdf5_numbers(recorded, made, rules.ignore, notes), rules)
    if ending in _PACKED or (old.startswith(b"PK\x03\x04") and new.startswith(b"PK\x03\x04")):
        return _compare_unpacked(name, recorded, made, rules)
    try:
        old_text, new_text = old.decode(), new.decode()
    except UnicodeDecodeError:
        return Comparison(name, DIFFERS, _first_byte(old, new))
    if ending in (".json", ".geojson"):
        try:
            before, after = json.loads(old_text), json.loads(new_text)
        except ValueError:
            pass
        else:
            return _compare_numbers(name, lambda notes: _json_numbers(before, after, rules.ignore, notes), rules)
    return _compare_numbers(name, lambda notes: _text_numbers(old_text, new_text, notes), rules)


def _compare_numbers(name: str, pairs: Callable[[list[str]], Pairs], rules: Rules) -> Comparison:
    """Compare the numbers of two files pair by pair."""
    largest, first, changed, total, error = 0.0, "", 0, 0, ""
    notes: list[str] = []
    signs: list[str] = []
    try:
        for position, was, now in pairs(notes):
            total += 1
            if was == now or (was != was and now != now):
                if not signs and _is_negative(was) != _is_negative(now):
                    signs = [f"{position}: {was!r} is recorded, {now!r} with the other sign was made"]
                continue
            changed += 1
            difference = _relative(was, now)
            largest = max(largest, difference)
            if difference > rules.rtol and not first:
                first = f"{position}: {was!r} is recorded, {now!r} was made ({difference:.2g} of it)"
    except _DiffersError as difference_error:
        error, largest = str(difference_error), math.inf
    count = f"{changed} of {total} numbers differ, by {largest:.2g} at most"
    notes = [*signs, *notes]
    shown_notes = [*notes[:MOST_NOTES], *([f"{len(notes) - MOST_NOTES} more such"] if len(notes) > MOST_NOTES else [])]
    if error or first:
        return Comparison(name, DIFFERS, "; ".join(filter(None, (first, error or count, *shown_notes))), largest)
    if changed:
        return Comparison(name, WITHIN, "; ".join((count, *shown_notes)), largest)
    if name == RETURNED and not shown_notes:
        return Comparison(name, IDENTICAL)
    return Comparison(name, WITHIN, "; ".join(("the same numbers in other bytes", *shown_notes)))


def _is_negative(number: Any) -> bool:
    return isinstance(number, float) and math.copysign(1, number) < 0


def _relative(was: Any, now: Any) -> float:
    try:
        if not (math.isfinite(was) and math.isfinite(now)):
            return math.inf
        return float(abs(now - was) / max(abs(was), abs(now), 1e-300))
    except OverflowError:  # integers of hundreds of digits
        return math.inf


def _first_byte(old: bytes, new: bytes) -> str:
    position = next(
        (index for index, (left, right) in enumerate(zip(old, new, strict=False)) if left != right),
        min(len(old), len(new)),
    )
    sizes = "" if len(old) == len(new) else f"; {len(old)} bytes are recorded, {len(new)} were made"
    return f"byte {position} is the first that differs{sizes}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _json_numbers(was: Any, now: Any, ignore: Collection[str], notes: list[str], path: str = "") -> Pairs:
    location = path or "the whole"
    if isinstance(was, dict) and isinstance(now, dict):
        yield from _object_numbers(was, now, ignore, notes, path)
    elif isinstance(was, list) and isinstance(now, list):
        if len(was) != len(now):
            raise _DiffersError(f"{location} has {len(was)} entries by the record, {len(now)} were made")
        if was != now and _is_reordered(was, now):
            raise _DiffersError(f"{location} has the same entries in another order")
        for index, (old, new) in enumerate(zip(was, now, strict=False)):
            yield from _json_numbers(old, new, ignore, notes, f"{path}[{index}]")
    elif _is_number(was) and _is_number(now):
        yield location, was, now
    elif was != now:
        raise _DiffersError(f"{location}: {_short(was)} is recorded, {_short(now)} was made")


def _object_numbers(
    was: dict[str, Any], now: dict[str, Any], ignore: Collection[str], notes: list[str], path: str
) -> Pairs:
    old, new = ({key for key in keys if key not in ignore} for keys in (was, now))
    if old != new:
        name = sorted(old ^ new)[0]
        raise _DiffersError(f"{path + '.' if path else ''}{name} is {'not made' if name in old else 'not recorded'}")
    for key in was:
        key_path = f"{path}.{key}" if path else str(key)
        if key not in ignore:
            yield from _json_numbers(was[key], now[key], ignore, notes, key_path)
        elif key not in now or was[key] != now[key]:
            notes.append(f"{key_path} differs, which does not count")


def _is_reordered(was: list[Any], now: list[Any]) -> bool:
    return sorted(json.dumps(item, sort_keys=True) for item in was) == sorted(
        json.dumps(item, sort_keys=True) for item in now
    )


def _text_numbers(was: str, now: str, notes: list[str]) -> Pairs:
    old, new = was.splitlines(), now.splitlines()
    if old == new:
        notes.append("the same lines with other ends")
    elif sorted(old) == sorted(new):
        first = next(number for number, (left, right) in enumerate(zip(old, new, strict=False), 1) if left != right)
        raise _DiffersError(f"the same {len(old)} lines in another order, from line {first} on")
    for number, (old_line, new_line) in enumerate(zip(old, new, strict=False), 1):
        if old_line == new_line:
            if match := _NUMBER.search(old_line):
                yield f"line {number}", _number(match[0]), _number(match[0])
            continue
        if _NUMBER.sub("#", old_line).split() != _NUMBER.sub("#", new_line).split():
            raise _DiffersError(f"line {number}: {_short(old_line)} is recorded, {_short(new_line)} was made")
        pairs = zip(_NUMBER.findall(old_line), _NUMBER.findall(new_line), strict=False)
        for index, (left, right) in enumerate(pairs, 1):
            yield f"line {number}, number {index}", _number(left), _number(right)
    if len(old) != len(new):
        raise _DiffersError(f"{len(old)} lines are recorded, {len(new)} were made")


def _number(text: str) -> int | float:
    """Parse a number; integers exactly, since they may be ids or counters."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _compare_unpacked(name: str, recorded: Path, made: Path, rules: Rules) -> Comparison:
    """Compare the contents of two compressed files or archives; the compression does not count."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            was, now = (_contents(name, path) for path in (recorded, made))
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
            difference = _first_byte(recorded.read_bytes(), made.read_bytes())
            return Comparison(name, DIFFERS, f"{difference}; it cannot be unpacked: {error}")
        if was.keys() != now.keys():
            other = sorted(was.keys() ^ now.keys())[0]
            return Comparison(name, DIFFERS, f"{other} in it was {'not made' if other in was else 'not recorded'}")
        comparisons = []
        for number, (inner, content) in enumerate(was.items()):
            if content != now[inner]:
                old, new = (Path(scratch, f"{number}-{side}") for side in ("recorded", "made"))
                old.write_bytes(content)
                new.write_bytes(now[inner])
                comparisons.append(compare_files(inner, old, new, rules))
    if not comparisons:
        return Comparison(name, WITHIN, "the same content, packed otherwise")
    decisive = max(comparisons, key=lambda comparison: ORDER.index(comparison.verdict))
    largest = max(comparison.largest for comparison in comparisons)
    return Comparison(name, decisive.verdict, f"{decisive.name} in it: {decisive.note}", largest)


def _contents(name: str, path: Path) -> dict[str, bytes]:
    ending = Path(name).suffix.lower()
    if ending in _PACKED:
        return {Path(name).stem: _PACKED[ending](path.read_bytes())}
    with zipfile.ZipFile(path) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}


def _numpy_numbers(recorded: Path, made: Path, notes: list[str]) -> Pairs:
    try:
        import numpy as np
    except ImportError:
        raise _DiffersError("its bytes differ, and NumPy is not installed to compare its numbers") from None
    try:
        was, now = (np.load(path, allow_pickle=False) for path in (recorded, made))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        difference = _first_byte(recorded.read_bytes(), made.read_bytes())
        raise _DiffersError(f"{difference}; NumPy cannot read it: {error}") from None
    if isinstance(was, np.ndarray) and isinstance(now, np.ndarray):
        yield from _array_numbers("", was, now, np, notes)
        return
    if isinstance(was, np.ndarray) or isinstance(now, np.ndarray):
        raise _DiffersError("one of the two is an archive of arrays, the other an array")
    if set(was.files) != set(now.files):
        name = sorted(set(was.files) ^ set(now.files))[0]
        raise _DiffersError(f"the array {name} is {'not made' if name in was.files else 'not recorded'}")
    sizes = [
        {entry.filename: (entry.compress_type, entry.compress_size) for entry in arrays.zip.infolist()}
        for arrays in (was, now)
    ]
    for name in was.files:
        yield from _array_numbers(name, was[name], now[name], np, notes)
    if not notes and sizes[0] != sizes[1]:
        notes.append("packed otherwise")


def _hdf5_numbers(recorded: Path, made: Path, ignore: Collection[str], notes: list[str]) -> Pairs:
    try:
        import h5py
        import numpy as np
    except ImportError:
        raise _DiffersError("its bytes differ, and h5py is not installed to compare its numbers") from None
    try:
        with h5py.File(recorded, "r") as was, h5py.File(made, "r") as now:
            yield from _hdf5_pairs(was, now, ignore, notes, (h5py, np))
    except OSError as error:
        difference = _first_byte(recorded.read_bytes(), made.read_bytes())
        raise _DiffersError(f"{difference}; HDF5 cannot read it: {error}") from None


def _hdf5_pairs(was: Any, now: Any, ignore: Collection[str], notes: list[str], libraries: tuple[Any, Any]) -> Pairs:
    h5py, np = libraries
    names: list[set[str]] = []
    for file in (was, now):
        visited: set[str] = {"/"}
        file.visit(visited.add)
        names.append({name for name in visited if not set(name.split("/")) & set(ignore)})
    if names[0] != names[1]:
        name = sorted(names[0] ^ names[1])[0]
        raise _DiffersError(f"{name} is {'not made' if name in names[0] else 'not recorded'}")
    for name in sorted(names[0]):
        old, new = was[name], now[name]
        keys = [set(item.attrs) - set(ignore) for item in (old, new)]
        if keys[0] != keys[1]:
            key = sorted(keys[0] ^ keys[1])[0]
            raise _DiffersError(f"{name}: the attribute {key} is {'not made' if key in keys[0] else 'not recorded'}")
        for key in sorted(keys[0]):
            values = [np.asarray(item.attrs[key]) for item in (old, new)]
            yield from _array_numbers(f"{name}@{key}", values[0], values[1], np, notes)
        for key in sorted(set(old.attrs) & set(new.attrs) & set(ignore)):
            if not np.array_equal(np.asarray(old.attrs[key]), np.asarray(new.attrs[key])):
                notes.append(f"{name}@{key} differs, which does not count")
        if isinstance(old, h5py.Dataset) != isinstance(new, h5py.Dataset):
            raise _DiffersError(f"{name} is a dataset in one of the two only")
        if isinstance(old, h5py.Dataset):
            yield from _array_numbers(name, np.asarray(old[()]), np.asarray(new[()]), np, notes)
            packed = [(item.compression, item.compression_opts, item.shuffle, item.chunks) for item in (old, new)]
            if packed[0] != packed[1]:
                ways = [" ".join(str(part) for part in way[:2] if part is not None) or "not at all" for way in packed]
                notes.append(f"{name} is packed otherwise ({ways[0]} by the record, {ways[1]} was made)")


def _array_numbers(name: str, was: Any, now: Any, np: Any, notes: list[str]) -> Pairs:
    label = name or "the array"
    if was.shape != now.shape:
        raise _DiffersError(f"{label} has the shape {was.shape} by the record, {now.shape} was made")
    if was.dtype.names or now.dtype.names:
        _require_same_columns(label, *(array.dtype.names or () for array in (was, now)))
        for column in was.dtype.names:
            yield from _array_numbers(f"{name}.{column}", was[column], now[column], np, notes)
        return
    if was.dtype != now.dtype and was.dtype.kind in "fiubc":
        notes.append(f"{label} is {was.dtype} by the record, {now.dtype} was made")
    if was.dtype.kind == now.dtype.kind == "c":
        yield from _array_numbers(f"{name}, real part", was.real, now.real, np, notes)
        yield from _array_numbers(f"{name}, imaginary part", was.imag, now.imag, np, notes)
        return
    if was.dtype.kind not in "fiub" or now.dtype.kind not in "fiub":
        if not np.array_equal(was, now):
            raise _DiffersError(f"{label} has other texts")
        return
    yield from _differing(name, label, was, now, np)


def _require_same_columns(label: str, was: tuple[str, ...], now: tuple[str, ...]) -> None:
    if was == now:
        return
    other = sorted({*was} ^ {*now})
    example = f": {other[0]} is {'not made' if other[0] in was else 'not recorded'}" if other else ""
    raise _DiffersError(f"{label} has other columns{example}")


def _differing(name: str, label: str, was: Any, now: Any, np: Any) -> Pairs:
    """Yield the numbers that differ, also by the sign of NaN or zero; the first one if none does."""
    old, new = np.ravel(was), np.ravel(now)
    nan = [np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool) for array in (old, new)]
    differ = np.flatnonzero(~((old == new) | (nan[0] & nan[1])))
    if differ.size and old.size > 1 and np.array_equal(np.sort(old[~nan[0]]), np.sort(new[~nan[1]])):
        index = ", ".join(map(str, np.unravel_index(differ[0], was.shape)))
        raise _DiffersError(f"{label} has the same numbers in another order, the first at [{index}]")
    if old.dtype.kind == new.dtype.kind == "f":
        signs = np.flatnonzero(np.signbit(old) != np.signbit(new))
        differ = np.union1d(differ, signs)
    if not differ.size and old.size:
        yield name, _plain(old[0]), _plain(old[0])
    for flat_index in differ:
        index = ", ".join(map(str, np.unravel_index(flat_index, was.shape))) if was.shape else ""
        yield f"{name}[{index}]" if index else name, _plain(old[flat_index]), _plain(new[flat_index])


def _plain(number: Any) -> int | float:
    return float(number) if number.dtype.kind == "f" else int(number)


def _compare_pictures(name: str, old: bytes, new: bytes) -> Comparison:
    try:
        was, now = _pixels(old), _pixels(new)
    except (ValueError, KeyError, IndexError, struct.error, zlib.error):
        return Comparison(name, DIFFERS, f"{_first_byte(old, new)}; it is no PNG whose pixels can be compared")
    if was[:3] != now[:3]:
        return Comparison(name, DIFFERS, f"{was[0]} x {was[1]} pixels are recorded, {now[0]} x {now[1]} were made")
    width, height, channels = was[:3]
    if was[4] != now[4]:
        return Comparison(name, DIFFERS, "its pixels have another palette")
    if was[3] == now[3]:
        return Comparison(name, ALIKE, "the same pixels in other bytes")
    stride = width * channels
    count, rows, columns = 0, [], []
    for row in range(height):
        old_row, new_row = was[3][row * stride : (row + 1) * stride], now[3][row * stride : (row + 1) * stride]
        if old_row == new_row:
            continue
        changed = {index // channels for index in range(stride) if abs(old_row[index] - new_row[index]) > VISIBLE}
        if changed:
            count += len(changed)
            rows.append(row)
            columns += [min(changed), max(changed)]
    share = count / (width * height)
    if share <= FEW:
        return Comparison(name, ALIKE, f"{count} of {width * height} pixels differ visibly")
    where = f"columns {min(columns)} to {max(columns)}, rows {rows[0]} to {rows[-1]}"
    return Comparison(name, DIFFERS, f"{share:.2%} of its pixels differ visibly, in {where}")


def _pixels(data: bytes) -> tuple[int, int, int, bytes, bytes]:
    """Return width, height, channels, pixels and palette of a non-interlaced PNG of 8 bits.

    Raises ValueError for others.
    """
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("no PNG")
    offset, packed, palette = 8, b"", b""
    width = height = channels = 0
    while offset < len(data):
        (length,), kind = struct.unpack(">I", data[offset : offset + 4]), data[offset + 4 : offset + 8]
        part = data[offset + 8 : offset + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", part)
            if depth != 8 or interlaced:
                raise ValueError("another kind of PNG")
            channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        elif kind in (b"PLTE", b"tRNS"):
            palette += part
        elif kind == b"IDAT":
            packed += part
        offset += 12 + length
    raw, stride = zlib.decompress(packed), width * channels
    before, rows = bytearray(stride), []
    for row in range(height):
        start = row * (stride + 1)
        before = _unfilter(raw[start], bytearray(raw[start + 1 : start + 1 + stride]), before, channels)
        rows.append(bytes(before))
    return width, height, channels, b"".join(rows), palette


def _unfilter(kind: int, line: bytearray, above: bytearray, step: int) -> bytearray:
    """Undo the filter of a row of a PNG. Source: PNG specification, section 9."""
    if kind == 0:
        return line
    if kind == 2:
        return bytearray((value + up) & 255 for value, up in zip(line, above, strict=False))
    for index in range(len(line)):
        left = line[index - step] if index >= step else 0
        up = above[index]
        if kind == 1:
            predicted = left
        elif kind == 3:
            predicted = (left + up) >> 1
        else:
            corner = above[index - step] if index >= step else 0
            estimate = left + up - corner
            distances = (abs(estimate - left), abs(estimate - up), abs(estimate - corner))
            predicted = (left, up, corner)[distances.index(min(distances))]
        line[index] = (line[index] + predicted) & 255
    return line


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def main() -> int:
    """Compare the files and values of a JSON request, and write the verdicts to its answer file."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rules = Rules(**request["rules"])
    comparisons = [
        compare_files(pair["name"], Path(pair["recorded"]), Path(pair["made"]), rules) for pair in request["pairs"]
    ]
    comparisons += [compare_values(pair["name"], pair["recorded"], pair["made"], rules) for pair in request["values"]]
    Path(request["answer"]).write_text(json.dumps([item.to_json() for item in comparisons]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
