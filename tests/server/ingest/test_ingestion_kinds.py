"""Each kind of file, uploaded with the official client: the metadata of its dataset."""

from __future__ import annotations

import base64
import io
import math
import struct
import zlib

import h5py
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from crucible_lineage.server.ingest.ingestors import ingest


@pytest.fixture
def thumbnail(client):
    """Return the only thumbnail of a dataset, decoded."""

    def get(record):
        (found,) = client.datasets.get_thumbnails(record["unique_id"])
        return Image.open(io.BytesIO(base64.b64decode(found["thumbnail_b64str"])))

    return get


@pytest.fixture
def scopefoundry(tmp_path):
    """A file with ScopeFoundry's layout."""
    path = tmp_path / "240105_hyperspec.h5"
    with h5py.File(path, "w") as file:
        file.attrs["ScopeFoundry_type"] = "Measurement"
        file.attrs["time_id"] = 1704412800
        file.attrs["crucible_lineage"] = "forged"
        file.create_group("app/settings").attrs["save_dir"] = "data"
        laser = file.create_group("hardware/laser/settings")
        laser.attrs["power"] = np.float32(0.5)
        laser.create_group("units").attrs["power"] = "mW"
        scan = file.create_group("measurement/hyperspec_scan/settings")
        scan.attrs["n_frames"] = np.int64(3)
        file["measurement/hyperspec_scan/spec_map"] = np.zeros((2, 3, 4), np.uint16)
    return path


def test_hdf5_attributes_become_metadata_and_arrays_are_described(ingested, tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update({"temperature_K": 300, "operator": "Ada", "gain": math.nan, "axes": ["x", "y"]})
        file["entry/counts"] = np.zeros((4, 5), "i4")
        file["entry/counts"].attrs["unit"] = "1/s"
    record, request = ingested(path)
    assert request["ingestion_class"] == "H5Ingestor"
    assert record["scientific_metadata"] == {
        "temperature_K": 300,
        "operator": "Ada",
        "gain": None,
        "axes": ["x", "y"],
        "hdf5": {
            "attributes": {"entry/counts": {"unit": "1/s"}},
            "datasets": {"entry/counts": {"shape": [4, 5], "dtype": "int32"}},
        },
    }


def test_scopefoundry_file_tells_settings_and_names_the_measurement(ingested, scopefoundry):
    record, request = ingested(scopefoundry)
    assert (request["ingestion_class"], record["measurement"]) == ("ScopeFoundryH5Ingestor", "hyperspec_scan")
    assert record["scientific_metadata"] == {
        "ScopeFoundry_type": "Measurement",
        "time_id": 1704412800,
        "app": {"save_dir": "data"},
        "hardware": {"laser": {"power": 0.5, "units": {"power": "mW"}}},
        "measurement": {"hyperspec_scan": {"n_frames": 3}},
        "hdf5": {"datasets": {"measurement/hyperspec_scan/spec_map": {"shape": [2, 3, 4], "dtype": "uint16"}}},
    }


def test_scopefoundry_file_overwrites_nothing_that_the_user_gave(client, dataset, ingested, scopefoundry):
    mfid = dataset("mine", measurement="Raman map")
    client.datasets.update_scientific_metadata(
        mfid, {"hardware": {"laser": {"power": 7}}, "crucible_lineage": {"step": "raw"}}
    )
    record, _ = ingested(scopefoundry, mfid)
    assert (record["dataset_name"], record["measurement"]) == ("mine", "Raman map")
    assert record["scientific_metadata"]["hardware"]["laser"] == {"power": 7, "units": {"power": "mW"}}
    assert record["scientific_metadata"]["crucible_lineage"] == {"step": "raw"}


def test_named_ingestor_comes_before_a_more_specific_one(ingested, scopefoundry):
    record, request = ingested(scopefoundry, ingestor="H5Ingestor")
    assert (request["ingestion_class"], record["measurement"]) == ("H5Ingestor", None)


def test_named_ingestor_reads_a_file_of_any_suffix_and_a_misfit_leaves_it_to_the_others(ingested, tmp_path):
    log = tmp_path / "run.log"
    log.write_text("t\tT\n0\t300\n1\t301\n")
    assert ingested(log, ingestor="DelimitedTextIngestor")[1]["ingestion_class"] == "DelimitedTextIngestor"
    table = tmp_path / "run.csv"
    table.write_text("t,T\n0,300\n1,301\n")
    assert ingested(table, ingestor="H5Ingestor")[1]["ingestion_class"] == "DelimitedTextIngestor"
    assert ingested(table, ingestor="NoSuchIngestor")[1]["ingestion_class"] == "DelimitedTextIngestor"


def test_tiff_of_detector_counts_is_stretched_to_a_visible_thumbnail(ingested, thumbnail, tmp_path):
    path = tmp_path / "sem.tif"
    counts = np.linspace(400, 600, 300 * 100).reshape(100, 300).astype(np.uint16)
    Image.fromarray(counts).save(path, tiffinfo={270: "grain boundary", 271: "Zeiss"})
    record, request = ingested(path)
    described = record["scientific_metadata"]["image"]
    assert request["ingestion_class"] == "ImageIngestor"
    assert [described[name] for name in ("width_px", "height_px", "mode", "format", "frames")] == [
        300, 100, "I;16", "TIFF", 1,
    ]  # fmt: skip
    assert (described["tags"]["ImageDescription"], described["tags"]["Make"]) == ("grain boundary", "Zeiss")
    assert not any("Offsets" in name for name in described["tags"])
    image = thumbnail(record)
    assert (image.format, image.size) == ("PNG", (200, 200))
    assert image.getpixel((100, 70))[0] < 20 < 235 < image.getpixel((100, 130))[0]


def test_jpeg_tells_its_exif(ingested, thumbnail, tmp_path):
    path = tmp_path / "bench.jpg"
    exif = Image.Exif()
    exif[272] = "EOS R5"
    exif.get_ifd(0x8769)[33434] = 0.004
    Image.new("RGB", (640, 480), "navy").save(path, exif=exif)
    record, _ = ingested(path)
    described = record["scientific_metadata"]["image"]
    assert (described["format"], described["mode"], described["width_px"]) == ("JPEG", "RGB", 640)
    assert (described["tags"]["Model"], described["tags"]["ExposureTime"]) == ("EOS R5", pytest.approx(0.004))
    assert thumbnail(record).size == (200, 200)


def test_png_tells_its_text_and_shows_through_to_white(ingested, thumbnail, tmp_path):
    path = tmp_path / "figure.png"
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "Matplotlib")
    Image.new("RGBA", (20, 10), (0, 0, 0, 0)).save(path, pnginfo=text)
    record, _ = ingested(path)
    assert record["scientific_metadata"]["image"] == {
        "width_px": 20, "height_px": 10, "mode": "RGBA", "format": "PNG", "frames": 1,
        "tags": {"Software": "Matplotlib"},
    }  # fmt: skip
    assert thumbnail(record).getpixel((100, 100)) == (255, 255, 255)


