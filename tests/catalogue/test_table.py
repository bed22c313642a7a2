"""Tables have one row per current result; they are compared with pandas over the official client's list."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pandas as pd
import pytest
from crucible import CrucibleClient as OfficialClient

from crucible_lineage.ask.table import make_table
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.runs import run

PROVENANCE, PLACES = "crucible_lineage", "crucible_lineage_places"


@pytest.fixture
def listed(project: Any) -> pd.DataFrame:
    """Return the official client's list of the step `fitted`, flattened by pandas: the newest fit of each spectrum."""
    with Session(Settings(project.data)) as session:
        address, key = session.client.api_url, (project.data / "crucible" / "api_key").read_text().strip()
        client = OfficialClient(api_url=address, api_key=key)
        found = client.datasets.list(project_id="spectra", include_metadata=True, limit=1000)
    records = [one if isinstance(one, dict) else one.model_dump() for one in found]
    frame = pd.json_normalize(records, max_level=None)
    frame = frame[frame[f"scientific_metadata.{PROVENANCE}.step"] == "fit"]
    return frame.sort_values("creation_time").groupby("dataset_name").tail(1)


def test_rows_match_pandas_over_the_official_clients_list(project: Any, listed: pd.DataFrame) -> None:
    table = project.ask_json("table", "--step", "fitted")
    mine = pd.DataFrame(table["rows"]).set_index("mfid").sort_index()
    theirs = listed.set_index("unique_id").sort_index()
    assert len(mine) == 4
    assert table["not_listed"] == {"superseded": 4}
    assert list(mine.index) == list(theirs.index)
    record = f"scientific_metadata.{PROVENANCE}"
    assert list(mine["params.threshold"]) == list(theirs[f"{record}.recipe.params.threshold"])
    for name in ("peak_nm", "shape.width"):
        assert list(mine[f"results.{name}"]) == list(theirs[f"scientific_metadata.{name}"])


def test_columns_include_requested_fields_of_ancestors(project: Any) -> None:
    fields = ("axis.params.degree", "axis.results.rms_cm1", "spectrum.metadata.power_mW", "neon.name", "raw.name")
    words = [word for field in fields for word in ("--field", field)]
    table = project.ask_json("table", "--step", "fitted", *words)
    results = ("results.peak_nm", "results.shape.width", "results.shape.kind")
    assert tuple(table["columns"]) == ("mfid", "name", "instrument", "sample", "params.threshold", *results, *fields)
    rows = {row["results.peak_nm"]: row for row in table["rows"]}
    weak, strong = rows[1.5], rows[11.75]
    assert (weak["instrument"], weak["sample"], weak["spectrum.metadata.power_mW"]) == ("Horiba", None, 5)
    assert (strong["instrument"], strong["sample"]) == ("Renishaw", "polystyrene")
    assert (weak["axis.params.degree"], weak["axis.results.rms_cm1"], weak["neon.name"]) == (3, 0.5 / 3, "neon")
    assert sorted(strong["raw.name"]) == ["neon", "strong-2.txt"]  # all of several different values


def test_a_condition_selects_rows_by_any_column(project: Any) -> None:
    def peaks(condition: str) -> list[float]:
        return sorted(
            row["results.peak_nm"]
            for row in project.ask_json("table", "--step", "fitted", "--where", condition)["rows"]
        )

    assert peaks("results.peak_nm > 2 and spectrum.metadata.power_mW < 10") == [2.5]
    assert peaks("spectrum.instrument == 'Renishaw' and axis.params.degree == 3") == [10.25, 11.75]
    assert peaks("results.shape.kind == None") == [1.5, 2.5]
    assert peaks("sample == 'polystyrene'") == [10.25, 11.75]
    nothing = project.ask_json("table", "--step", "fitted", "--where", "results.peak_nm > 1e9")
    assert nothing["rows"] == []
    assert nothing["columns"] == project.ask_json("table", "--step", "fitted")["columns"], "as if some were there"
    refused = project.ask("table", "--step", "fitted", "--where", "results.peak_mn > 2", code=2).stderr
    assert "there is no column 'results.peak_mn'; did you mean 'results.peak_nm'?" in refused
    refused = project.ask("table", "--step", "fittd", code=2).stderr
    assert "none has the step 'fittd'; did you mean 'fitted'?" in refused


