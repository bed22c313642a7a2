"""Flows with special cases: `special_cases.py DATA CASE...`; prints JSON by case."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import flow, task

from crucible_lineage.tasks import CrucibleConnection, registering, session_for, step

DATA = Path(sys.argv[1])
PROJECT = ""  # of the case that runs
HERE = CrucibleConnection(data=str(DATA))


@task
def make(size: int) -> pd.DataFrame:
    return pd.DataFrame({"x": range(size)})


@task
def double(table: pd.DataFrame) -> pd.DataFrame:
    return table * 2


@task
def guard(table: pd.DataFrame) -> Any:
    return threading.Lock()


@task
def use(lock: Any) -> int:
    return int(lock.acquire())


@task
def failing(table: pd.DataFrame) -> int:
    raise ValueError("no beam")


@step(data_type="doubled")
def doubled(table: Path, *, out: Path) -> None:
    pd.read_csv(table).mul(2).to_csv(out / "doubled.csv", index=False)


def double_sum(table: pd.DataFrame) -> int:
    return int(double(table).sum().x)


def in_processes() -> Any:
    @flow
    @registering(PROJECT, crucible=HERE)
    def processes() -> Any:
        table = make(30)
        with ProcessPoolExecutor(2, get_context("fork")) as pool:  # Python 3.14 starts others afresh
            return list(pool.map(double_sum, [table]))

    return processes()


def steps_in_threads() -> Any:
    source = DATA / "source.csv"
    source.write_text("x\n1\n2\n")

    @flow
    @registering(PROJECT, crucible=HERE)
    def threads() -> Any:
        with ThreadPoolExecutor(2) as pool:
            return [one.name for one in pool.map(doubled, [source])]

    return threads()


def unstorable() -> Any:
    @flow
    @registering(PROJECT, crucible=HERE)
    def odd() -> Any:
        return use(guard(make(30)))

    return odd()


def half_stored() -> Any:
    """Return values that cannot be stored: they are described, may be parents, and are never confused."""

    @dataclass
    class Fit:
        table: pd.DataFrame
        weights: np.ndarray[Any, Any]

    class Model:
        def __init__(self, rate: int) -> None:
            self.rate = rate

    @task
    def train(table: pd.DataFrame, rate: int) -> Model:
        return Model(rate)

    @task
    def rate_of(model: Model) -> int:
        return model.rate

    @task
    def split(table: pd.DataFrame) -> dict[str, Any]:
        return {"T=3": table + 1, "T_3": table + 2, "lock": threading.Lock()}

    @task
    def fit(table: pd.DataFrame) -> Fit:
        return Fit(table + 3, np.ones(3))

    @task
    def by_place(table: pd.DataFrame) -> dict[Any, Any]:
        return {(0, 1): table + 4}

    @task
    def total(table: pd.DataFrame) -> int:
        return int(table.sum().x)

    @flow
    @registering(PROJECT, crucible=HERE)
    def halves(rate: int) -> Any:
        table = make(30)
        tables = split(table)
        totals = [total(tables["T=3"]), total(tables["T_3"]), total(fit(table).table), total(by_place(table)[0, 1])]
        return [rate_of(train(table, rate)), *totals]

    return [halves(1), halves(2)]


def same_bytes() -> Any:
    """Return small values that are equal by chance: they are separate datasets, and are found again."""

    @task
    def dark(channel: int) -> int:
        return 3

    @task
    def flat() -> int:
        return 3

    @task
    def both(dark: int, flat: int) -> int:
        return dark + flat

    @flow
    @registering(PROJECT, crucible=HERE)
    def counts() -> Any:
        flat_field = flat.submit()
        return [both(dark.submit(channel), flat_field) for channel in (1, 2)]

    return [counts(), counts()]


def equal_parents() -> Any:
    """Return equal results of different parents with equal bytes: one dataset, which is linked to both."""

    @task
    def clean(table: pd.DataFrame, way: str) -> pd.DataFrame:
        return table * 2

    @task
    def total(table: pd.DataFrame) -> int:
        return int(table.sum().x)

    @flow
    @registering(PROJECT, crucible=HERE)
    def both() -> Any:
        table = make(30)
        return [total(clean(table, way)) for way in ("fast", "slow")]

    return both()


def in_with() -> Any:
    @flow
    def partly() -> Any:
        before = make(20)
        with registering(PROJECT, crucible=HERE) as recording:
            within = double(before)
        double(within)
        return [int(within.sum().x), len(recording.datasets())]

    return partly()


def in_async_with() -> Any:
    @task
    async def triple(table: pd.DataFrame) -> pd.DataFrame:
        return table * 3

    @flow
    async def partly() -> Any:
        async with registering(PROJECT, crucible=HERE):
            return int((await triple(make(20))).sum().x)

    return asyncio.run(partly())


def returned_futures() -> Any:
    """Return futures of tasks that still run, whose results Prefect waits for once the flow's function has returned."""

    @task
    def slow(size: int) -> pd.DataFrame:
        time.sleep(1)
        return pd.DataFrame({"x": range(size)})

    @flow
    @registering(PROJECT, crucible=HERE)
    def sync_flow() -> Any:
        return [slow.submit(10), failing.submit(slow.submit(20))]

    @flow
    @registering(PROJECT, crucible=HERE)
    async def async_flow() -> Any:
        return slow.submit(30)

    async def run() -> str:
        return (await async_flow(return_state=True)).name

    before = set(DATA.glob("flows/*"))
    returned = [sync_flow(return_state=True).name, asyncio.run(run())]
    return [*returned, len({*DATA.glob("flows/*")} - before)]


def plain() -> Any:
    @flow
    def nothing() -> Any:
        return int(double(make(5)).sum().x)

    return [nothing(), int(double.fn(make.fn(5)).sum().x), session_for(HERE).client.projects.find(PROJECT) is None]


def away() -> Any:
    """Stop Crucible while the flow runs."""

    @flow
    @registering(PROJECT, crucible=HERE)
    def cut_off() -> Any:
        table = make(30)
        session_for(HERE).client.close()
        return int(double(table).sum().x)

    return cut_off()


def main() -> None:
    DATA.mkdir(parents=True, exist_ok=True)
    report = {}
    for case in sys.argv[2:]:
        globals()["PROJECT"] = case.replace("_", "-")
        report[case] = globals()[case]()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