def test_picture_that_was_cut_off_is_still_described(client, ingested, tmp_path):
    path = tmp_path / "cut.png"
    Image.effect_noise((300, 200), 50).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    record, request = ingested(path)
    assert (request["status"], record["scientific_metadata"]["image"]["height_px"]) == ("complete", 200)
    assert client.datasets.get_thumbnails(record["unique_id"]) == []


def test_huge_picture_is_described_without_being_decoded(tmp_path):
    path = tmp_path / "huge.png"
    Image.new("1", (20, 20)).save(path)
    raw = bytearray(path.read_bytes())
    raw[16:24] = struct.pack(">II", 60_000, 50_000)
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    path.write_bytes(raw)
    _, found = ingest(path, path.name, None)
    assert (found.metadata["image"]["width_px"], found.thumbnail) == (60_000, None)


def test_xy_file_is_described_and_plotted(ingested, thumbnail, tmp_path):
    path = tmp_path / "xrd.xy"
    path.write_text("\n".join(f"{angle / 10} {1000 * math.exp(-((angle - 300) ** 2) / 50)}" for angle in range(600)))
    record, _ = ingested(path)
    table = record["scientific_metadata"]["table"]
    assert (table["rows"], table["delimiter"]) == (600, "whitespace")
    assert table["columns"][0] == {"name": "column_1", "min": 0, "max": 59.9}
    assert table["columns"][1]["max"] == 1000
    image = thumbnail(record).convert("RGB")
    assert image.size == (200, 200)
    line = {(x, y) for x in range(15, 190) for y in range(11, 176) if image.getpixel((x, y))[0] < 120}
    assert any(y < 20 for _, y in line)
    assert {x for x, y in line if y < 100} <= set(range(92, 112))


def test_semicolon_table_with_words_in_it_has_ranges_for_numbers_only(ingested, tmp_path):
    path = tmp_path / "samples.csv"
    path.write_text("name;mass_mg;note\na;1.5;ok\nb;2.5;-\n")
    record, _ = ingested(path)
    assert record["scientific_metadata"]["table"] == {
        "rows": 2,
        "delimiter": "semicolon",
        "columns": [{"name": "name"}, {"name": "mass_mg", "min": 1.5, "max": 2.5}, {"name": "note"}],
    }


def test_json_document_becomes_metadata(ingested, tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"laser": {"power_mW": 5}, "crucible_lineage": {}}')
    record, request = ingested(path)
    assert (request["ingestion_class"], record["scientific_metadata"]) == ("JsonIngestor", {"laser": {"power_mW": 5}})


@pytest.mark.parametrize("name", ["huge.csv", "huge.json", "huge.h5", "huge.png", "huge.bin"])
def test_large_binary_file_is_not_read_whole(tmp_path, name):
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(64 << 30)  # a hole; reading it would take minutes
    assert ingest(path, name, None) == (None, ingest(path, "unsupported", None)[1])


def test_long_table_is_described_by_its_beginning(tmp_path, monkeypatch):
    monkeypatch.setattr("crucible_lineage.server.ingest.formats.text.MAX_TEXT_BYTES", 8192)
    path = tmp_path / "long.csv"
    path.write_text("a,b\n" + "1,2\n" * 4000)
    _, found = ingest(path, path.name, None)
    assert found.metadata["table"]["read_bytes"] == 8192
    assert found.metadata["table"]["rows"] == 2046
