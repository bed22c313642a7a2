"""Flows as Prefect's documentation writes them, as they are and with `registering`.

They return what stands at the end of each, which is what they return as they are; their lineage is the list of edges
that stands beside it, nothing is found wrong with it, and a second run with reuse makes nothing that comes from a
dataset. Half of them run by day; all by night, also as they are and converted without reuse (as tests/tasks/shapes).
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from tests.nights import NIGHTLY, by_night, share

PROGRAM = Path(__file__).with_name("corpus_run.py")
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
PLAIN, CONVERTED = (pytest.param(mode, marks=by_night("half a minute each")) for mode in ("plain", "converted"))
FLOWS = share(sorted(path.stem for path in PROGRAM.with_name("corpus").glob("s*.py")), 5)
# Runs that are never reused: of the first task of each flow, since it comes from no dataset, and beside it, why.
NOT_REUSED = {
    "s10_figures": "a figure cannot be read again from its picture",
    "s13_class": "an object of the flow's own class has no stable spelling",
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, prefect_program: Any) -> dict[str, Any]:
    """Return what each flow returned, made and reused, by mode; with reuse for the first and the second time."""
    folder = tmp_path_factory.mktemp("corpus")

    def run(mode: str, data: str) -> dict[str, Any]:
        folders = {"CRUCIBLE_LINEAGE_DATA": folder / data, "PREFECT_LOCAL_STORAGE_PATH": folder / data / "cached"}
        environment = {name: str(path) for name, path in folders.items()}
        ran = prefect_program.python(PROGRAM, mode, "x", folder / data / "files", *FLOWS, **environment)
        assert ran.returncode == 0, ran.stderr[-4000:]
        assert "is not registered" not in ran.stderr
        assert "is not recorded" not in ran.stderr
        report: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
        return report

    as_they_are = {mode: run(mode, mode) for mode in ("plain", "converted") if NIGHTLY}
    return {**as_they_are, "first": run("reuse", "reused"), "again": run("reuse", "reused")}


def test_all_of_them_ran(ran: dict[str, Any]) -> None:
    assert list(ran["first"]) == FLOWS


@pytest.mark.parametrize("mode", [PLAIN, CONVERTED, "first", "again"])
def test_flows_return_what_they_return_as_they_are(ran: dict[str, Any], mode: str) -> None:
    differing = {name: one["returned"] for name, one in ran[mode].items() if not _alike(one["returned"], one["plain"])}
    assert differing == {}


def _alike(text: str, expected: str) -> bool:
    """Whether two values are equal except for the last digits, which depend on the processor."""
    pairs = zip(NUMBER.findall(text), NUMBER.findall(expected), strict=False)
    near = all(math.isclose(float(one), float(other), rel_tol=1e-9, abs_tol=1e-12) for one, other in pairs)
    return near and NUMBER.sub("#", text) == NUMBER.sub("#", expected)


@pytest.mark.parametrize("mode", [CONVERTED, "first", "again"])
def test_their_lineage_is_complete(ran: dict[str, Any], mode: str) -> None:
    assert {name: one["edges"] for name, one in ran[mode].items()} == {
        name: one["expected"] for name, one in ran[mode].items()
    }


@pytest.mark.parametrize("mode", [CONVERTED, "again"])
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
