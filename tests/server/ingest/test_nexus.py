"""What is read from NeXus and HDF5: scalars with units, signals, images, and nothing of other files they refer to."""

from __future__ import annotations

import io
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from crucible_lineage.server.ingest.formats.findings import read_time
from crucible_lineage.server.ingest.ingestors import ingest


@pytest.fixture
def nexus(tmp_path: Path) -> Path:
    """A scan over 50 points with the layout of the NeXus manual, and detector frames beside."""
    path = tmp_path / "scan.nxs"
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "scan"})
        entry["title"] = "LaB6, capillary"
        entry["start_time"] = "2024-03-01T09:30:00+01:00"
        instrument = entry.create_group("instrument")
        instrument.attrs["NX_class"] = "NXinstrument"
        instrument["name"] = "11-BM"
        instrument["wavelength"] = [0.4127]
        instrument["wavelength"].attrs["units"] = "angstrom"
        instrument["unfinished"] = np.bytes_(b"abc\xff\x01")
        scan = entry.create_group("scan")
        scan.attrs.update({"NX_class": "NXdata", "signal": "counts", "axes": ["two_theta"]})
        scan["two_theta"] = np.linspace(10, 20, 51)
        scan["counts"] = np.exp(-((np.linspace(10, 20, 50) - 15) ** 2))
        frames = entry.create_group("frames")
        frames.attrs.update({"NX_class": "NXdata", "signal": "data"})
        frames["data"] = np.zeros((3, 20, 30))
    return path


def test_nexus_tells_its_scalars_with_units_and_shows_its_default_plot(nexus: Path) -> None:
    name, found = ingest(nexus, nexus.name, None)
    assert name == "NexusIngestor"
    assert found.metadata["title"] == "LaB6, capillary"
    assert found.metadata["instrument"] == {"name": "11-BM", "wavelength": {"value": 0.4127, "unit": "angstrom"}}
    assert found.metadata["hdf5"]["datasets"]["entry/scan/counts"] == {"shape": [50], "dtype": "float64"}
    assert found.attributes["instrument_name"] == "11-BM"
    assert read_time("2024-03-01T09:30:00+01:00") == found.attributes["timestamp"]
    line = dark_pixels(found.thumbnail)
    assert {x for x, y in line if y < 40} <= set(range(85, 120)), "one peak in the middle"


def test_nexus_of_old_style_and_an_image(tmp_path: Path) -> None:
    path = tmp_path / "old.hdf"
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry1")
        entry.attrs["NX_class"] = "NXentry"
        data = entry.create_group("data")
        data.attrs["NX_class"] = "NXdata"
        data["image"] = np.tile(np.arange(40), (20, 1))
        data["image"].attrs["signal"] = 1
    found = ingest(path, path.name, None)[1]
    picture = Image.open(io.BytesIO(found.thumbnail or b"")).convert("L")
    assert picture.getpixel((5, 100)) < 30 < 220 < picture.getpixel((195, 100))


def test_plain_hdf5_tells_single_values(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with h5py.File(path, "w") as file:
        file["temperature"] = 300.0
        file["operator"] = "Ada"
        file["many"] = [1, 2]
    assert ingest(path, path.name, None)[1].metadata["hdf5"]["values"] == {"temperature": 300.0, "operator": "Ada"}


def test_files_of_the_server_that_an_hdf5_file_points_to_are_not_read(tmp_path: Path) -> None:
    other = tmp_path / "of_others.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = "unobtainium"
        file["spectrum"] = np.arange(50)
    raw = tmp_path / "raw.bin"
    raw.write_bytes(b"unobtainium!" * 10)
    path = tmp_path / "spy.nxs"
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["direct"] = h5py.ExternalLink(str(other), "/secret")
        entry["folder"] = h5py.ExternalLink(str(other), "/")
        entry["indirect"] = h5py.SoftLink("/entry/folder/secret")
        entry.create_dataset("stored", shape=(12,), dtype="S1", external=[(str(raw), 0, 12)])
        entry.create_dataset("byte", shape=(1,), dtype="S11", external=[(str(raw), 0, 11)])
        layout = h5py.VirtualLayout(shape=(50,), dtype="i8")
        layout[:] = h5py.VirtualSource(str(other), "spectrum", shape=(50,))
        data = entry.create_group("data")
        data.attrs.update({"NX_class": "NXdata", "signal": "counts"})
        data.create_virtual_dataset("counts", layout)
    for name in ("NexusIngestor", "H5Ingestor", "ScopeFoundryH5Ingestor"):
        found = ingest(path, path.name, name)[1]
        assert "unobtainium" not in json.dumps(found.metadata)
        assert found.thumbnail is None


@pytest.mark.parametrize("way", ["link", "stored", "virtual", None])
def test_signals_that_lie_in_other_files_are_not_read(tmp_path: Path, way: str | None) -> None:
    """A HyperSpy file, whose reader belongs to a library and follows all links."""
    raw, other = tmp_path / "raw.bin", tmp_path / "of_others.h5"
    raw.write_bytes(bytes(range(200)))
    with h5py.File(other, "w") as file:
        file["data"] = np.arange(200, dtype="u1")
    path = tmp_path / "spy.hspy"
    with h5py.File(path, "w") as file:
        file.attrs.update({"file_format": "HyperSpy", "file_format_version": "3.3"})
        signal = file.create_group("Experiments/x")
        signal.create_group("axis-0").attrs.update({"size": 200, "scale": 1.0, "offset": 0.0, "navigate": False})
        signal.create_group("metadata/Signal").attrs["signal_type"] = ""
        signal.create_group("original_metadata")
        layout = h5py.VirtualLayout(shape=(200,), dtype="u1")
        layout[:] = h5py.VirtualSource(str(other), "data", shape=(200,))
        if way == "link":
            signal["data"] = h5py.ExternalLink(str(other), "/data")
        elif way == "stored":
            signal.create_dataset("data", shape=(200,), dtype="u1", external=[(str(raw), 0, 200)])
        elif way == "virtual":
            signal.create_virtual_dataset("data", layout)
        else:
            signal["data"] = np.arange(200, dtype="u1")
    used, found = ingest(path, path.name, None)
    assert (used == "HyperSpyIngestor", found.thumbnail is not None) == (way is None, way is None)


def dark_pixels(png: bytes | None) -> set[tuple[int, int]]:
    """Return the pixels of a plot's line inside its frame."""
    image = Image.open(io.BytesIO(png or b"")).convert("RGB")
    return {(x, y) for x in range(15, 190) for y in range(11, 176) if image.getpixel((x, y))[0] < 120}
