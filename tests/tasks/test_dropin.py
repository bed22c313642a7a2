"""`task` and `registering`: on each task runner, in pools, in `with`, without a flow, and where something fails.

On Dask and Ray, which hand tasks to other processes as a process pool does, with CRUCIBLE_NIGHTLY=1.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.golden.stored import compare
from tests.nights import NIGHTLY
from tests.tasks.told import told

HERE = Path(__file__).parent
RUNNERS = ("threads", "processes", *(("dask", "ray") if NIGHTLY else ()))
CASES = (
    *("in_processes", "steps_in_threads", "unstorable", "half_stored", "same_bytes", "equal_parents", "in_with"),
    *("in_async_with", "returned_futures", "plain"),
)


def test_special_cases(data: Path, tmp_path: Path, prefect: Any) -> None:
    ran = _run(prefect, "special_cases.py", data, *CASES)
    returned = json.dumps(json.loads(ran.stdout.splitlines()[-1]))
    compare("tasks/special.txt", returned + told(data, tmp_path, ran.stderr))


def test_a_flow_goes_on_where_its_client_is_closed(data: Path, prefect: Any) -> None:
    ran = _run(prefect, "special_cases.py", data, "away")
    assert json.loads(ran.stdout.splitlines()[-1]) == {"away": 870}
    assert "the lineage cannot be shown" in ran.stderr


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
