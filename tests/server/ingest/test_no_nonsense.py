"""Misreadings that ingestion avoids: axes as data, codes as numbers, lists as columns, sentences, lines as plots."""

from __future__ import annotations

from pathlib import Path

import pytest

from crucible_lineage.server.ingest.formats.findings import Found
from crucible_lineage.server.ingest.formats.text import read_table


@pytest.fixture
def read(tmp_path: Path):
    def reading(text: str) -> Found:
        path = tmp_path / "file.txt"
        path.write_text(text)
        found = read_table(path)
        assert found is not None
        return found

    return reading


def test_a_row_of_wavenumbers_above_spectra_is_their_axis(read) -> None:
    axis = [400.2 + 1.5 * number for number in range(12)]
    spectra = [[300 + (number * 7 + row * 13) % 34 for number in range(12)] for row in range(6)]
    rows = [["sample", *axis], *([f"s{row}", *values] for row, values in enumerate(spectra))]
    for separator in (",", "\t"):
        table = read("\n".join(separator.join(map(str, row)) for row in rows)).metadata["table"]
        assert table["rows"] == 6
        assert [column["name"] for column in table["columns"]][:2] == ["sample", "400.2"]
        assert max(column["max"] for column in table["columns"][1:]) <= 334


def test_numbers_that_rise_in_each_row_are_data(read) -> None:
    rows = [[row + number for number in range(10)] for row in range(5)]
    assert read("\n".join(",".join(f"{value}.5" for value in row) for row in rows)).metadata["table"]["rows"] == 5


@pytest.mark.parametrize("code", ["-9900", "-9999.0", "-999.25", "1e30", "99999"])
def test_a_code_for_a_missing_value_is_named_as_that(read, code: str) -> None:
    rows = [f"{number},{20 + number % 5 if number % 4 else code}" for number in range(20)]
    (_, column) = read("\n".join(["hour,temperature (C)", *rows])).metadata["table"]["columns"]
    assert (column["min"], column["max"]) == (20, 24)
    assert column["missing"] == {"value": float(code), "count": 5}


def test_a_large_or_negative_value_that_was_measured_is_no_code(read) -> None:
    for values in ([-999, -500, 0, 500, 999], [9998, 9999, 10000, 9997], [95, 99, 97, 20], [-99, -98, -97]):
        rows = [f"{number},{value}" for number, value in enumerate(values)]
        (_, column) = read("\n".join(["x,y", *rows])).metadata["table"]["columns"]
        assert "missing" not in column
        assert (column["min"], column["max"]) == (min(values), max(values))


def test_counts_that_are_set_in_many_columns_are_one_list(read) -> None:
    rows = [" ".join(str((row * 8 + number) * 37 % 101) for number in range(8)) for row in range(64)]
    found = read("\n".join(["# live time: 300", *rows]))
    assert found.metadata["counts"] == {"values": 512, "min": 0, "max": 100}
    assert "table" not in found.metadata
    assert found.thumbnail is None


