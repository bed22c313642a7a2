"""SPC, tables of CDS, ASCII of Rigaku, JCAMP-DX with several blocks, and prose, from which nothing is read."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.server.ingest.ingestors import ingest

HEAD = "<BBBbiddiBBBBi9s9sh32s130s30siiBBhf48sfifB187s"


def spc(path: Path, *, flags: int, exponent: int, points: int, spectra: int, body: bytes, year: int = 2016) -> Path:
    date = year << 20 | 4 << 16 | 8 << 11 | 14 << 6 | 17
    labels = b"Raman Shift\0Rmn Intensity\0".ljust(30, b"\0")
    head = struct.pack(
        HEAD, flags, 0x4B, 0, exponent, points, 100.0, 104.0, spectra, 13, 4, 0, 0, date, b"4", b"DV420", 0,
        b"", b"a comment", labels, 0, 0, 0, 0, 0, 0.0, b"", 0.0, 0, 0.0, 0, b"",
    )  # fmt: skip
    path.write_bytes(head + body)
    return path


def sub(exponent: int = 0, points: int = 0) -> bytes:
    return struct.pack("<BbhfffiifI", 0, exponent, 0, 0.0, 0.0, 0.0, points, 0, 0.0, 0)


def read(path: Path) -> tuple[str | None, dict[str, Any], Any]:
    name, found = ingest(path, path.name, None)
    return name, found.metadata, found


def test_spc_of_floats_over_an_even_axis(tmp_path: Path) -> None:
    body = sub() + struct.pack("<5f", 1, 5, 3, 2, 4)
    path = spc(tmp_path / "a.spc", flags=0x20, exponent=-128, points=5, spectra=1, body=body)
    name, metadata, found = read(path)
    assert name == "SPCIngestor"
    summary = metadata["spc"]
    assert (summary["x"], summary["y"], summary["comment"], summary["source"]) == (
        "Raman Shift", "Rmn Intensity", "a comment", "DV420"
    )  # fmt: skip
    assert (summary["points"], summary["min_x"], summary["max_x"], summary["min"], summary["max"]) == (
        5,
        100,
        104,
        1,
        5,
    )
    assert found.attributes["timestamp"].startswith("2016-04-08T14:17")
    assert found.thumbnail


def test_spc_of_whole_numbers_with_an_exponent_and_of_several_spectra(tmp_path: Path) -> None:
    body = b"".join(sub(20) + struct.pack("<3i", *(n << 12 for n in values)) for values in ((1, 2, 3), (4, 5, 60)))
    _, metadata, found = read(spc(tmp_path / "b.spc", flags=0x04, exponent=0, points=3, spectra=2, body=body))
    assert metadata["spc"] | {"y": "counts", "x": "raman shift (cm-1)"} == metadata["spc"]
    assert (metadata["spc"]["spectra"], metadata["spc"]["min"], metadata["spc"]["max"]) == (2, 1.0, 60.0)
    assert found.thumbnail is None
    own_x = sub(-128, 2) + struct.pack("<4f", 20.5, 30.5, 7, 8) + sub(-128, 1) + struct.pack("<2f", 40.5, 9)
    _, metadata, _ = read(spc(tmp_path / "d.spc", flags=0xC4, exponent=-128, points=0, spectra=2, body=own_x))
    assert (metadata["spc"]["min_x"], metadata["spc"]["max_x"], metadata["spc"]["points"]) == (20.5, 40.5, 3)


@pytest.mark.parametrize("year", [116, 0])
def test_a_year_that_nobody_measured_in_is_no_time(tmp_path: Path, year: int) -> None:
    body = sub() + struct.pack("<2f", 1, 2)
    path = spc(tmp_path / "a.spc", flags=0, exponent=-128, points=2, spectra=1, body=body, year=year)
    assert read(path)[2].attributes == {}


def test_what_only_ends_in_spc_is_not_read(tmp_path: Path) -> None:
    short = spc(tmp_path / "short.spc", flags=0, exponent=-128, points=1000, spectra=1, body=sub())
    assert read(short)[:2] == (None, {})
    other = tmp_path / "gamma.spc"
    other.write_bytes(bytes(range(256)) * 8)
    assert read(other)[:2] == (None, {})


CDS = """Title: Observations of a Cluster: A Study of
    Its Members
Authors: Someone A.,
         Else B.
Table: Members
================================================================================
Byte-by-byte Description of file: table.dat
--------------------------------------------------------------------------------
   Bytes Format Units  Label  Explanations
--------------------------------------------------------------------------------
   1-  3 I3     ---    Index  Running number
   5- 10 F6.2   mag    Jmag   ?=-99.00 Brightness (1)
      12 A1     ---    Class  Kind of
                                the object
--------------------------------------------------------------------------------
Note (1): Defined as the slope of the fit to the
    points: those that are good.
