"""Messages and artifacts of a registering flow, whether it ends well or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, prefect: Any) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("contract")
    ran = prefect.python(HERE / "contract_cases.py", folder / "data", folder)
    assert ran.returncode == 0, ran.stderr[-4000:]
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("case", "left"),
    [
        pytest.param(
            "names", ["acquire [2.5]", "acquire [2.5] (total)", "acquire [5.0, dark]"], id="names by arguments"
        ),
        pytest.param("failed", ["Failed", [True] * 4], id="a failed run has its artifact with all results"),
        pytest.param(
            "strict", ["LineageError", "no parent known for image of total", 1472.0], id="a strict flow fails"
        ),
        pytest.param("unknown", [["image"]], id="unknown parents are in the metadata"),
        pytest.param("described", [2, "reduced 5f", "gold", "tiled://raw/5f", False], id="a result that is described"),
        pytest.param("numbers", [True, ["value.json"], 8.166667, 50, ["means [50] (summary)"]], id="numbers of numpy"),
    ],
)
def test_a_registering_flow_leaves_behind(reports: dict[str, Any], case: str, left: Any) -> None:
    assert reports[case] == left


def test_outside_of_registering_nothing_is_said(reports: dict[str, Any]) -> None:
    number, refused = reports["outside"]
    assert number == 3
    assert refused.startswith("lineage.used is for the body of a task")
