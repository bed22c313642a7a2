"""Flows as Prefect's documentation writes them, as they are and with the three lines changed.

They return what they returned, their lineage is the list of edges that stands at the end of each, nothing is found
wrong with it, and a second run with reuse makes nothing that comes from a dataset.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("corpus_run.py")
# Runs that are never reused: of the first task of each flow, since it comes from no dataset, and beside it, why.
NOT_REUSED = {
    "s10_figures": "a figure cannot be read again from its picture",
    "s13_class": "an object of the flow's own class has no stable spelling",
    "s16_allow_failure": "an exception has none either",
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, prefect_server: Any) -> dict[str, Any]:
    """What each flow returned, made and reused: plain, converted, and converted with reuse for the second time."""
    folder = tmp_path_factory.mktemp("corpus")

    def run(mode: str, data: str) -> dict[str, Any]:
        places = {"CRUCIBLE_LINEAGE_DATA": folder / data, "PREFECT_LOCAL_STORAGE_PATH": folder / data / "cached"}
        environment = {**prefect_server.environment, **{name: str(place) for name, place in places.items()}}
        ran = subprocess.run(
            [sys.executable, str(PROGRAM), mode, "x", str(folder / data / "files")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert ran.returncode == 0, ran.stderr[-4000:]
        assert "is not registered" not in ran.stderr
        assert "is not recorded" not in ran.stderr
        told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
        return told

    return {
        "plain": run("plain", "plain"),
        "converted": run("converted", "converted"),
        "first": run("reuse", "reused"),
        "again": run("reuse", "reused"),
    }


def test_there_are_many(ran: dict[str, Any]) -> None:
    assert len(ran["plain"]) >= 20


@pytest.mark.parametrize("mode", ["converted", "first", "again"])
def test_flows_return_what_they_returned(ran: dict[str, Any], mode: str) -> None:
    def returned(mode: str) -> dict[str, str]:
        return {name: one["returned"] for name, one in ran[mode].items()}

    assert returned(mode) == returned("plain")


@pytest.mark.parametrize("mode", ["converted", "again"])
def test_their_lineage_is_complete(ran: dict[str, Any], mode: str) -> None:
    assert {name: one["edges"] for name, one in ran[mode].items()} == {
        name: one["expected"] for name, one in ran[mode].items()
    }


@pytest.mark.parametrize("mode", ["converted", "again"])
def test_check_and_verify_find_nothing(ran: dict[str, Any], mode: str) -> None:
    assert {name: one["findings"] for name, one in ran[mode].items() if one["findings"]} == {}


def test_the_second_run_makes_nothing_that_comes_from_a_dataset(ran: dict[str, Any]) -> None:
    first, again = ran["first"], ran["again"]
    assert {name: one["datasets"] for name, one in again.items()} == {
        name: one["datasets"] for name, one in first.items()
    }
    made = {name: one["not reused"] for name, one in again.items() if name not in NOT_REUSED}
    roots = {
        name: one["datasets"] - len({edge.partition(" -> ")[2] for edge in one["edges"]})
        for name, one in again.items()
        if name not in NOT_REUSED
    }
    assert {name: count for name, count in made.items() if count > max(roots[name], 0) + 5} == {}
    assert all(one["reused"] for name, one in again.items() if name not in NOT_REUSED)