--------------------------------------------------------------------------------
  1  12.50 A
  2 -99.00 B
 13   9.25 A
"""


def test_a_table_of_cds_has_its_columns_and_no_half_sentences(tmp_path: Path) -> None:
    path = tmp_path / "table.dat"
    path.write_text(CDS)
    name, metadata, _ = read(path)
    assert name == "CDSIngestor"
    assert metadata == {
        "cds": {
            "title": "Observations of a Cluster: A Study of Its Members",
            "authors": "Someone A., Else B.",
            "table": "Members",
            "rows": 3,
            "columns": [
                {"name": "Index", "min": 1.0, "max": 13.0},
                {"name": "Jmag", "unit": "mag", "min": 9.25, "max": 12.5},
                {"name": "Class"},
            ],
        }
    }


def test_counts_that_rigaku_sets_in_columns_are_one_curve(tmp_path: Path) -> None:
    path = tmp_path / "scan.asc"
    path.write_text(
        "*TYPE\t\t=  Raw\n*CLASS\t\t=  ASCII CLASS\n*SAMPLE\t\t=  Si\n*WAVE_LENGTH1\t=  1.54059\n*SLIT\t= 0, wide\n"
        "*BEGIN\n*START\t\t=  4\n*STOP\t\t=  4.06\n*STEP\t\t=  0.01\n*COUNT\t\t=  7\n"
        "297, 287, 306, 302\n 290, 717569, 288\n*END\n*EOF\n"
    )
    name, metadata, found = read(path)
    assert name == "RigakuASCIIIngestor"
    summary = metadata["rigaku"]
    assert (summary["sample"], summary["wave_length1"], summary["points"], summary["min"], summary["max"]) == (
        "Si", 1.54059, 7, 287.0, 717569.0
    )  # fmt: skip
    assert "slit" not in summary
    assert found.thumbnail


def test_blocks_of_jcamp_do_not_represent_the_file(tmp_path: Path) -> None:
    path = tmp_path / "linked.jdx"
    head = "##TITLE=inner\n##DATE=2007/08/30\n##SPECTROMETER/DATA SYSTEM=??\n##MAXX=5\n"
    block = f"{head}##XYDATA=(X++(Y..Y))\n1 2 3\n##END=\n"
    path.write_text(f"##TITLE=Ethanol\n##JCAMP-DX=5.0\n##DATA TYPE=LINK\n##BLOCKS=2\n{block}{block}##END=\n")
    _, metadata, found = read(path)
    assert metadata == {"jcamp": {"title": "Ethanol", "datatype": "LINK", "blocks": 2, "spectra": 2}}
    assert found.attributes == {}


def test_of_prose_nothing_is_read(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    sentences = "The tables are described below, and each of them\nhas a part in the whole document that follows.\n"
    path.write_text(sentences * 20 + "Set the TABLE: which values apply to all\nPARAM: :\n")
    assert read(path)[:2] == (None, {})
    path.write_text("power: 5 mW\nsample: gold\nthis line says nothing\ntime: 3 s\n")
    assert read(path)[1]["sample"] == "gold"


@pytest.mark.parametrize(("name", "line"), [("a.jdx", "##SERIAL NUMBER={}"), ("a.mca", "SERIAL_NUMBER - {}")])
@pytest.mark.parametrize("serial", ["1234567890123456789", "0042", "1e999"])
def test_a_long_number_stays_as_it_is_written(tmp_path: Path, name: str, line: str, serial: str) -> None:
    first, last = ("##TITLE=x", "##END=") if name.endswith("jdx") else ("<<PMCA SPECTRUM>>", "<<END>>")
    (tmp_path / name).write_text("\n".join([first, line.format(serial), last]))
    _, metadata, _ = read(tmp_path / name)
    assert serial in next(iter(metadata.values())).values()


SCAN = "<xrdMeasurements><tension>40</tension><author>Grün</author></xrdMeasurements>"
TEXTS = [
    ("a.xrdml", SCAN, "XRDMLIngestor"),
    ("a.jdx", "##TITLE=x\n##OWNER=Grün\n##END=\n", "JCAMPIngestor"),
    ("a.json", '{"operator": "Grün"}', "JsonIngestor"),
    ("a.csv", "Operator: Grün\nx,y\n1,2\n3,4\n5,6\n", "DelimitedTextIngestor"),
]


@pytest.mark.parametrize(("name", "text", "ingestor"), TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_text_is_read_in_the_encodings_of_windows(
    tmp_path: Path, name: str, text: str, ingestor: str, encoding: str
) -> None:
    (tmp_path / name).write_text(text, encoding=encoding)
    found, metadata, _ = read(tmp_path / name)
    assert found == ingestor
    assert name == "a.xrdml" or "Grün" in str(metadata)
