"""Shapes in which a converted flow once hung, or lost or invented a parent."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from bench import Lab, shape
from prefect.transactions import transaction


@shape("a.txt -> discover", "b.txt -> discover", "discover -> count", "discover -> count", fast=True)
def paths_discovered_in_a_folder(lab: Lab) -> Any:
    lab.file("in/a.txt", "1\n2\n")
    lab.file("in/b.txt", "3\n")

    @lab.task
    def discover(folder: Path) -> list[Path]:
        return sorted(folder.glob("*.txt"))

    @lab.task
    def count(path: Path) -> int:
        return len(path.read_text().split())

    @lab.flow
    def counting(folder: Path) -> int:
        total = 0
        for path in discover(folder):
            total += count(path)
        return total

    return counting(lab.folder / "in")


@shape("a.txt -> check", "check -> size", fast=True)
def a_path_that_is_checked(lab: Lab) -> Any:
    @lab.task
    def check(path: Path) -> Path:
        if not path.read_text():
            raise ValueError("empty")
        return path

    @lab.task
    def size(path: Path) -> int:
        return len(path.read_text())

    @lab.flow
    def checking(path: Path) -> int:
        return size(check(path))

    return checking(lab.file("a.txt"))


@shape("-> ask", "-> ask", "-> ask", fast=True)
def a_key_function_that_gives_none(lab: Lab) -> Any:
    ran = []

    @lab.task(cache_key_fn=lambda context, parameters: None, persist_result=True)
    def ask(source: str) -> list[int]:
        ran.append(source)
        return [len(ran)]

    @lab.flow
    def asking() -> list[list[int]]:
        return [ask("db"), ask("db"), ask("db")]

    return [asking(), len(ran)]


@shape("daily -> use", "daily -> use", fast=True)
def a_daily_key(lab: Lab) -> Any:
    ran = []
    day = ["monday"]

    @lab.task(cache_key_fn=lambda context, parameters: lab.key(day[0]), persist_result=True)
    def daily(source: str) -> dict[str, int]:
        ran.append(source)
        return {"counts": 41 + len(ran)}

    @lab.task
    def use(found: dict[str, int], factor: int) -> int:
        return found["counts"] * factor

    @lab.flow
    def days() -> list[int]:
        return [use(daily("db"), 2), use(daily("db"), 3)]

    return [days(), ran]


@shape("-> slow", "-> slow", fast=True)
def inputs_with_the_run_in_the_key(lab: Lab) -> Any:
    from prefect.cache_policies import INPUTS, RUN_ID, TASK_SOURCE

    ran = []

    @lab.task(cache_policy=INPUTS + RUN_ID + TASK_SOURCE)
    def slow(size: int) -> list[int]:
        ran.append(size)
        return [size, len(ran)]

    @lab.flow
    def cached() -> Any:
        return [slow(3), slow(3)]

    return [cached(), cached(), ran]


@shape("-> stamp", "-> stamp", fast=True)
def a_cache_that_expires(lab: Lab) -> Any:
    ran = []

    @lab.task(cache_key_fn=lambda c, p: lab.key("e"), cache_expiration=timedelta(seconds=1), persist_result=True)
    def stamp() -> list[int]:
        ran.append(1)
        return [len(ran)]

    @lab.flow
    def expiring() -> Any:
        first = [stamp(), stamp()]
        time.sleep(1.3)
        return [*first, stamp()]

    return expiring()


@shape("-> fresh", "-> fresh", fast=True)
def a_cache_that_is_refreshed(lab: Lab) -> Any:
    ran = []

    @lab.task(cache_key_fn=lambda c, p: lab.key("r"), persist_result=True)
    def fresh() -> list[int]:
        ran.append(1)
        return [len(ran)]

    @lab.flow
    def refreshing() -> Any:
        return [fresh(), fresh(), fresh.with_options(refresh_cache=True)(), fresh()]

    return refreshing()


@shape("a.txt -> stage", "stage -> process", fast=True)
def a_flow_that_is_tried_again(lab: Lab) -> Any:
    staged, tried = [], []

    @lab.task(persist_result=True)
    def stage(path: Path) -> dict[str, int]:
        staged.append(path.name)
        return {"bytes": path.stat().st_size}

    @lab.task
    def process(found: dict[str, int]) -> int:
        tried.append(1)
        if len(tried) < 2:
            raise ValueError("no beam")
        return found["bytes"]

    @lab.flow(retries=1)
    def moving(path: Path) -> int:
        return process(stage(path))

    return [moving(lab.file("a.txt")), staged]


@shape("keyed -> twice", fast=True)
def a_storage_key(lab: Lab) -> Any:
    ran = []

    @lab.task(result_storage_key=lab.key("k"), persist_result=True)
    def keyed() -> dict[str, int]:
        ran.append(1)
        return {"n": len(ran)}

    @lab.task
    def twice(found: dict[str, int]) -> int:
        return found["n"] * 2

    @lab.flow
    def keys() -> Any:
        keyed()
        return twice(keyed())

    return [keys(), ran]


class Slow:
    """A value that takes longer to store than its task may take."""


def write_slowly(value: Slow, folder: Path) -> None:
    time.sleep(5)
    (folder / "slow.txt").write_text("stored at last")


@shape("a.txt -> slow_to_store", fast=True)
def a_time_limit_that_storing_does_not_count(lab: Lab) -> Any:
    from crucible_lineage.tasks import Kind, add_kind

    add_kind(Kind("slow", lambda value: isinstance(value, Slow), write_slowly))
    ran = []

    @lab.task(timeout_seconds=4, retries=1)
    def slow_to_store(path: Path) -> Slow:
        ran.append(path.name)
        return Slow()

    @lab.flow
    def limited(path: Path) -> str:
        return type(slow_to_store(path)).__name__

    return [limited(lab.file("a.txt", "3")), ran]


@shape(fast=True)
def a_time_limit_that_is_exceeded(lab: Lab) -> Any:
    @lab.task(timeout_seconds=0.3, retries=1)
    def slow() -> int:
        time.sleep(20)
        return 1

    @lab.flow
    def limited() -> Any:
        state = slow(return_state=True)
        return [state.name, state.message]

    begun = time.monotonic()
    return [limited(), time.monotonic() - begun < 15]


@shape("-> total", fast=True)
def the_function_called_by_hand(lab: Lab) -> Any:
    @lab.task
    def square(n: int) -> list[int]:
        return [n * n]

    @lab.task
    def total(n: int) -> list[int]:
        return [sum(square.fn(i)[0] for i in range(n))]

    @lab.flow
    def by_hand() -> Any:
        return [square.fn(4), total(40)]

    return by_hand()


@shape("make -> double", "make -> double", "make -> double", in_order=False, fast=True)
def plain_threads_in_a_subflow(lab: Lab) -> Any:
    @lab.task
    def make(size: int) -> pd.DataFrame:
        return pd.DataFrame({"x": range(size)})

    @lab.task
    def double(table: pd.DataFrame, by: int) -> pd.DataFrame:
        return table * by

    @lab.flow
    def inner(table: pd.DataFrame) -> list[int]:
        with ThreadPoolExecutor(3) as pool:
            return [int(one.sum().x) for one in pool.map(double, [table] * 3, [2, 3, 4])]

    @lab.flow
    def outer() -> list[int]:
        return inner(make(30))

    return outer()


@shape("read_left -> clean", "read_right -> clean", "calibrate -> scale", "clean -> scale", "clean -> scale", fast=True)
def rows_that_cross_into_a_subflow(lab: Lab) -> Any:
    """Prefect copies lists and dicts where it checks the parameters of a flow."""

    @lab.task
    def read_left() -> list[dict[str, Any]]:
        return [{"id": 1, "value": 10.5}]

    @lab.task
    def read_right() -> list[dict[str, Any]]:
        return [{"id": 2, "value": 20.5}]

    @lab.task
    def calibrate() -> float:
        return sum([0.25, 1.5])

    @lab.task
    def clean(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "clean": True}

    @lab.task
    def scale(rows: list[dict[str, Any]], by: float) -> list[float]:
        return [row["value"] * by for row in rows]

    @lab.plain_flow
    def transforming(rows: list[dict[str, Any]], by: float) -> list[float]:
        return scale([clean(row) for row in rows], by)

    @lab.flow
    def process() -> list[float]:
        return transforming(read_left() + read_right(), calibrate())

    return process()


@shape("read -> check", "check -> report", fast=True)
def a_subflow_within_a_transaction(lab: Lab) -> Any:
    @lab.task
    def read() -> list[int]:
        return [3, 1, 2]

    @lab.task
    def check(values: list[int]) -> list[int]:
        return sorted(values)

    @lab.task
    def report(values: list[int]) -> str:
        return f"{len(values)} values"

    @lab.flow
    def checking() -> list[int]:
        return check(read())

    @lab.flow
    def process() -> str:
        with transaction():
            checked = checking()
        return report(checked)

    return process()


@shape(
    "export -> load", "export_all -> load", "export_all -> load", "scan.csv -> inspect", "scan.csv -> load", fast=True
)
def paths_as_texts_in_what_a_task_returns(lab: Lab) -> Any:
    """Files that a task names in a dict or a list are its own; the path that it was given stays a text."""
    out, scan = lab.out("exported"), lab.file("scan.csv", "a,b\n5,6\n")

    def write(name: str) -> str:
        path = out / name
        path.write_text(f"a,b\n{len(name)},2\n")
        return str(path)

    @lab.task
    def export() -> dict[str, Any]:
        return {"path": write("one.csv"), "rows": 1}

    @lab.task
    def export_all() -> list[str]:
        return [write("three.csv"), write("twelve.csv")]

    @lab.task
    def inspect(path: str) -> dict[str, Any]:
        return {"path": path, "size": len(Path(path).read_text())}

    @lab.task
    def load(path: str) -> pd.DataFrame:
        return pd.read_csv(path)

    @lab.flow
    def process() -> int:
        inspect(str(scan))
        paths = [export()["path"], *export_all(), str(scan)]
        return sum(len(load(path)) for path in paths)

    return process()
