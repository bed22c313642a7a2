"""What is read from NumPy files, workbooks, pictures and spectra of microscopes, and what is not."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from crucible_lineage.server.ingest.formats.findings import Found, read_time
from crucible_lineage.server.ingest.ingestors import ingest

Read = Callable[..., Found]


def test_numpy_files_tell_their_arrays_and_nothing_is_unpickled(read: Read, tmp_path: Path) -> None:
    def saved(save: Callable[..., None], *args: Any, **named: Any) -> bytes:
        stream = io.BytesIO()
        save(stream, *args, **named)
        return stream.getvalue()

    found = read("a.npy", saved(np.save, np.array([[1.0, np.nan], [3.0, 4.0], [5.0, 6.0]])), "NumpyIngestor")
    assert found.metadata["numpy"]["arrays"]["array"] == {"shape": [3, 2], "dtype": "float64", "min": 1.0, "max": 6.0}
    assert found.thumbnail is not None
    found = read("b.npz", saved(np.savez, spectrum=np.arange(5), laser_nm=633.0), "NumpyIngestor")
    assert found.metadata["numpy"] == {
        "arrays": {"spectrum": {"shape": [5], "dtype": "int64", "min": 0, "max": 4}}, "values": {"laser_nm": 633.0},
    }  # fmt: skip
    touched = tmp_path / "touched"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (touched,)

    read("c.npy", saved(np.save, np.array([Trap()]), allow_pickle=True), None)
    read("d.npy", pickle.dumps(Trap()), None)
    assert not touched.exists()


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


def test_workbook_tells_each_sheet(read: Read) -> None:
    rows = [["Operator", "Ada"], ["Temperature", 300, "K"], [], ["t (s)", "T (K)"], [0, 300], [1, 301.5], [2, 303]]
    found = read("run.xlsx", workbook({"Run 1": rows, "Notes": [["just words"]]}), "WorkbookIngestor")
    sheet = found.metadata["sheets"]["Run 1"]
    assert (sheet["Operator"], sheet["Temperature"]) == ("Ada", {"value": 300, "unit": "K"})
    assert [(one["name"], one["unit"]) for one in sheet["table"]["columns"]] == [
        ("t (s)", "s"),
        ("T (K)", "K"),
    ]
    assert sheet["table"]["columns"][1]["max"] == 303
    assert set(found.metadata["sheets"]) == {"Run 1"}
    assert found.thumbnail is not None
    read("broken.xlsx", b"PK\x03\x04 and no more", None)


def test_jpeg_is_upright_and_has_its_time(tmp_path: Path) -> None:
    path = tmp_path / "bench.jpg"
    picture = Image.new("RGB", (80, 40), "black")
    picture.paste("white", (0, 0, 40, 40))  # the left half, which belongs on top
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    exif[0x010F], exif[0x0110] = "Canon", "Canon EOS R5"
    exif.get_ifd(0x8769).update({0x9003: "2024:03:01 09:30:00", 0x9011: "+01:00"})
    picture.save(path, exif=exif)
    found = ingest(path, path.name, None)[1]
    shown = Image.open(io.BytesIO(found.thumbnail or b"")).convert("L")
    assert (shown.getpixel((100, 70)) > 200, shown.getpixel((100, 130)) < 50) == (True, True)
    assert found.attributes["instrument_name"] == "Canon EOS R5"
    assert read_time("2024-03-01T09:30:00+01:00") == found.attributes["timestamp"]


def test_picture_that_a_program_would_have_to_run_is_none(read: Read) -> None:
    eps = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"
    assert read("figure.png", eps, None).metadata == {}


def test_spectrum_of_a_microscope_tells_its_axis_and_metadata(read: Read) -> None:
    head = {
        "FORMAT": "EMSA/MAS Spectral Data File", "VERSION": "1.0", "TITLE": "zero loss", "DATE": "04-SEP-2012",
        "TIME": "23:14", "NPOINTS": "4.0", "NCOLUMNS": "1.0", "XUNITS": "eV", "YUNITS": "Counts", "DATATYPE": "Y",
        "XPERCHAN": "0.2", "OFFSET": "-0.4", "SPECTRUM": "",
    }  # fmt: skip
    lines = [
        *(f"#{name:12}: {value}" for name, value in head.items()),
        "1.0,",
        "9.0,",
        "3.0,",
        "1.0,",
        "#ENDOFDATA   :",
        "",
    ]
    spectrum = "\n".join(lines)
    found = read("eels.msa", spectrum, "EMSAIngestor")
    (signal,) = found.metadata["signals"]
    assert (signal["shape"], signal["metadata"]["General"]["title"]) == ([4], "zero loss")
    assert signal["axes"][0] | {"name": ""} == {"name": "", "units": "eV", "size": 4, "scale": 0.2, "offset": -0.4}
    assert found.attributes["timestamp"].startswith("2012-09-0")
    assert found.thumbnail is not None


def workbook(sheets: dict[str, list[list[Any]]]) -> bytes:
    """A workbook as spreadsheet programs write it."""
    main, office = "http://schemas.openxmlformats.org/spreadsheetml/2006/main", "http://schemas.openxmlformats.org"
    relation = f"{office}/officeDocument/2006/relationships"
    head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'

    def sheet(rows: list[list[Any]]) -> str:
        def cell(value: Any, address: str) -> str:
            if isinstance(value, str):
                return f'<c r="{address}" t="inlineStr"><is><t>{value}</t></is></c>'
            return f'<c r="{address}"><v>{value}</v></c>'

        lines = "".join(
            f'<row r="{n}">{"".join(cell(value, f"{chr(65 + m)}{n}") for m, value in enumerate(row))}</row>'
            for n, row in enumerate(rows, 1)
        )
        return f'{head}<worksheet xmlns="{main}"><sheetData>{lines}</sheetData></worksheet>'

    listed = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="rId{n}"/>' for n, name in enumerate(sheets, 1))
    parts = "".join(
        f'<Relationship Id="rId{n}" Type="{relation}/worksheet" Target="worksheets/sheet{n}.xml"/>'
        for n in range(1, len(sheets) + 1)
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(
            "[Content_Types].xml",
            f'{head}<Types xmlns="{office}/package/2006/content-types">'
            '<Default Extension="xml" ContentType="application/xml"/><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/></Types>',
        )
        archive.writestr(
            "_rels/.rels",
            f'{head}<Relationships xmlns="{office}/package/2006/relationships">'
            f'<Relationship Id="rId1" Type="{relation}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        archive.writestr(
            "xl/workbook.xml",
            f'{head}<workbook xmlns="{main}" xmlns:r="{relation}"><sheets>{listed}</sheets></workbook>',
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            f'{head}<Relationships xmlns="{office}/package/2006/relationships">{parts}</Relationships>',
        )
        for n, rows in enumerate(sheets.values(), 1):
            archive.writestr(f"xl/worksheets/sheet{n}.xml", sheet(rows))
    return stream.getvalue()
