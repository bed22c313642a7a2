"""One flow on a task runner: `on_runners.py threads|processes|dask|ray DATA`; prints its results and registrations."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import flow, task
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
from pydantic import BaseModel

from crucible_lineage.tasks import CrucibleConnection, lineage, registering, session_for


class Fit(BaseModel):
    slope: float
    note: str


@task
def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)


@task
@lineage.options(measurement="counting")
def scale(table: pd.DataFrame, by: int) -> pd.DataFrame:
    return table * by


@task
def column(table: pd.DataFrame, name: str) -> np.ndarray:
    return table[name].to_numpy(copy=True)


@task
def fit(values: list[np.ndarray]) -> Fit:
    return Fit(slope=float(sum(value.mean() for value in values)), note="a straight line through the middle")


@task
def mean(fitted: Fit) -> float:
    return fitted.slope / 2


@task
def write(value: float, tables: list, out: Path) -> Path:
    target = out / "report.txt"
    target.write_text(f"{value} from {len(tables)} tables")
    return target


@task
def save(table: pd.DataFrame, folder: Path, name: str) -> None:
    table.to_csv(folder / name)
    while name == "first" and not (folder / "second").exists():
        time.sleep(0.02)
    time.sleep(2 if name == "second" else 0)  # meanwhile the file of the first is read, to store it


@flow
@registering("lab", crucible=CrucibleConnection(data=sys.argv[2]))
def process(path: Path, out: Path) -> Any:
    table = read.submit(path)
    scaled = scale.map([table, table, table], by=[1, 2, 3])
    columns = [column.submit(prefect_future, "x") for prefect_future in scaled]
    fitted = fit.submit(columns)
    half = mean.submit(fitted)
    written = write.submit(half, scaled, out).result()
    first = save.submit(table, out, "first")
    while not (out / "first").exists():
        time.sleep(0.02)
    save.submit(table, out, "second").wait()
    first.wait()
    return [half.result(), written.read_text()]


def runner(kind: str) -> Any:
    if kind == "dask":
        from prefect_dask.task_runners import DaskTaskRunner

        return DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None})
    if kind == "ray":
        from prefect_ray import RayTaskRunner

        return RayTaskRunner(init_kwargs={"num_cpus": 2, "include_dashboard": False, "log_to_driver": False})
    return (ThreadPoolTaskRunner if kind == "threads" else ProcessPoolTaskRunner)(max_workers=2)


def main() -> None:
    data = Path(sys.argv[2])
    (data / "out").mkdir(parents=True, exist_ok=True)
    source = data / "measured.csv"
    source.write_text("x,y\n" + "".join(f"{value},{value * 2}\n" for value in range(40)))
    returned = process.with_options(task_runner=runner(sys.argv[1]))(source, data / "out")
    session = session_for(CrucibleConnection(data=str(data)))
    found = session.client.datasets.list(project_id="lab", include_metadata=True, limit=None)
    names = {
        dataset.unique_id: (dataset.scientific_metadata or {}).get("flow", {}).get("task", dataset.dataset_name)
        for dataset in found
    }
    edges = sorted(
        f"{names[parent.unique_id]} -> {names[dataset.unique_id]}"
        for dataset in found
        for parent in session.client.datasets.list_parents(dataset.unique_id)
    )
    digests = sorted(
        f"{names[dataset.unique_id]} {file.sha256_hash}"
        for dataset in found
        for file in session.client.files.list(dataset.unique_id)
    )
    print(json.dumps({"returned": returned, "edges": edges, "digests": digests}))


if __name__ == "__main__":
    main()
