"""Flows whose results have slots: `placed_flow.py FLOW CALLS-AS-JSON RUNNER`; prints what each run returned."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import flow, task
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

from crucible_lineage.tasks import registering, step


@task
def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)


@task
def smooth(table: pd.DataFrame, width: int) -> pd.DataFrame:
    return table.rolling(width, min_periods=1).mean()


@task
def merge(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables)


@step
def scale(table: Path, *, factor: int = 2, out: Path) -> None:
    pd.read_csv(table).mul(factor).to_csv(out / "scaled.csv", index=False)


@step
def total(scaled: Path, *, out: Path) -> dict[str, Any]:
    (out / "total.txt").write_text("done")
    return {"total": int(pd.read_csv(scaled).sum().iloc[0])}


@flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
@registering("lab")
def process(path: str, widths: list[int], fails: bool = False) -> int:
    table = read(Path(path))
    smoothed = [smooth.submit(table, width) for width in widths]
    found = sum(len(prefect_future.result()) for prefect_future in smoothed)
    if fails:
        raise RuntimeError("no beam")
    return found


@flow
@registering("lab")
def collect(folder: str) -> int:
    return len(merge([read(path) for path in sorted(Path(folder).glob("*.csv"))]))


@flow
@registering("lab")
def steps(path: str, factor: int) -> str:
    return total(scale(Path(path), factor=factor)).mfid


def main() -> None:
    called = {"process": process, "collect": collect, "steps": steps}[sys.argv[1]]
    if sys.argv[3] == "processes":
        called = called.with_options(task_runner=ProcessPoolTaskRunner(max_workers=2))
    elif sys.argv[3] == "dask":
        from prefect_dask.task_runners import DaskTaskRunner

        workers = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
        called = called.with_options(task_runner=DaskTaskRunner(cluster_kwargs=workers))
    answers: list[Any] = []
    for arguments in json.loads(sys.argv[2]):
        try:
            answers.append(called(**arguments))
        except RuntimeError as error:
            answers.append(str(error))
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
