"""What is read from each kind of file, and what is not: nothing is better than a wrong value."""

from __future__ import annotations

import io
import json
import math
import os
import struct
import zlib
from pathlib import Path

import h5py
import matplotlib
import numpy as np
import pandas
import pytest
from PIL import Image

from crucible_lineage.server.ingest import ingest
from crucible_lineage.server.readers import Found
from tests.golden.stored import run_examples


def test_the_examples_hold() -> None:
    run_examples(Path(__file__).with_name("readers.txt"))


def test_table_is_described_by_its_header_and_columns(spectrum: Path) -> None:
    name, found = ingest(spectrum, spectrum.name, None)
    assert name == "DelimitedTextIngestor"
    assert found.metadata == {
        "table": {
            "rows": 2,
            "delimiter": "comma",
            "columns": [{"name": "shift", "min": 620.9, "max": 1001.4}, {"name": "counts", "min": 120.0, "max": 980.0}],
        }
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prose.txt", b"It was a dark, and stormy night\nthe rain fell, in torrents\n"),
        ("uneven.csv", b"x,y\n1,2\n1,2,3\n"),
        ("binary.csv", b"\x00\x01\x02"),
        ("broken.json", b"{"),
        ("nan.json", b'{"a": NaN}'),
        ("broken.png", b"\x89PNG\r\n\x1a\n"),
        ("broken.h5", b"\x89HDF\r\n\x1a\n"),
    ],
)
def test_file_that_says_nothing_is_no_error(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    _, found = ingest(path, name, None)
    assert found.metadata == ({"a": None} if name == "nan.json" else {})


@pytest.mark.parametrize("name", ["huge.csv", "huge.h5", "huge.bin"])
def test_large_binary_file_is_not_read_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(64 << 30)  # a hole; reading it would take minutes
    assert ingest(path, name, None) == (None, Found({}))


def test_hdf5_attributes_become_metadata_and_arrays_are_described(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update({"temperature_K": 300, "operator": "Ada", "gain": math.nan, "axes": ["x", "y"]})
        file["entry/counts"] = np.zeros((4, 5), "i4")
        file["entry/counts"].attrs["unit"] = "1/s"
        file["laser"] = 633.0
    name, found = ingest(path, path.name, None)
    assert name == "H5Ingestor"
    assert found.metadata == {
        "temperature_K": 300,
        "operator": "Ada",
        "gain": None,
        "axes": ["x", "y"],
        "hdf5": {
            "attributes": {"entry/counts": {"unit": "1/s"}},
            "values": {"laser": 633.0},
            "datasets": {
                "entry/counts": {"shape": [4, 5], "dtype": "int32"},
                "laser": {"shape": [], "dtype": "float64"},
            },
        },
    }


def test_hdf5_attributes_that_are_not_values_are_ignored(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        axis, counts = file.create_dataset("axis", data=[1.0, 2.0]), file.create_dataset("counts", data=[3.0, 4.0])
        axis.make_scale("axis")
        counts.dims[0].attach_scale(axis)  # its attributes are references, as in netCDF and others
        file.attrs.update({"words": ["a", "b"], "ref": axis.ref, "empty": h5py.Empty("f"), "raw": np.void(b"ab")})
        file.attrs["torn"] = np.bytes_(b"\xff\xfe")
        file["points_to"] = axis.ref
    _, found = ingest(tmp_path / "a.h5", "a.h5", None)
    assert found.metadata["words"] == ["a", "b"]
    assert set(found.metadata) == {"words", "hdf5"}
    assert found.metadata["hdf5"]["attributes"] == {"axis": {"CLASS": "DIMENSION_SCALE", "NAME": "axis"}}
    assert "values" not in found.metadata["hdf5"]


def test_nexus_tells_its_scalars_with_units(tmp_path: Path) -> None:
    path = tmp_path / "scan.nxs"
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["title"] = "LaB6, capillary"
        entry["start_time"] = "2024-03-01T09:30:00+01:00"
        instrument = entry.create_group("instrument")
        instrument.attrs["NX_class"] = np.array(["NXinstrument"], dtype=h5py.string_dtype())
        instrument["name"] = "11-BM"
        instrument["wavelength"] = [0.4127]
        instrument["wavelength"].attrs["units"] = "angstrom"
        instrument["unfinished"] = np.bytes_(b"abc\xff\x01")
        entry["counts"] = np.zeros(50)
    name, found = ingest(path, path.name, None)
    assert name == "H5Ingestor"
    assert found.metadata["hdf5"]["values"] == {
        "entry/title": "LaB6, capillary",
        "entry/start_time": "2024-03-01T09:30:00+01:00",
        "entry/instrument/name": "11-BM",
        "entry/instrument/wavelength": {"value": 0.4127, "unit": "angstrom"},
    }
    assert found.metadata["hdf5"]["datasets"]["entry/counts"] == {"shape": [50], "dtype": "float64"}


def test_files_of_the_server_that_an_hdf5_file_points_to_are_not_read(tmp_path: Path) -> None:
    other = tmp_path / "of_others.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = "unobtainium"
        file["name"] = "unobtainium"
    raw = tmp_path / "raw.bin"
    raw.write_bytes(b"unobtainium!" * 10)
    path = tmp_path / "spy.nxs"
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["direct"] = h5py.ExternalLink(str(other), "/secret")
        entry["folder"] = h5py.ExternalLink(str(other), "/")
        entry["indirect"] = h5py.SoftLink("/entry/folder/secret")
        instrument = entry.create_group("instrument")
        instrument.attrs["NX_class"] = "NXinstrument"
        instrument["name"] = h5py.ExternalLink(str(other), "/name")
        entry.create_dataset("stored", shape=(1,), dtype="S11", external=[(str(raw), 0, 11)])
    used, found = ingest(path, path.name, None)
    assert used == "H5Ingestor"
    assert "unobtainium" not in json.dumps(found.metadata)


def test_tiff_of_detector_counts_is_stretched_to_a_visible_thumbnail(tmp_path: Path) -> None:
    path = tmp_path / "sem.tif"
    counts = np.linspace(400, 600, 300 * 100).reshape(100, 300).astype(np.uint16)
    Image.fromarray(counts).save(path)
    found = ingest(path, path.name, None)[1]
    described = {"width_px": 300, "height_px": 100, "mode": "I;16", "format": "TIFF"}
    assert found.metadata == {"image": described}
    image = shown(found)
    assert (image.format, image.size) == ("PNG", (200, 200))
    assert image.getpixel((100, 70))[0] < 20 < 235 < image.getpixel((100, 130))[0]


def test_jpeg_is_upright(tmp_path: Path) -> None:
    path = tmp_path / "bench.jpg"
    picture = Image.new("RGB", (80, 40), "black")
    picture.paste("white", (0, 0, 40, 40))  # the left half, which belongs on top
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    picture.save(path, exif=exif)
    found = ingest(path, path.name, None)[1]
    image = shown(found).convert("L")
    assert (image.getpixel((100, 70)) > 200, image.getpixel((100, 130)) < 50) == (True, True)


def test_what_is_not_modelled_in_full_is_counted_and_not_summarised(tmp_path: Path) -> None:
    series, scans = tmp_path / "series.tif", tmp_path / "scans.h5"
    frames = [Image.new("L", (10, 10), shade) for shade in range(12)]
    frames[0].save(series, save_all=True, append_images=frames[1:])
    with h5py.File(scans, "w") as file:
        file.attrs["operator"] = "Ada"
        for number in range(501):
            file[f"scan{number}"] = float(number)
    assert ingest(series, series.name, None)[1].metadata == {
        "image": {"format": "TIFF", "frames": "12 frames, not summarised"}
    }
    assert ingest(scans, scans.name, None)[1].metadata == {"operator": "Ada", "hdf5": "501 objects, not summarised"}


def test_tables_in_real_files_are_as_pandas_reads_them() -> None:
    """CRUCIBLE_REAL_FILES names a folder of many more, as the test data of other packages."""
    compared = 0
    for path in Path(os.environ.get("CRUCIBLE_REAL_FILES") or matplotlib.get_data_path()).rglob("*.csv"):
        if (table := ingest(path, path.name, None)[1].metadata.get("table")) is None:
            continue
        separator = {"comma": ",", "semicolon": ";", "tab": "\t"}[table["delimiter"]]
        frame = pandas.read_csv(path, sep=separator, comment="#", encoding_errors="replace")
        stated = [column["name"] for column in table["columns"]]
        assert (table["rows"], stated) == (len(frame), [name.strip() for name in frame.columns]), path.name
        for place, column in enumerate(table["columns"]):
            if "min" in column:
                numbers = pandas.to_numeric(frame.iloc[:, place]).dropna()
                assert [column["min"], column["max"]] == pytest.approx([numbers.min(), numbers.max()]), path.name
                compared += 1
    assert compared > 10


def test_picture_that_was_cut_off_or_is_huge_is_described_without_a_thumbnail(tmp_path: Path) -> None:
    cut = tmp_path / "cut.png"
    Image.effect_noise((300, 200), 50).save(cut)
    cut.write_bytes(cut.read_bytes()[:5000])
    huge = tmp_path / "huge.png"
    Image.new("1", (20, 20)).save(huge)
    raw = bytearray(huge.read_bytes())
    raw[16:24] = struct.pack(">II", 60_000, 50_000)
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    huge.write_bytes(raw)
    for path, width in ((cut, 300), (huge, 60_000)):
        _, found = ingest(path, path.name, None)
        assert (found.metadata["image"]["width_px"], found.thumbnail) == (width, None)


def shown(found: Found) -> Image.Image:
    return Image.open(io.BytesIO(found.thumbnail or b""))
