"""Judge the readers on real files: `PYTHONPATH=. python tests/server/ingest/judge.py FOLDER`.

Each stated value is compared with what another library reads from the same bytes: pandas,
pyfive, tifffile, imagesize. Where there is none, or it cannot read the file, the file is not judged.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crucible_lineage.server.ingest import ingest

Pairs = Iterator[tuple[str, Any, Any]]  # what is compared, as stated, as the other library has it


@dataclass
class Verdict:
    """The figures of a folder: files that were read, those that were judged, and compared values, by suffix."""

    files: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def judge(folder: Path) -> Verdict:
    verdict, contents = Verdict(), Path(tempfile.mkdtemp())
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        alone = contents / str(number)  # as in the server: without a suffix, and with nothing beside it
        shutil.copyfile(path, alone)
        name, found = None, None
        with suppress(Exception):  # a failed request states nothing
            name, found = ingest(alone, path.name, None)
        alone.unlink()
        if name is None or found is None:
            continue
        verdict.files[path.suffix.lower()] += 1
        try:
            pairs = list(_JUDGES[name](path, found.metadata))
        except Exception:  # the other library is missing, or cannot read this
            continue
        verdict.judged[path.suffix.lower()] += 1
        verdict.values[path.suffix.lower()] += len(pairs)
        verdict.wrong += [f"{path.name}: {what}: {a!r}, not {b!r}" for what, a, b in pairs if not _same(a, b)]
    return verdict


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=1e-12)
    return bool(ours == theirs) or str(ours).endswith("not summarised")


def _json(path: Path, found: Any) -> Pairs:
    document = json.loads(path.read_bytes().decode("utf-8-sig"), parse_constant=lambda _: None)
    if isinstance(document, list):
        document, found = {"items": len(document)}, found["json"]
    yield from ((key, found[key], value) for key, value in document.items())


def _table(path: Path, found: Any) -> Pairs:
    import pandas as pd

    mark = {"comma": ",", "semicolon": ";", "tab": "\t"}[found["table"]["delimiter"]]
    lines = path.read_bytes().decode("utf-8-sig", "replace").splitlines()
    above = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    described, frame = found["table"], pd.read_csv(path, sep=mark, skiprows=above, encoding_errors="replace")
    yield "rows", described["rows"], len(frame)
    yield "names", [column["name"] for column in described["columns"]], [str(name).strip() for name in frame.columns]
    for place, column in enumerate(described["columns"]):
        if "min" in column:
            numbers = pd.to_numeric(frame.iloc[:, place]).dropna()
            yield column["name"], [column["min"], column["max"]], [float(numbers.min()), float(numbers.max())]
        yield f"{column['name']} unit", column.get("unit", "") in column["name"], True


def _hdf5(path: Path, found: Any) -> Pairs:
    import pyfive

    found = {"hdf5": {}, **found}
    contents = found.pop("hdf5") if isinstance(found["hdf5"], dict) else {}
    shown = {
        name: value["value"] if isinstance(value, dict) else value for name, value in contents.get("values", {}).items()
    }
    with pyfive.File(str(path)) as file, suppress(NotImplementedError, RuntimeError):
        for name, described in contents.get("datasets", {}).items():
            yield f"{name} shape", described["shape"], list(file[name].shape)
        for name, attributes in {"/": found, **contents.get("attributes", {})}.items():
            theirs = dict(file[name].attrs)
            yield from (
                (f"{name}@{key}", attribute, _plain(theirs[key], alone=True))
                for key, attribute in attributes.items()
                if key in theirs
            )
        yield from ((name, value, _plain(file[name][()], alone=True)) for name, value in shown.items())


def _plain(value: Any, alone: bool = False) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    while alone and isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bytes):
        value = value.rstrip(b"\0").decode("utf-8", "replace")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if alone and isinstance(value, str):
        return value.strip()
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _image(path: Path, found: Any) -> Pairs:
    image = found["image"]
    size = [image.get("width_px"), image.get("height_px")]
    if image["format"] == "TIFF":
        import tifffile

        with tifffile.TiffFile(path) as file:
            yield "frames", int(str(image.get("frames", 1)).split()[0]), len(file.pages)
            if "frames" not in image:
                tags = file.pages[0].tags  # type: ignore[union-attr]
                yield "size", size, [tags["ImageWidth"].value, tags["ImageLength"].value]
    elif image["format"] == "PNG":
        header = path.read_bytes()[16:24]
        yield "size", size, [int.from_bytes(header[:4]), int.from_bytes(header[4:])]
    elif "frames" not in image:
        import imagesize

        yield "size", size, list(imagesize.get(str(path)))


_JUDGES = {"JsonIngestor": _json, "DelimitedTextIngestor": _table, "H5Ingestor": _hdf5, "ImageIngestor": _image}

if __name__ == "__main__":
    figures = judge(Path(sys.argv[1]))
    for suffix, count in sorted(figures.files.items()):
        print(f"{suffix}: {count} files, {figures.judged[suffix]} judged, {figures.values[suffix]} values")
    totals = (figures.files.total(), figures.judged.total(), figures.values.total(), len(figures.wrong))
    print(*figures.wrong, "{} files, {} judged, {} values, {} wrong".format(*totals), sep="\n")
