"""Different files are compared by their numbers and pixels, and the first difference is named."""

from __future__ import annotations

import io
import json
import math
import zipfile
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
    Comparison,
    Rules,
    compare_files,
    compare_values,
)

NUMBERS = [1.5, -2.25e-7, 3e12, 0.1]


def moved(values: list[float], at: int, by: float) -> list[float]:
    return [value * (1 + by) if number == at else value for number, value in enumerate(values)]


def ulp(values: list[float], at: int) -> list[float]:
    return [math.nextafter(value, math.inf) if number == at else value for number, value in enumerate(values)]


def as_json(path: Path, values: list[float]) -> None:
    path.write_text(json.dumps({"peaks": [{"centre": value, "name": "a band"} for value in values]}))


def as_table(path: Path, values: list[float]) -> None:
    path.write_text("x,y\n" + "\n".join(f"{number},{value!r}" for number, value in enumerate(values)))


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


@pytest.mark.parametrize(("write", "name", "position"), KINDS, ids=[name for _, name, _ in KINDS])
def test_numbers_of_any_format_are_compared(tmp_path: Path, write: Any, name: str, position: str) -> None:
    def verdict(values: list[float], **rules: Any) -> Comparison:
        write(tmp_path / "recorded", NUMBERS)
        write(tmp_path / "made", values)
        return compare_files(name, tmp_path / "recorded", tmp_path / "made", Rules(ignore=("created_at",), **rules))

    assert verdict(ulp(NUMBERS, 2)).verdict == WITHIN
    assert 0 < verdict(ulp(NUMBERS, 2)).largest < 1e-15
    other = verdict(moved(NUMBERS, 2, 1e-6))
    assert other.verdict == DIFFERS
    assert f"{position}: 3000000000000.0 is recorded, 30000029" in other.said
    assert verdict(moved(NUMBERS, 2, 1e-6), rtol=1e-5).verdict == WITHIN
    assert verdict(moved(NUMBERS, 2, 1e-6), files={"fit.*": "bytes"}).verdict == DIFFERS
    assert verdict([*NUMBERS[:2], math.nan, 0.1]).verdict == DIFFERS


def test_what_is_no_number_has_to_be_the_same(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for name, was, now, message in (
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
        assert (found.verdict, message in found.said) == (DIFFERS, True), (name, found)
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


def compared(tmp_path: Path, name: str, was: bytes, now: bytes) -> Comparison:
    (tmp_path / "recorded").write_bytes(was)
    (tmp_path / "made").write_bytes(now)
    return compare_files(name, tmp_path / "recorded", tmp_path / "made", Rules(ignore=("created_at",)))


def arrays(**named: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **named)
    return content.getvalue()


def archive(level: int, **texts: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as packed:
        for name, text in texts.items():
            packed.writestr(name, text)
    return content.getvalue()


ROWS = "".join(f"{number},{number * 0.1!r}\n" for number in range(400))


@pytest.mark.parametrize(
    ("name", "was", "now", "verdict", "message"),
    [
        ("a.txt", b"9007199254740993", b"9007199254740992", WITHIN, "1 of 1 numbers differ, by 1.1e-16"),
        ("a.npz", arrays(n=np.array([2**53 + 1])), arrays(n=np.array([2**53])), WITHIN, "1 of 1 numbers differ"),
        (
            "a.npz",
            arrays(n=np.array([1.5])),
            arrays(n=np.array([1.5], "f4")),
            WITHIN,
            "n is float64 by the record, float32",
        ),
        (
            "a.npz",
            arrays(n=np.array([0.0])),
            arrays(n=np.array([-0.0])),
            WITHIN,
            "0.0 is recorded, -0.0 with the other sign",
        ),
        ("a.csv", b"x,y\n1,2\n3,4\n", b"x,y\n3,4\n1,2\n", DIFFERS, "the same 3 lines in another order, from line 2 on"),
        ("a.csv", b"x,y\n1,2\n", b"x,y\r\n1,2\r\n", WITHIN, "the same lines with other ends"),
        (
            "a.json",
            b'{"created_at": 1, "n": 2}',
            b'{"created_at": 3, "n": 2}',
            WITHIN,
            "created_at differs, which does not count",
        ),
        ("a.zip", archive(1, t=ROWS), archive(9, t=ROWS), WITHIN, "the same content, packed otherwise"),
        (
            "a.zip",
            archive(1, t=ROWS),
            archive(1, t=ROWS.replace("0.1\n", "0.2\n")),
            DIFFERS,
            "t in it: line 2, number 2",
        ),
        ("a.zip", archive(1, t=ROWS, u=""), archive(1, t=ROWS), DIFFERS, "u in it was not made"),
        ("a.h5", b"\x89HDF\r\n\x1a\n1", b"\x89HDF\r\n\x1a\n2", DIFFERS, "it cannot be read"),
    ],
)
def test_what_is_no_other_number_is_named(
    tmp_path: Path, name: str, was: bytes, now: bytes, verdict: str, message: str
) -> None:
    found = compared(tmp_path, name, was, now)
    assert (found.verdict, message in found.said) == (verdict, True), found


def test_groups_and_attributes_of_hdf5_are_compared(tmp_path: Path) -> None:
    for name, group, unit in (("one", "a", "m"), ("two", "b", "m"), ("three", "a", "mm")):
        with h5py.File(tmp_path / name, "w") as file:
            file.create_group(group)
            file.attrs["unit"] = unit
    notes = [compare_files("a.h5", tmp_path / "one", tmp_path / other, Rules()).said for other in ("two", "three")]
    assert notes == ["the group a is not made", "/@unit has other texts"]
