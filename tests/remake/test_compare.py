"""Files that differ are compared by their numbers and pixels, and the first difference is named."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from crucible_lineage.remake.compare import (
    ALIKE,
    DIFFERS,
    IDENTICAL,
    WITHIN,
    Compared,
    Rules,
    compare_files,
    compare_values,
)

NUMBERS = [1.5, -2.25e-7, 3e12, 0.1]


def moved(values: list[float], at: int, by: float) -> list[float]:
    return [one * (1 + by) if number == at else one for number, one in enumerate(values)]


def ulp(values: list[float], at: int) -> list[float]:
    return [math.nextafter(one, math.inf) if number == at else one for number, one in enumerate(values)]


def as_json(path: Path, values: list[float]) -> None:
    path.write_text(json.dumps({"peaks": [{"centre": one, "name": "a band"} for one in values]}))


def as_table(path: Path, values: list[float]) -> None:
    path.write_text("x,y\n" + "\n".join(f"{number},{one!r}" for number, one in enumerate(values)))


def as_array(path: Path, values: list[float]) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.array(values).reshape(2, 2))


def as_hdf5(path: Path, values: list[float]) -> None:
    with h5py.File(path, "w") as file:
        file["scan/counts"] = np.array(values)
        file["scan/counts"].attrs["unit"] = "counts"
        file.attrs["created_at"] = str(values)


KINDS = [
    (as_json, "fit.json", "peaks[2].centre"),
    (as_table, "fit.csv", "line 4, number 2"),
    (as_array, "fit.npy", "[1, 0]"),
    (as_hdf5, "fit.h5", "scan/counts[2]"),
]


@pytest.mark.parametrize(("write", "name", "place"), KINDS, ids=[name for _, name, _ in KINDS])
def test_numbers_of_any_format_are_compared(tmp_path: Path, write: Any, name: str, place: str) -> None:
    def verdict(values: list[float], **rules: Any) -> Compared:
        write(tmp_path / "recorded", NUMBERS)
        write(tmp_path / "made", values)
        return compare_files(name, tmp_path / "recorded", tmp_path / "made", Rules(ignore=("created_at",), **rules))

    assert verdict(ulp(NUMBERS, 2)).verdict == WITHIN
    assert 0 < verdict(ulp(NUMBERS, 2)).largest < 1e-15
    other = verdict(moved(NUMBERS, 2, 1e-6))
    assert other.verdict == DIFFERS
    assert f"{place}: 3000000000000.0 is recorded, 30000029" in other.said
    assert verdict(moved(NUMBERS, 2, 1e-6), rtol=1e-5).verdict == WITHIN
    assert verdict(moved(NUMBERS, 2, 1e-6), files={"fit.*": "bytes"}).verdict == DIFFERS
    assert verdict([*NUMBERS[:2], math.nan, 0.1]).verdict == DIFFERS


def test_what_is_no_number_has_to_be_the_same(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for name, was, now, said in (
        ("a.csv", "x,y\n1,2\n", "x,z\n1,2\n", "line 1: 'x,y' is recorded, 'x,z' was made"),
        ("a.csv", "1\n2\n", "1\n2\n3\n", "2 lines are recorded, 3 were made"),
        ("a.json", '{"a": [1, 2]}', '{"a": [1]}', "a has 2 entries by the record, 1 were made"),
        ("a.json", '{"a": 1, "b": "x"}', '{"a": 1, "b": "y"}', "b: 'x' is recorded, 'y' was made"),
        ("a.json", '{"a": 1}', '{"a": 1, "c": 2}', "c is not recorded"),
        ("a.bin", b"\xff\x00\x01", b"\xff\x00\x02", "byte 2 is the first that differs"),
    ):
        old.write_bytes(was if isinstance(was, bytes) else was.encode())
        new.write_bytes(now if isinstance(now, bytes) else now.encode())
        found = compare_files(name, old, new, Rules())
        assert (found.verdict, said in found.said) == (DIFFERS, True), (name, found)
    assert compare_values("returned values", {"a": 1}, {"a": 1.0}, Rules()).verdict == IDENTICAL


def picture(path: Path, family: str, title: str = "Raman shift", level: int = 6) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3), dpi=80)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([0, 1, 2], [1, 3, 2])
    axes.set_title(title, family=family)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_family(family)
    figure.savefig(path, metadata={"Software": None}, pil_kwargs={"compress_level": level})


def test_a_picture_in_another_font_is_found_and_one_in_other_bytes_is_alike(tmp_path: Path) -> None:
    for name, family, level in (("old", "DejaVu Sans", 6), ("packed", "DejaVu Sans", 1), ("serif", "DejaVu Serif", 6)):
        picture(tmp_path / f"{name}.png", family, level=level)
    assert (tmp_path / "old.png").read_bytes() != (tmp_path / "packed.png").read_bytes()
    same = compare_files("a.png", tmp_path / "old.png", tmp_path / "packed.png", Rules())
    assert (same.verdict, same.said) == (ALIKE, "the same pixels in other bytes")
    other = compare_files("a.png", tmp_path / "old.png", tmp_path / "serif.png", Rules())
    assert other.verdict == DIFFERS
    assert "of its pixels differ visibly, in columns" in other.said
    broken = tmp_path / "broken.png"
    broken.write_bytes((tmp_path / "old.png").read_bytes()[:-400])
    assert compare_files("a.png", tmp_path / "old.png", broken, Rules()).verdict == DIFFERS


def test_pixels_are_those_that_a_library_reads(tmp_path: Path) -> None:
    from PIL import Image

    from crucible_lineage.remake.compare import _pixels

    picture(tmp_path / "a.png", "DejaVu Sans")
    with Image.open(tmp_path / "a.png") as image:
        assert _pixels((tmp_path / "a.png").read_bytes())[3] == image.tobytes()
    assert zlib.crc32(b"") == 0
