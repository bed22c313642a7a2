"""Compare a file with the recorded one: byte by byte, number by number, pixel by pixel.

Arrays and pictures are read by NumPy, h5py and Pillow of the step's environment; without them, bytes are compared.
This file is copied into bundles.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import math
import re
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

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
_HDF5, _ARRAYS = b"\x89HDF\r\n", (".npy", ".npz", ".h5", ".hdf5", ".nxs", ".hdf", ".nx5")
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


class Comparison(NamedTuple):
    """The verdict on a file or value, as in JSON. `largest` is the largest relative difference of a number."""

    name: str
    verdict: str
    said: str = ""
    largest: float = 0.0


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
    if kind == "picture" or (not kind and ending == ".png"):
        return _compare_pictures(name, recorded, made)
    if ending in _ARRAYS or old.startswith(_HDF5):
        return _compare_numbers(name, lambda notes: _numbers_of_arrays(recorded, made, rules.ignore, notes), rules)
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
        yield from _object_numbers(was, now, ignore, notes, f"{path}." if path else "")
    elif isinstance(was, list) and isinstance(now, list):
        if len(was) != len(now):
            raise _DiffersError(f"{location} has {len(was)} entries by the record, {len(now)} were made")
        for index, (old, new) in enumerate(zip(was, now, strict=False)):
            yield from _json_numbers(old, new, ignore, notes, f"{path}[{index}]")
    elif _is_number(was) and _is_number(now):
        yield location, was, now
    elif was != now:
        raise _DiffersError(f"{location}: {_short(was)} is recorded, {_short(now)} was made")


def _object_numbers(
    was: Mapping[str, Any], now: Mapping[str, Any], ignore: Collection[str], notes: list[str], path: str
) -> Pairs:
    before, after = ({key for key in keys if key not in ignore} for keys in (was, now))
    if before != after:
        name = sorted(before ^ after)[0]
        raise _DiffersError(f"{path}{name} is {'not made' if name in before else 'not recorded'}")
    for key in was:
        if key not in ignore:
            yield from _json_numbers(was[key], now[key], ignore, notes, f"{path}{key}")
        elif key not in now or was[key] != now[key]:
            notes.append(f"{path}{key} differs, which does not count")


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
    return Comparison(name, decisive.verdict, f"{decisive.name} in it: {decisive.said}", largest)


def _contents(name: str, path: Path) -> dict[str, bytes]:
    ending = Path(name).suffix.lower()
    if ending in _PACKED:
        return {Path(name).stem: _PACKED[ending](path.read_bytes())}
    with zipfile.ZipFile(path) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}


def _numbers_of_arrays(recorded: Path, made: Path, ignore: Collection[str], notes: list[str]) -> Pairs:
    try:
        was, now = (_arrays(path, ignore) for path in (recorded, made))
    except ImportError as error:
        raise _DiffersError(f"its bytes differ, and {error.name} is not installed to compare its numbers") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        difference = _first_byte(recorded.read_bytes(), made.read_bytes())
        raise _DiffersError(f"{difference}; it cannot be read: {error}") from None
    if was.keys() != now.keys():
        name = sorted(was.keys() ^ now.keys())[0]
        raise _DiffersError(f"{name} is {'not made' if name in was else 'not recorded'}")
    for name in was:
        yield from _array_numbers(name, was[name], now[name], notes)


def _arrays(path: Path, ignore: Collection[str]) -> dict[str, Any]:
    """Return the arrays of a file by name; of HDF5 also attributes (`NAME@KEY`), and an empty one for each group."""
    import numpy as np

    with path.open("rb") as file:
        is_hdf5 = file.read(len(_HDF5)) == _HDF5
    if not is_hdf5:
        loaded = np.load(path, allow_pickle=False)
        return {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    import h5py

    found: dict[str, Any] = {}
    with h5py.File(path, "r") as opened:
        names = ["/"]
        opened.visit(names.append)
        for name in names:
            if not {*name.split("/")} & {*ignore}:
                item = opened[name]
                attributes = {key: value for key, value in item.attrs.items() if key not in ignore}
                found |= {f"{name}@{key}": np.asarray(value) for key, value in attributes.items()}
                is_array = isinstance(item, h5py.Dataset)
                found[name if is_array else f"the group {name}"] = np.asarray(item[()]) if is_array else np.zeros(0)
    return found


def _array_numbers(name: str, was: Any, now: Any, notes: list[str]) -> Pairs:
    """Yield the numbers that differ, also by the sign of NaN or zero; the first one if none does."""
    import numpy as np

    label = name or "the array"
    if was.shape != now.shape:
        raise _DiffersError(f"{label} has the shape {was.shape} by the record, {now.shape} was made")
    if was.dtype.names != now.dtype.names:
        raise _DiffersError(f"{label} has the columns {was.dtype.names} by the record, {now.dtype.names} were made")
    if was.dtype != now.dtype and was.dtype.kind in "fiubc":
        notes.append(f"{label} is {was.dtype} by the record, {now.dtype} was made")
    parts = [(f"{name}.{column}", was[column], now[column]) for column in was.dtype.names or ()]
    if was.dtype.kind == now.dtype.kind == "c":
        parts = [(f"{label}, real part", was.real, now.real), (f"{label}, imaginary part", was.imag, now.imag)]
    for part, old_part, new_part in parts:
        yield from _array_numbers(part, old_part, new_part, notes)
    if parts:
        return
    if was.dtype.kind not in "fiub" or now.dtype.kind not in "fiub":
        if not np.array_equal(was, now):
            raise _DiffersError(f"{label} has other texts")
        return
    old, new = np.ravel(was), np.ravel(now)
    same = old == new
    if old.dtype.kind == new.dtype.kind == "f":
        same = (same | (np.isnan(old) & np.isnan(new))) & (np.signbit(old) == np.signbit(new))
    if same.all() and old.size:
        yield label, _plain(old[0]), _plain(old[0])
    for flat_index in np.flatnonzero(~same):
        index = ", ".join(map(str, np.unravel_index(flat_index, was.shape))) if was.shape else ""
        yield f"{name}[{index}]" if index else label, _plain(old[flat_index]), _plain(new[flat_index])


def _plain(number: Any) -> int | float:
    return float(number) if number.dtype.kind == "f" else int(number)


def _pixels(path: Path) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGBA")).astype(int)


def _compare_pictures(name: str, recorded: Path, made: Path) -> Comparison:
    difference = _first_byte(recorded.read_bytes(), made.read_bytes())
    try:
        import numpy as np

        was, now = (_pixels(path) for path in (recorded, made))
    except ImportError as error:
        return Comparison(name, DIFFERS, f"{difference}; {error.name} is not installed to compare its pixels")
    except (OSError, SyntaxError, ValueError) as error:
        return Comparison(name, DIFFERS, f"{difference}; it cannot be read: {error}")
    if was.shape != now.shape:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (was.shape, now.shape)]
        return Comparison(name, DIFFERS, f"{sizes[0]} pixels are recorded, {sizes[1]} were made")
    if (was == now).all():
        return Comparison(name, ALIKE, "the same pixels in other bytes")
    rows, columns = np.nonzero((abs(was - now) > VISIBLE).any(axis=2))
    pixels = was.shape[0] * was.shape[1]
    if rows.size <= FEW * pixels:
        return Comparison(name, ALIKE, f"{rows.size} of {pixels} pixels differ visibly")
    where = f"columns {columns.min()} to {columns.max()}, rows {rows.min()} to {rows.max()}"
    return Comparison(name, DIFFERS, f"{rows.size / pixels:.2%} of its pixels differ visibly, in {where}")


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
    Path(request["answer"]).write_text(json.dumps([item._asdict() for item in comparisons]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
