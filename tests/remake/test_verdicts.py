"""Results of which it is known by construction what becomes of them, made again where nothing else is left.

Each in an environment that is built for it, with the folder of its code gone: also those of the demo, of the example
pipelines, of a flow, and those that a person called.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.remake.compare import ALIKE, IDENTICAL, WITHIN
from crucible_lineage.remake.driver import FAILED, NOT_MADE, Options, _Remaking
from tests.nights import by_night

EXAMPLES = Path(__file__).parents[2] / "examples"
nightly = by_night("minutes")

# Step, verdict, and a part of what is said: of a file, of the whole, or as a cause.
EXPECTED = [
    ("smoothed", IDENTICAL, ""),
    ("unnamed", FAILED, "forgotten.dat, which it was not given"),
    ("vaulted", FAILED, "not kept of its source: vault.py: it holds a secret"),
    ("imported", FAILED, "offset.dat"),
    ("lots", IDENTICAL, ""),
    ("typed", IDENTICAL, ""),
    ("each[scan-b.csv]", IDENTICAL, ""),
    ("grouped[counter A]", IDENTICAL, ""),
    ("plotted", IDENTICAL, ""),
    ("counted", IDENTICAL, ""),
    ("stored", WITHIN, "the same numbers in other bytes"),
    ("wavering", WITHIN, "1 of 1 numbers differ"),
    ("dated", ALIKE, "the same pixels"),
    ("asked", FAILED, "over the network, and what that answered is not recorded"),
]


def all_said(found: dict[str, Any]) -> str:
    return "\n".join([found["said"], *(file["said"] for file in found["files"]), *found["causes"]])


def judge(expected: list[tuple[str, str, str]], ids: dict[str, str], found: dict[str, dict[str, Any]]) -> None:
    verdicts = {name: (found[ids[name]]["verdict"], part in all_said(found[ids[name]])) for name, _, part in expected}
    wrong = {name for name, verdict, _ in expected if verdicts[name] != (verdict, True)}
    assert not wrong, {name: (found[ids[name]]["verdict"], all_said(found[ids[name]])) for name in sorted(wrong)}


@nightly
@pytest.mark.timeout(1800)
def test_verdicts_are_right(judging: Any, tmp_path: Path) -> None:
    ids = judging.made(tmp_path / "laboratory", tmp_path / "data")
    judging.move_away(tmp_path / "laboratory")
    found = judging.remade(tmp_path / "data", [ids[name] for name, _, _ in EXPECTED])
    judge(EXPECTED, ids, found)
    raw = ("reproduce", ids["raw"], "--data", tmp_path / "data")
    refused = judging.crucible(*raw, cwd=tmp_path, codes=(2,))
    assert "it was not made by a step that is recorded" in refused["error"]["message"]


@nightly
@pytest.mark.timeout(1800)
def test_verdicts_of_demo_and_examples_are_right(judging: Any, tmp_path: Path) -> None:
    data, measured = tmp_path / "data", tmp_path / "measured"
    fetched = subprocess.run([sys.executable, EXAMPLES / "fetch_data.py", measured], capture_output=True, text=True)
    if fetched.returncode:
        pytest.skip(f"the data of the examples cannot be fetched: {fetched.stderr}")
    ran = judging.crucible("demo", "--engine", "local", "--data", data, cwd=tmp_path, **judging.VARIABLES)
    ids = {name: ran["datasets"][name] for name in ("axis", "calibrated", "bands")}
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("lab6", "ebsd", "raman-instruments"):
        run = ("run", tmp_path / "examples" / f"{name}.yaml", "--engine", "local", "--data", data)
        ran = judging.crucible(*run, cwd=tmp_path, **judging.VARIABLES, CRUCIBLE_LINEAGE_EXAMPLES=str(measured))
        assert ran["errors"] == {}
        for step, outputs in ran["datasets"].items():
            ids.setdefault(f"{name}: {step.partition('[')[0]}", outputs["out"])
    judging.move_away(tmp_path / "examples")
    judging.move_away(measured)
    judge([(name, IDENTICAL, "") for name in ids], ids, judging.remade(data, list(ids.values())))
    assert len(ids) == 13


@nightly
@pytest.mark.timeout(1800)
def test_verdicts_of_steps_that_are_called_are_right(judging: Any, tmp_path: Path, prefect: Any) -> None:
    data, laboratory = tmp_path / "data", tmp_path / "laboratory"
    shutil.copytree(judging.MATERIAL, laboratory, ignore=shutil.ignore_patterns("__pycache__"))
    printed = judging.output_of([sys.executable, "by_hand.py", data], cwd=laboratory, **judging.VARIABLES)
    ids = dict(line.rsplit(" ", 1) for line in printed.splitlines())
    variables = {**prefect.environment, **judging.VARIABLES, "CRUCIBLE_LINEAGE_DATA": str(data)}
    judging.output_of([sys.executable, "flow.py"], cwd=laboratory, **variables)
    listed = judging.crucible("list", "--project", "lab", "--data", data, cwd=tmp_path)["datasets"]
    ids |= {f"flow: {dataset['step']}": dataset["mfid"] for dataset in listed if dataset["pipeline"] == "process"}
    judging.move_away(laboratory)
    expected = [
        ("smoothed", IDENTICAL, ""),
        ("lots", IDENTICAL, ""),
        ("in a script", NOT_MADE, "cannot be imported; give it a name in a module"),
        ("flow: smoothed", IDENTICAL, ""),
        ("flow: times", NOT_MADE, "a task of a flow made it from values of Python"),
    ]
    judge(expected, ids, judging.remade(data, [ids[name] for name, _, _ in expected]))


def test_every_difference_of_the_environment_is_named() -> None:
    remaking = _Remaking.__new__(_Remaking)
    packages = {name: {"version": "1"} for name in ("numpy", "click", "gone", "lost", "same")}
    variables = {"LANG": "C", "TZ": "UTC", "OMP_NUM_THREADS": "1", "HOME": "/a"}
    machine = {"blas": ["openblas: 1"], "cpu": "old", "machine": "x86_64", "python": "3.11", "timezone": "UTC"}
    remaking.recorded = {"packages": packages, "variables": variables, **machine}
    remaking.entry = {"read": ["a.txt", "b", "c", "d"], "left_out": ["x.so"], "packages": ["numpy", "gone", "new"]}
    remaking.options = Options()
    now = {"numpy": "2", "click": "2", "gone": None, "lost": None, "same": "1", "new": "1", "crucible-lineage": "2"}
    here = {"packages": now, "variables": {"LANG": "C", "TZ": "CET", "MKL_CBWR": "x", "HOME": "/b"}}
    here |= {"blas": ["mkl: 1", "openblas: 2"], "cpu": "new", "machine": "x86_64", "python": "3.12", "timezone": "CET"}
    seen = {"hosts": ["a", "b"], "variables": ["LANG", "HOME", "GAIN"], "files": ["a.txt", "e.txt"]}
    answer = {"environment": here, "seen": seen, "lacking": "table.csv"}
    assert list(remaking._causes(answer)) == [
        "it read a.txt, b, c, which it was not given",
        "not kept of its source: x.so",
        "table.csv is not among what was kept of its source: name it in `reads`",
        "it asks a, b over the network, and what that answered is not recorded"
        "; it had no network here, --network gives it one",
        "it reads the variable GAIN, which was not recorded; here it is not set",
        "it reads e.txt here, which it was not given",
        "numpy is 2 here, 1 by the record",
        "click is 2 here, 1 by the record",
        "gone is not installed here, 1 by the record",
        "new is 1 here, was not installed by the record",
        "MKL_CBWR is x here, was not set by the record",
        "OMP_NUM_THREADS is not set here, 1 by the record",
        "TZ is CET here, UTC by the record",
        "linear algebra is by openblas: 2 here, by openblas: 1 by the record",
        "the processor is new here, old by the record",
        "Python is 3.12 here, 3.11 by the record",
    ]
