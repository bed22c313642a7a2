"""Judge the readers on real files by other readers: `python tests/server/ingest/judge.py FOLDER`.

Each value that a reader states about a file is compared with what an independent library reads from the same bytes:
pandas (with openpyxl, xlrd or odfpy), pyfive, tifffile, imagesize, ncempy. What has no such library here is counted as
not judged.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crucible_lineage.server.ingest import ingest

Pair = tuple[str, Any, Any]  # what is compared, as stated, as the other library has it


@dataclass
class Verdict:
    """The figures of a folder: files and compared values by suffix, and the wrong values in words."""

    files: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def judge(folder: Path) -> Verdict:
    verdict = Verdict()
    contents = Path(tempfile.mkdtemp())
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        alone = contents / str(number)  # as in the server: without a suffix, and with nothing beside it
        suffix = path.suffix.lower()
        try:
            shutil.copyfile(path, alone)
            name, found = ingest(alone, path.name, None)
        except Exception as error:  # a failed request, which states nothing
            verdict.unreadable.append(f"{path.name}: failed: {error}")
            continue
        finally:
            alone.unlink()
        if name is None:
            continue
        verdict.files[suffix] += 1
        judges: dict[str, Callable[[Path, Any], Iterator[Pair]]] = {
            "JsonIngestor": _json, "DelimitedTextIngestor": _table, "WorkbookIngestor": _workbook,
            "H5Ingestor": _hdf5, "ImageIngestor": _image,
        }  # fmt: skip
        try:
            pairs = list(judges.get(name, _signals)(path, found.metadata))
        except Exception as error:  # the other library is missing, or cannot read this
            verdict.unreadable.append(f"{path.name}: {type(error).__name__}: {error}")
            continue
        verdict.judged[suffix] += 1
        verdict.values[suffix] += len(pairs)
        verdict.wrong += [
            f"{path.name}: {what}: {ours!r}, not {theirs!r}" for what, ours, theirs in pairs if not _same(ours, theirs)
        ]
    return verdict


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, str) and ours.endswith("not summarised"):
        return True
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=1e-12)
    return bool(ours == theirs)


def _json(path: Path, found: Any) -> Iterator[Pair]:
    document = json.loads(path.read_bytes().decode("utf-8-sig"), parse_constant=lambda _: None)
    if isinstance(document, list):
        yield "items", found["json"]["items"], len(document)
    else:
        yield from ((key, found[key], value) for key, value in document.items())


def _columns(described: Any, frame: Any) -> Iterator[Pair]:
    import pandas as pd

    yield "rows", described["rows"], len(frame)
    yield "names", [column["name"] for column in described["columns"]], [str(name).strip() for name in frame.columns]
    for place, column in enumerate(described["columns"]):
        if "min" in column:
            numbers = pd.to_numeric(frame.iloc[:, place], errors="raise").dropna()
            yield f"{column['name']} min", column["min"], float(numbers.min())
            yield f"{column['name']} max", column["max"], float(numbers.max())
        if "unit" in column:
            yield f"{column['name']} unit", column["unit"] in column["name"], True


def _table(path: Path, found: Any) -> Iterator[Pair]:
    import pandas as pd

    table = found["table"]
    mark = {"comma": ",", "semicolon": ";", "tab": "\t"}[table["delimiter"]]
    lines = path.read_bytes().decode("utf-8-sig", "replace").splitlines()
    above = sum(1 for _ in _until(lines))
    yield from _columns(table, pd.read_csv(path, sep=mark, skiprows=above, encoding_errors="replace"))
    text = "\n".join(lines[:above])
    yield from ((name, str(value) in text and name in text, True) for name, value in found.items() if name != "table")


def _until(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if line and not line.startswith("#"):
            return
        yield line


def _workbook(path: Path, found: Any) -> Iterator[Pair]:
    import pandas as pd

    sheets = pd.read_excel(path, sheet_name=None)
    if isinstance(found["sheets"], str):  # of charts, too, which pandas leaves out
        yield "sheets", int(found["sheets"].split()[0]) >= len(sheets), True
        return
    yield "sheets", list(found["sheets"]), list(sheets)
    for name, one in found["sheets"].items():
        if not isinstance(one, str):
            yield from _columns(one["table"], sheets[name].dropna(how="all"))


def _hdf5(path: Path, found: Any) -> Iterator[Pair]:
    import pyfive

    with pyfive.File(str(path)) as file:
        if isinstance(found["hdf5"], str):
            return
        for name, described in found["hdf5"]["datasets"].items():
            with suppress(NotImplementedError, KeyError):
                yield f"{name} shape", described["shape"], list(file[name].shape)
        for name, attributes in found["hdf5"]["attributes"].items():
            with suppress(NotImplementedError, KeyError, RuntimeError):
                theirs = dict(file[name].attrs)
                yield from (
                    (f"{name}@{key}", value, _plain(theirs[key])) for key, value in attributes.items() if key in theirs
                )
        for name, shown in found["hdf5"].get("values", {}).items():
            value = shown["value"] if isinstance(shown, dict) else shown
            with suppress(NotImplementedError, KeyError, RuntimeError):
                other = _plain(file[name][()])
                while isinstance(other, list) and len(other) == 1:
                    other = other[0]
                yield name, value, other.strip() if isinstance(other, str) else other
        yield from (
            (f"@{key}", value, _plain(file.attrs[key]))
            for key, value in found.items()
            if key != "hdf5" and key in file.attrs
        )


def _plain(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode("utf-8", "replace")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _image(path: Path, found: Any) -> Iterator[Pair]:
    image = found["image"]
    if image["format"] == "TIFF":
        import tifffile

        with tifffile.TiffFile(path) as file:
            if "frames" in image:
                yield "frames", int(image["frames"].split()[0]), len(file.pages)
                return
            page: Any = file.pages[0]
            yield "size", [image["width_px"], image["height_px"]], [page.imagewidth, page.imagelength]
            yield "frames", 1, len(file.pages)
            for name, value in image.get("tags", {}).items():
                if name in page.tags and isinstance(value, int | float | str):
                    other = page.tags[name].value
                    other = other[0] / other[1] if isinstance(other, tuple) and len(other) == 2 else other
                    yield name, value.strip() if isinstance(value, str) else value, _plain(other)
    elif image["format"] == "PNG":
        header = path.read_bytes()[16:24]
        yield "size", [image["width_px"], image["height_px"]], [int.from_bytes(header[:4]), int.from_bytes(header[4:])]
    elif "frames" not in image:
        import imagesize

        yield "size", [image["width_px"], image["height_px"]], list(imagesize.get(str(path)))


def _signals(path: Path, found: Any) -> Iterator[Pair]:
    from ncempy.io import dm, emd, mrc, ser

    signals = found["signals"]
    if isinstance(signals, str) or len(signals) != 1:
        raise NotImplementedError
    readers = {
        ".dm3": dm.dmReader,
        ".dm4": dm.dmReader,
        ".ser": ser.serReader,
        ".mrc": mrc.mrcReader,
        ".emd": emd.emdReader,
    }
    try:
        other = readers[path.suffix.lower()](str(path))
    except Exception as error:
        raise NotImplementedError from error
    shape = [size for size in other["data"].shape if size > 1]
    yield "shape", sorted(size for size in signals[0]["shape"] if size > 1), sorted(shape)
    scales = sorted(abs(axis["scale"]) for axis in signals[0].get("axes", ()) if "scale" in axis)
    pixel = [float(size) for size in other.get("pixelSize", ())]
    if len(scales) == len(pixel):
        units = {str(axis.get("units")) for axis in signals[0]["axes"]}
        if units <= {str(unit) for unit in other.get("pixelUnit", ())}:
            yield "scales", scales, sorted(map(abs, pixel))


if __name__ == "__main__":
    figures = judge(Path(sys.argv[1]))
    for suffix, count in sorted(figures.files.items()):
        print(f"{suffix}: {count} files, {figures.judged[suffix]} judged, {figures.values[suffix]} values")
    print(*figures.unreadable, *figures.wrong, sep="\n")
    totals = (figures.files.total(), figures.judged.total(), figures.values.total(), len(figures.wrong))
    print("{} files, {} judged, {} values, {} wrong".format(*totals))
