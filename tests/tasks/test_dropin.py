"""`task` and `registering`: on each task runner, in pools, in `with`, without a flow, and where something fails.

On Dask and Ray, which hand tasks to other processes as a process pool does, with CRUCIBLE_NIGHTLY=1.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.nights import NIGHTLY

HERE = Path(__file__).parent
RUNNERS = ("threads", "processes", *(("dask", "ray") if NIGHTLY else ()))
CASES = {
    "in_processes": ([870], [" -> make", "make -> double"]),
    "steps_in_threads": (["source.csv (doubled)"], [" -> source.csv", "source.csv -> source.csv (doubled)"]),
    "unstorable": (1, [" -> make", "guard -> use", "make -> guard"]),
    "half_stored": (
        [[1, 465, 495, 525, 555], [2, 465, 495, 525, 555]],
        [
            " -> make",
            "by_place -> total",
            "fit -> total",
            "make -> by_place",
            "make -> fit",
            "make -> split",
            "make -> train",
            "make -> train",
            "split -> total",
            "split -> total",
            "train -> rate_of",
            "train -> rate_of",
        ],
    ),
    "same_bytes": (
        [[6, 6], [6, 6]],
        [" -> dark", " -> dark", " -> flat", "dark + flat -> both", "dark + flat -> both"],
    ),
    "equal_parents": ([870, 870], [" -> make", "clean + clean -> total", "make -> clean", "make -> clean"]),
    "in_with": (
        [380, 1],
        [" -> table (from the flow's code of partly)", "table (from the flow's code of partly) -> double"],
    ),
    "in_async_with": (570, [" -> make", "make -> triple"]),
    "returned_futures": (["Failed", "Completed", 0], [" -> slow"] * 3),
    "plain": ([20, 20, True], {}),
    "away": (870, None),
}
WARNED = (
    "the result of guard is a _thread.lock, which is described and not stored",
    "the result of split is or holds a _thread.lock, which is described and not stored",
    "the result of by_place is a dict with keys that are neither text nor numbers",
    "Model, which is described and not stored",
    "the lineage cannot be shown",  # where Crucible goes away
)


def test_special_cases(data: Path, prefect: Any) -> None:
    ran = _run(prefect, "special_cases.py", data, *CASES)
    report = json.loads(ran.stdout.splitlines()[-1])
    assert {name: tuple(one) for name, one in report.items()} == CASES
    lines = [line for line in ran.stderr.splitlines() if "WARNING" in line]
    warnings = [line for line in lines if "EventsWorker - Still processing items" not in line]  # a busy machine's
    assert [line for line in warnings if not any(words in line for words in WARNED)] == []
    assert [words for words in WARNED if not any(words in line for line in warnings)] == []


def test_one_flow_has_one_lineage_on_all_runners(data: Path, tmp_path: Path, prefect: Any) -> None:
    report = {}
    for runner in RUNNERS:
        ran = _run(prefect, "on_runners.py", runner, tmp_path / runner)
        report[runner] = json.loads(ran.stdout.splitlines()[-1])
        assert "is not re" not in ran.stderr
    assert report["threads"]["returned"] == [58.5, "58.5 from 3 tables"]
    assert report["threads"]["edges"] == [
        *["column -> fit"] * 3,
        "fit -> mean",
        "mean -> write",
        "measured.csv -> read",
        *["read -> save"] * 2,
        *["read -> scale"] * 3,
        *["scale -> column"] * 3,
        *["scale -> write"] * 3,
    ]
    assert all(one == report["threads"] for one in report.values())


def _run(prefect: Any, program: str, *arguments: object) -> Any:
    ran = prefect.python(HERE / program, *arguments)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return ran
