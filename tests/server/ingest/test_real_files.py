"""Files of real instruments and programs, from packages that ship them, and what is read from each."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from PIL import Image

from crucible_lineage.server.ingest import ingest

PACKAGES = {
    "ramanchada2": "1.5.0",
    "kikuchipy": "0.13.1",
    "exspy": "0.3.2",
    "hyperspy": "2.5.0",
    "nexusformat": "2.1.0",
}
RAMAN = "ramanchada2/auxiliary/spectra"
CALIBRATION = f"{RAMAN}/datasets2"
EBSD = "kikuchipy/data"

TEXT, HDF5, HYPERSPY, IMAGE = "DelimitedTextIngestor", "H5Ingestor", "HyperSpyIngestor", "ImageIngestor"
# By file: the ingestor that reads it, and some findings by their path.
FILES: dict[str, tuple[str | None, dict[str, Any]]] = {
    f"ramanchada2:{CALIBRATION}/FNMT-B_BW785/NIST_785nm_100%_2500msx3_1.txt": (None, {}),
    f"ramanchada2:{CALIBRATION}/TOP_Ho633/Si_HLR633_Z010_100_40sx5.txt": (None, {}),
    f"ramanchada2:{RAMAN}/simulated/vasp/snCAL_vasp_raman_ALL.dat": (None, {}),
    f"kikuchipy:{EBSD}/nordif/Setting.txt": (None, {}),
    f"kikuchipy:{EBSD}/edax_h5ebsd/patterns.h5": (HDF5, {"hdf5/values/ Version": "OIM Analysis 7.2.1 x64 [01-23-15]"}),
    f"kikuchipy:{EBSD}/emsoft_ebsd/EBSD_TEST_Ni.h5": (
        HDF5, {"hdf5/values/CrystalData/SpaceGroupNumber": 225, "hdf5/values/CrystalData/Creator": "Lars Lervik"},
    ),
    f"kikuchipy:{EBSD}/emsoft_ebsd/simulated_ebsd.h5": (HDF5, {"hdf5/values/Manufacturer": "EMsoft"}),
    f"kikuchipy:{EBSD}/emsoft_ebsd_master_pattern/master_patterns.h5": (
        HDF5, {"hdf5/values/CrystalData/CreationTime": None, "hdf5/values/CrystalData/CrystalSystem": 2},
    ),
    f"kikuchipy:{EBSD}/kikuchipy_h5ebsd/patterns_nochunks.h5": (
        HDF5, {"hdf5/values/Scan 1/EBSD/Header/Phases/1/formula": "Ni"},
    ),
    f"kikuchipy:{EBSD}/nordif/Pattern.dat": (None, {}),
    f"kikuchipy:{EBSD}/edax_binary/edax_binary.up1": (None, {}),
    "exspy:exspy/data/EDS_SEM_TM002.hspy": (
        HYPERSPY,
        {"signals/0/axes/0/units": "keV", "signals/0/metadata/Acquisition_instrument/SEM/beam_energy": 10.0,
         "instrument_name": "Nvision40 Carl Zeiss"},
    ),
    "exspy:exspy/data/EDS_TEM_FePt_nanoparticles.hspy": (
        HYPERSPY, {"signals/0/shape": [992], "instrument_name": "TecnaiOsiris 200 kV D658 AnalyticalTwin"},
    ),
    "exspy:exspy/tests/components/coreloss_spectrum.msa": ("EMSAIngestor", {"signals/0/axes/0/offset": 360.0}),
    "exspy:exspy/tests/components/lowloss_spectrum.msa": (
        "EMSAIngestor", {"signals/0/metadata/Signal/signal_type": "EELS", "timestamp": "2012-09-04T23:14:00"},
    ),
    "hyperspy:hyperspy/tests/drawing/data/signal_markers_hs1_7_5.hspy": (HYPERSPY, {"signals/0/shape": [14, 14]}),
    "hyperspy:hyperspy/tests/signals/data/test_find_peaks1D_ohaver.hdf5": (
        HDF5, {"file_format": "HyperSpy", "hdf5/datasets/Experiments/__unnamed__/data/shape": [481]},
    ),
    "nexusformat:nexusformat/examples/chopper.nxs": (
        "NexusIngestor",
        {"title": "MgB2 PDOS 43.37g 8K 120meV E0@240Hz T0@120Hz", "sample/temperature/value": 8.0,
         "instrument/monochromator/energy/unit": "meV", "timestamp": "2001-02-07T14:54:21",
         "instrument_name": "LRMECS"},
    ),
    "nexusformat:nexusformat/definitions/applications/stress/Beam_profile_sketch3.jpg": (
        IMAGE, {"image/format": "JPEG"},
    ),
    "matplotlib:Stocks.csv": (TEXT, {"table/rows": 524, "table/columns/1/name": "IBM"}),
    "matplotlib:msft.csv": (TEXT, {"table/rows": 65, "table/columns/5/max": 109437800.0}),
    "matplotlib:data_x_x2_x3.csv": (None, {}),
    "matplotlib:grace_hopper.jpg": (IMAGE, {"image/height_px": 600}),
    "matplotlib:eeg.dat": (None, {}),
}  # fmt: skip


@pytest.fixture(scope="session")
def shipped(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Download the packages' wheels once and return their folder."""
    cache = pytestconfig.cache.mkdir("real-files") if hasattr(pytestconfig, "cache") else None
    folder = Path(cache) if cache else tmp_path_factory.mktemp("real-files")
    missing = [
        f"{name}=={version}" for name, version in PACKAGES.items() if not list(folder.glob(f"{name}-{version}-*"))
    ]
    if missing:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--dest", str(folder), *missing], check=True, timeout=240)
    return folder


def content(shipped: Path, package: str, name: str) -> bytes:
    if package == "matplotlib":
        return (Path(matplotlib.get_data_path()) / "sample_data" / name).read_bytes()
    (wheel,) = shipped.glob(f"{package}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.rpartition("/")[2])
def test_real_file_is_read_as_expected(shipped: Path, tmp_path: Path, utc: None, file: str) -> None:
    package, _, name = file.partition(":")
    path = tmp_path / "content"
    path.write_bytes(content(shipped, package, name))
    ingestor, expected = FILES[file]
    used, found = ingest(path, Path(name).name, None)
    assert (used, found.thumbnail is not None) == (ingestor, ingestor == IMAGE)
    values = {**found.metadata, **found.attributes}
    for way, value in expected.items():
        got = at(values, way)
        assert (got[:19] if way == "timestamp" else got) == value, way
    assert used is not None or found.metadata == {}
    assert "timestamp" in expected or "timestamp" not in found.attributes
    assert "\ufffd" not in json.dumps(found.metadata, ensure_ascii=False), "nothing that was not understood"
    if found.thumbnail:
        assert Image.open(io.BytesIO(found.thumbnail)).size == (200, 200)


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times without a zone are in this machine's zone, which is UTC in this test."""
    monkeypatch.setenv("TZ", "UTC")
    if hasattr(time, "tzset"):
        time.tzset()


def at(value: Any, way: str) -> Any:
    """Return the value at a path, whose steps may contain slashes."""
    if not way:
        return value
    if isinstance(value, list):
        step, _, rest = way.partition("/")
        return at(value[int(step)], rest)
    if not isinstance(value, dict):
        return None
    steps = [key for key in value if way == key or way.startswith(f"{key}/")]
    return at(value[max(steps, key=len)], way[len(max(steps, key=len)) + 1 :]) if steps else None
