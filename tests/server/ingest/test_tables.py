"""What is read from tables in texts: preambles, units, decimal commas, settings, times, instruments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.server.ingest.formats.findings import Found, acquired, read_time

Read = Callable[..., Found]


def columns(found: Found) -> list[dict[str, Any]]:
    shown = ("name", "unit")
    return [{key: column[key] for key in shown if key in column} for column in found.metadata["table"]["columns"]]


def test_preamble_of_a_spectrum_analyser_is_no_header(read: Read) -> None:
    found = read(
        "trace.csv",
        "!Keysight Technologies,N9020A,A.14\nMode,SA\nRBW,1000,Hz\nSweep Time: 0.02\nNote without value\nDATA\n"
        + "".join(f"{1e9 + n},{-90.5 - n}\n" for n in range(50)),
    )
    assert {name: found.metadata[name] for name in found.metadata if name != "table"} == {
        "Mode": "SA", "RBW": {"value": 1000, "unit": "Hz"}, "Sweep Time": 0.02,
    }  # fmt: skip
    assert (found.metadata["table"]["rows"], columns(found)) == (50, [{"name": "column_1"}, {"name": "column_2"}])


def test_channels_of_an_oscilloscope_are_columns_with_their_units(read: Read) -> None:
    found = read("scope.csv", "Model,DSOX3024T\nx-axis,1,2\nsecond,Volt,Volt\n-1E-3,0.5,0.1\n-2E-3,0.6,0.2\n")
    assert {name: found.metadata[name] for name in found.metadata if name != "table"} == {"Model": "DSOX3024T"}
    assert columns(found) == [
        {"name": "x-axis", "unit": "second"}, {"name": "1", "unit": "Volt"}, {"name": "2", "unit": "Volt"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "names", "facts"),
    [
        ("a.xy", "Sample: Si\n2theta counts\n10 5\n11 6\n", ["2theta", "counts"], {"Sample": "Si"}),
        ("a.xy", "maker: Acme\nmodel: Z\n10 5\n11 6\n", ["column_1", "column_2"], {"maker": "Acme", "model": "Z"}),
        ("a.dat", "a = b\n1 2 3\n4 5 6\n", ["column_1", "column_2", "column_3"], {"a": "b"}),
        ("a.csv", "Sample,Si\nx,y\n1,2\n2,3\n", ["x", "y"], {"Sample": "Si"}),
        ("a.csv", "Comment: foo, bar\n1,2\n2,3\n", ["column_1", "column_2"], {"Comment": "foo, bar"}),
        ("a.tsv", "U\tI\n5\t6\n\nT\tR\n1\t2\n2\t3\n", ["T", "R"], {}),  # a shorter table before
        ("a.csv", "a,b\n1,x\n\nx,y\n1,2\n2,3\n", ["x", "y"], {}),
        ("a.csv", "Date,Time\n2024-05-01,12:00:00\n\nx,y\n1,2\n2,3\n", ["x", "y"], {}),
        ("a.csv", "sep=;\nx;y\n1,5;2\n2,5;3\n", ["x", "y"], {}),
    ],
)
def test_rows_above_the_names_of_columns_are_neither_names_nor_units(
    read: Read, name: str, text: str, names: list[str], facts: dict[str, Any]
) -> None:
    found = read(name, text)
    assert columns(found) == [{"name": name} for name in names]
    assert {name: found.metadata[name] for name in found.metadata if name != "table"} == facts


def test_units_beside_other_words_are_units_if_they_could_not_be_names(read: Read) -> None:
    found = read("a.tsv", "E\tj\nV vs RHE\tmA/cm^2\n1\t2\n2\t3\n")
    assert columns(found) == [{"name": "E", "unit": "V vs RHE"}, {"name": "j", "unit": "mA/cm^2"}]
    assert columns(read("a.csv", "Sample,Si\nT,counts (raw)\n1,2\n2,3\n"))[0] == {"name": "T"}


def test_a_number_is_no_unit_and_a_long_code_keeps_its_digits(read: Read) -> None:
    found = read("settings.csv", "Range,1,2\nPower,5,mW\nCode,12345678901234567890\n")
    assert found.metadata == {"Power": {"value": 5, "unit": "mW"}, "Code": "12345678901234567890"}


def test_points_that_group_thousands_are_no_decimal_marks(read: Read) -> None:
    table = read("a.csv", "t;I\n1.234,5;7,1\n1.235,5;8,1\n").metadata["table"]
    assert [(column["name"], column["min"]) for column in table["columns"]] == [("t", 1234.5), ("I", 7.1)]


def test_an_ambiguous_number_is_ignored(read: Read) -> None:
    first, second = read("a.csv", "t;I\n1.500;7,1\n2.500;8,1\n").metadata["table"]["columns"]
    assert (first, second["min"]) == ({"name": "t"}, 7.1)


def test_comment_of_a_diffraction_pattern_is_no_column(read: Read) -> None:
    found = read("lab6.xye", "'Id: LaB6\n'Wavelength: 1.5406\n10.0 120 3.3\n10.1 130 3.4\n10.2 999 9.9\n")
    assert {name: found.metadata[name] for name in ("Id", "Wavelength")} == {"Id": "LaB6", "Wavelength": 1.5406}
    assert len(columns(found)) == 3
    assert found.thumbnail is not None


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("x;y\n1,5;2,25\n2,5;3,75\n", "semicolon"),
        ("x\ty\n1,5\t2,25\n2,5\t3,75\n", "tab"),
        ("1,5 2,25\n2,5 3,75\n", "whitespace"),
    ],
)
def test_decimal_commas_are_numbers(read: Read, text: str, delimiter: str) -> None:
    table = read("germany.txt", text).metadata["table"]
    assert (table["delimiter"], table["decimal"]) == (delimiter, "comma")
    assert [(column["min"], column["max"]) for column in table["columns"]] == [(1.5, 2.5), (2.25, 3.75)]


def test_commas_between_numbers_are_not_decimal(read: Read) -> None:
    table = read("a.csv", "1,2\n3,4\n5,6\n").metadata["table"]
    assert (table["delimiter"], "decimal" in table, len(table["columns"])) == ("comma", False, 2)


@pytest.mark.parametrize(
    "text",
    [
        "angle;intensity\n(deg);(counts)\n10;1\n11;2\n",
        "angle (deg);intensity [counts]\n10;1\n11;2\n",
        "# angle (deg)  intensity [counts]\n10 1\n11 2\n",
    ],
)
def test_units_stand_below_a_name_or_in_it(read: Read, text: str) -> None:
    assert [(column["name"].split()[0], column["unit"]) for column in columns(read("scan.txt", text))] == [
        ("angle", "deg"), ("intensity", "counts"),
    ]  # fmt: skip


def test_sections_and_units_of_settings_without_a_table(read: Read) -> None:
    found = read("Setting.txt", "[Microscope]\t\t\nModel\tSU-6600\t\nTilt angle\t70\t°\n\n[Empty]\n".encode("cp1252"))
    assert found.metadata == {"Microscope": {"Model": "SU-6600", "Tilt angle": {"value": 70, "unit": "°"}}}


def test_gaps_in_a_table_are_gaps(read: Read) -> None:
    table = read("stock.csv", "t,a,b\n1,2,\n2,,\n3,nan,5\n4,5,6\n").metadata["table"]
    assert (table["rows"], table["columns"][1]) == (4, {"name": "a", "min": 2.0, "max": 5.0})


@pytest.mark.parametrize(
    "text",
    [
        "Dear colleague,\nthe sample of 5 May, 2024, broke; we made 3 more, at 20 C.\nYours\n",
        "one\ntwo\nthree\n",
        "1\n2\n3\n",
        "<a href=1>\n",
    ],
)
def test_prose_is_no_table(read: Read, text: str) -> None:
    assert read("letter.txt", text, None).metadata == {}


def test_table_of_words_and_numbers_counts_only_if_it_is_the_whole_file(read: Read) -> None:
    assert read("samples.csv", "name,mass\na,1\nb,2\n").metadata["table"]["rows"] == 2
    assert read("log.txt", "Report of a run\nport 1;3\nbaud;9600\n").metadata == {"port 1": 3, "baud": 9600}


# --- time and instrument


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-03-01T09:30:00+01:00", "2024-03-01T08:30"),
        ("2024-03-01 09:30:00Z", "2024-03-01T09:30"),
        ("Mon Jun 04 14:15:57 2012", "2012-06-04T14:15"),
        ("04-SEP-2012 23:14", "2012-09-04T23:14"),
        ("2023:04:11 16:58:57", "2023-04-11T16:58"),
        ("04/05/2012 10:00", None),
        ("2024-03-01", None),
        ("yesterday", None),
        ("99", None),
    ],
)
def test_only_times_that_cannot_be_misread_are_read(
    text: str, moment: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC")
    if hasattr(time, "tzset"):
        time.tzset()
    found = read_time(text)
    assert (found is None) == (moment is None)
    if found is not None and moment is not None:
        from datetime import UTC, datetime

        assert datetime.fromisoformat(found).astimezone(UTC).isoformat().startswith(moment)


def test_facts_name_time_and_instrument_in_several_ways() -> None:
    assert acquired({"Header": {"Manufacturer": "Hitachi", "Model": "SU-6600"}}) == {
        "instrument_name": "Hitachi SU-6600"
    }
    assert acquired({"Instrument Name": "XRD 1", "Start time": "2024-03-01T09:30:00Z"}).keys() == {
        "timestamp",
        "instrument_name",
    }
    assert acquired({"model": "BTC162E", "date": "2024-03-01", "power": 5}) == {}


def test_time_and_instrument_of_a_file_are_used_if_nobody_has_set_them(api, client, dataset, tmp_path: Path) -> None:
    path = tmp_path / "scan.csv"
    path.write_text("# start time: 2012-06-04T14:15:57+00:00\n# instrument: Bench 7\nx,y\n1,2\n2,3\n")

    def ingested(mfid: str) -> tuple[str, str | None]:
        added = client.datasets.add_file(mfid, str(path))
        client.ingestions.wait(added["ingestion_request"]["id"], sleep_interval=0.05)
        record = client.datasets.get(mfid)
        return record["timestamp"][:16], record["instrument_name"]

    assert ingested(dataset()) == ("2012-06-04T14:15", "Bench 7")
    said = api.post("/datasets", json={"timestamp": "2020-01-01T00:00:00+00:00", "instrument_name": "mine"}).json()
    assert ingested(said["unique_id"]) == ("2020-01-01T00:00", "mine")
    later = dataset()
    api.patch(f"/datasets/{later}", json={"timestamp": "2021-01-01T00:00:00+00:00"}).raise_for_status()
    assert ingested(later)[0] == "2021-01-01T00:00"
