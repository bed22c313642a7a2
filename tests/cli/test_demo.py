"""The demo: three measured files, three steps, one lineage; the same ids everywhere; nothing twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.page import page_data

# Recorded once on one machine and Python version; all others must agree.
IDS = {
    "neon": "0rztm2jg023c5fsje97hpsh2ar",
    "silicon": "0rztm2jg0201b8b6d0znq6915g",
    "polystyrene": "0rztm2jg021sb77z7kvdejhvp0",
}


def test_the_demo_prints_datasets_steps_and_pictures_as_json(demo_origin: tuple[Path, str]) -> None:
    printed = json.loads(demo_origin[1])
    assert set(printed["datasets"]) == {"neon", "silicon", "polystyrene", "axis", "calibrated", "bands"}
    assert printed["executed"] == ["axis", "calibrated", "bands"]
    assert {name: printed["datasets"][name] for name in IDS} == IDS
    assert Path(printed["lineage"]["svg"]).read_text().startswith("<svg")
    details: Any = page_data(Path(printed["lineage"]["html"]).read_text())["details"]
    assert [bool(dataset["thumbnail"]) for dataset in details] == [False, False, False, False, True, True]


def test_the_bands_are_where_they_should_be(demo_origin: tuple[Path, str]) -> None:
    table = json.loads(demo_origin[1])["bands"]
    errors = [abs(row["difference_cm1"]) for row in table]
    assert [row["reference_cm1"] for row in table] == [620.9, 795.8, 1001.4, 1031.8, 1155.3, 1450.5, 1583.1, 1602.3]
    assert sum(errors) / len(errors) < 0.8, "on the nominal axis it is 1.9"


def test_running_it_again_changes_nothing_and_says_so(demo_data: Path, demo_origin: Any, command: Any) -> None:
    again = command("demo", "--data", demo_data, "--engine", "local")
    assert again.returncode == 0, again.stderr
    assert "everything is up to date; nothing was run" in again.stdout
    assert all(mfid in again.stdout for mfid in json.loads(demo_origin[1])["datasets"].values())


def test_an_up_to_date_demo_on_prefect_does_not_import_prefect(demo_data: Path, command: Any) -> None:
    again = command("demo", "--data", demo_data, "--engine", "prefect", "--json", PYTHONPROFILEIMPORTTIME="1")
    assert json.loads(again.stdout)["executed"] == []
    assert " prefect\n" not in again.stderr


def test_it_can_use_another_project(tmp_path: Path, command: Any) -> None:
    ran = command("demo", "--data", tmp_path, "--engine", "local", "--project", "raman-lab", "--json")
    assert ran.returncode == 0, ran.stderr
    with Session(Settings(tmp_path)) as session:
        found = session.client.datasets.list(project_id="raman-lab")
        assert {dataset.unique_id for dataset in found} == set(json.loads(ran.stdout)["datasets"].values())
