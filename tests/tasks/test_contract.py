"""Messages and artifacts of a registering flow, whether it ends well or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, prefect_program: Any) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("contract")
    ran = prefect_program.python(HERE / "contract_cases.py", folder / "data", folder)
    assert ran.returncode == 0, ran.stderr[-4000:]
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_results_are_named_by_the_arguments_that_were_given(reports: dict[str, Any]) -> None:
    assert reports["names"] == ["acquire [2.5]", "acquire [2.5] (total)", "acquire [5.0, dark]"]


def test_a_failed_run_has_its_artifact_with_all_results(reports: dict[str, Any]) -> None:
    assert reports["failed"] == ["Failed", [True, True, True, True]]


def test_a_strict_flow_fails_where_no_parent_is_known(reports: dict[str, Any]) -> None:
    assert reports["strict"] == ["LineageError", "no parent known for image of total", 1472.0]


def test_unknown_parents_are_in_the_metadata(reports: dict[str, Any]) -> None:
    assert reports["unknown"] == [["image"]]


def test_a_task_describes_its_result_and_names_what_it_used(reports: dict[str, Any]) -> None:
    assert reports["described"] == [2, "reduced 5f", "gold", "tiled://raw/5f", False]


def test_numbers_of_numpy_are_numbers(reports: dict[str, Any]) -> None:
    assert reports["numbers"] == [True, ["value.json"], 8.166667, 50, ["means [50] (summary)"]]


def test_outside_of_registering_nothing_is_said(reports: dict[str, Any]) -> None:
    number, refused = reports["outside"]
    assert number == 3
    assert refused.startswith("lineage.used is for the body of a task")