def test_a_picture_is_of_what_was_measured_over_its_axis(read, monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[str] = []
    monkeypatch.setattr("crucible_lineage.server.ingest.formats.text.plot", lambda x, y, label: labels.append(label))
    rows = [f"{pixel},{400 + 0.7 * pixel - 0.00005 * pixel**2:.3f},{pixel * 7919 % 311}" for pixel in range(200)]
    read("\n".join(["Pixel,Wavelength (nm),Counts", *rows]))
    read("\n".join(["Pixel,Wavelength (nm)", *(row.rpartition(",")[0] for row in rows)]))
    noisy = [f"{volt / 100},{volt / 100 / 50 + (volt * 7919 % 11 - 5) * 1e-5}" for volt in range(100)]
    read("\n".join(["voltage (V),current (A)", *noisy]))
    assert labels == ["Counts over Wavelength (nm)", "current (A) over voltage (V)"]


def test_half_sentences_and_markup_are_left_out(read) -> None:
    header = """
# Instrument: Shutter 5
# Note: values below are those that the reader
# would have seen at the time of observation
# The magnitudes were taken from the catalogue
# of which two: the northern one, is used
<FIELD name="x" ucd="pos.eq.ra: main" datatype="float"/>
x,y
"""
    found = read(header.lstrip() + "\n".join(f"{number},{number * 7 % 5}" for number in range(9)))
    assert {name for name in found.metadata if name != "table"} == {"Instrument"}


def test_laboratory_formats_are_recognized_by_their_content(tmp_path: Path) -> None:
    from crucible_lineage.server.ingest.ingestors import ingest

    def read_as(name: str, content: bytes) -> Found:
        (tmp_path / name).write_bytes(content)
        ingestor, found = ingest(tmp_path / name, name, None)
        assert ingestor is not None
        return found

    cards = ["SIMPLE  =                    T", "BITPIX  =                   16", "NAXIS   =                    2",
             "NAXIS1  =                  100", "NAXIS2  =                   50", "EXPTIME =                120.0 / s",
             "DATE-OBS= '2011-09-01T02:09:05'", "INSTRUME= 'Apogee Alta'", "COMPLEX = (137, -1)", "END"]  # fmt: skip
    fits = read_as("a.fits", "".join(card.ljust(80) for card in cards).ljust(2880).encode())
    assert fits.metadata["fits"]["shape"] == [50, 100]
    assert fits.metadata["fits"]["header"]["EXPTIME"] == 120.0
    assert "COMPLEX" not in fits.metadata["fits"]["header"]
    assert fits.attributes == {"timestamp": "2011-09-01T02:09:05+00:00", "instrument_name": "Apogee Alta"}
    jcamp = "##TITLE=a\n##JCAMP-DX=4.24\n##XUNITS=1/CM\n##YUNITS=ABSORBANCE\n##FIRSTX=400\n##LASTX=403\n##XFACTOR=1\n"
    jcamp += "##YFACTOR=0.5\n##NPOINTS=4\n##XYDATA=(X++(Y..Y))\n400 1 2\n402 5 3\n##END=\n"
    assert read_as("a.jdx", jcamp.encode()).metadata["jcamp"]["max"] == 2.5
    assert "points" not in read_as("b.jdx", (jcamp + jcamp).encode()).metadata["jcamp"]
    assert "points" not in read_as("c.jdx", jcamp.replace("5 3", "E3%").encode()).metadata["jcamp"]
    ras = '*RAS_DATA_START\n*MEAS_COND_XG_VOLTAGE "40"\n*RAS_INT_START\n20.0 5.0 1.0\n20.1 9.0 2.0\n*RAS_INT_END\n'
    summary = read_as("a.ras", ras.encode()).metadata["ras"]
    assert (summary["meas_cond_xg_voltage"], summary["points"], summary["max"]) == (40, 2, 18.0)
    mca = "<<PMCA SPECTRUM>>\nLIVE_TIME - 30.5\nSERIAL_NUMBER - 0042\n<<DATA>>\n1\n5\n2\n<<END>>\n"
    summary = read_as("a.mca", mca.encode()).metadata["mca"]
    assert (summary["live_time"], summary["serial_number"], summary["channels"], summary["counts"]) == (
        30.5,
        "0042",
        3,
        8,
    )
    xrdml = '<xrdMeasurements><xrdMeasurement><usedWavelength><kAlpha1 unit="A">1.5406</kAlpha1></usedWavelength><scan>'
    xrdml += '<dataPoints><positions axis="2Theta"><startPosition>10</startPosition>'
    xrdml += "<endPosition>12</endPosition></positions>"
    xrdml += "<intensities>1 7 3</intensities></dataPoints></scan></xrdMeasurement></xrdMeasurements>"
    summary = read_as("a.xrdml", xrdml.encode()).metadata["xrdml"]
    assert (summary["kAlpha1"], summary["start_2theta_deg"], summary["points"], summary["max"]) == (
        1.5406,
        10.0,
        3,
        7.0,
    )