def test_groups_match_pandas(project: Any) -> None:
    rows = project.ask_json("table", "--step", "fitted", "--by", "instrument")["rows"]
    frame = pd.DataFrame(project.ask_json("table", "--step", "fitted")["rows"]).groupby("instrument")["results.peak_nm"]
    assert [row["instrument"] for row in rows] == ["Horiba", "Renishaw"]
    for row in rows:
        group = frame.get_group(row["instrument"])
        assert row["count"] == len(group)
        found = [row[f"results.peak_nm.{what}"] for what in ("mean", "std", "min", "max")]
        assert found == pytest.approx([group.mean(), group.std(), group.min(), group.max()])


def test_equal_numbers_of_two_spellings_are_one_group(lab: Any, session: Session) -> None:
    for number, name in enumerate(("a_2.txt", "b_2.0.txt", "c_3.txt")):
        lab.file(name, str(number))
    path = lab.declare(
        """
        pipeline: gains
        project: lab
        inputs:
          counts:
            {file: "?_*.txt", each: true, timestamp: "2024-05-01T12:00:00Z",
             metadata: {gain: "from name '_(.+)[.]txt'"}}
        steps: {scaled: {uses: LABMODULE:scale, inputs: {counts: counts}}}
        """
    )
    run(session, path)
    rows = make_table(session, "lab", "scaled", by=["raw.metadata.gain"]).named_rows
    assert [(row["raw.metadata.gain"], row["count"]) for row in rows] == [(2, 2), (3, 1)]


def test_superseded_results_are_included_on_request(project: Any) -> None:
    rows = project.ask_json("table", "--step", "fitted", "--all", "--field", "axis.params.degree")["rows"]
    assert sorted((row["state"], row["axis.params.degree"]) for row in rows) == [
        *[("current", 3)] * 4,
        *[("superseded", 2)] * 4,
    ]


def test_files_match_the_printed_table(project: Any, tmp_path: Any) -> None:
    rows = project.ask_json("table", "--step", "fitted")["rows"]
    message = project.ask("table", "--step", "fitted", "-o", tmp_path / "t.parquet").stdout
    assert f"{tmp_path / 't.parquet'}: 4 rows, 8 columns" in message
    project.ask("table", "--step", "fitted", "-o", tmp_path / "t.csv")
    parquet, read = pd.read_parquet(tmp_path / "t.parquet"), pd.read_csv(tmp_path / "t.csv")
    for name in ("mfid", "results.peak_nm", "results.shape.width", "params.threshold"):
        assert list(parquet[name]) == list(read[name]) == [row[name] for row in rows]
    printed = list(csv.DictReader(io.StringIO(project.ask("table", "--step", "fitted", "--csv").stdout)))
    assert [row["mfid"] for row in printed] == [row["mfid"] for row in rows]
    refused = project.ask("table", "--step", "fitted", "-o", tmp_path / "t.xls", code=2).stderr
    assert ".csv, .parquet, .json" in refused
    assert not list(tmp_path.glob(".*"))


def test_texts_do_not_become_formulas_in_a_spreadsheet() -> None:
    from crucible_lineage.lineage.labels import csv_text

    assert csv_text(["a"], [["=1+1"], ["-5"], [-5], [["=x"]]]).splitlines()[1:] == ["'=1+1", "'-5", "-5", '"[""=x""]"']
    for name in ("two\rlines", "two\r\nlines", "two\nlines"):
        assert csv_text(["a", "b"], [[name, 1]]) == f'a,b\n"{name}",1\n'
    assert json.loads(next(csv.reader([csv_text(["a"], [[{"b": [1]}]]).splitlines()[1]]))[0]) == {"b": [1]}
