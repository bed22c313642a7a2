"""Flows whose arguments do not tell what their tasks do: `effects_flow.py DATA FOLDER`; prints JSON by case."""

from __future__ import annotations

import functools
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.assets import materialize
from prefect.cache_policies import INPUTS

from crucible_lineage.ask.lineages import fetch_lineage
from crucible_lineage.lineage.svg import render_svg
from crucible_lineage.tasks import CrucibleConnection, registering, session_for

HERE = CrucibleConnection(data=sys.argv[1])
FOLDER = Path(sys.argv[2])


@task
def make(size: int) -> list[float]:
    return [number + 0.5 for number in range(size)]


@task
def use(values: list[float]) -> float:
    return sum(values)


def recorded(flow_function: Callable[[], Any]) -> Any:
    """Run a flow whose project has its name; return what it gave."""
    project = flow_function.__name__.replace("_", "-")[:24].strip("-")
    return flow(registering(project, crucible=HERE)(flow_function))()


def a_text_of_one_part() -> Any:
    @task
    def save(data: list[float], name: str) -> None:
        Path(name).write_text(json.dumps(data))

    @task
    def load(name: str) -> int:
        return len(Path(name).read_text())

    save(make(3), "replays.json")
    return load("./replays.json")


def other_decorators() -> Any:
    @materialize("s3://lab/final")
    def final(values: list[float]) -> list[float]:
        return values[1:]

    @task(asset_deps=["s3://lab/final"])
    def after() -> dict[str, int]:
        return {"after": 1}

    def ours(function: Any) -> Any:
        return task(function, retries=1)

    @ours
    def decorated(values: list[float]) -> float:
        return values[0] * 3

    library = "from prefect import task\n\n\n@task\ndef peak(values):\n    return [max(values), 0.5]\n"
    (FOLDER / "otherlab.py").write_text(library)
    sys.path.insert(0, str(FOLDER))
    after()
    kept = final(make(3))
    after()
    return decorated(importlib.import_module("otherlab").peak(kept))


def a_child_process() -> Any:
    out = FOLDER / "parts"
    out.mkdir()
    for name in ("a", "b"):
        (out / f"{name}.txt").write_text(f"content of {name}")
    (out / "unread.md").write_text("not read")

    @task
    def joined(folder: Path) -> None:
        subprocess.run(f"cat {folder}/*.txt > {folder}/all.csv", shell=True, check=True)

    joined(out)
    return (out / "all.csv").read_text()


def inputs_not_known() -> Any:
    @task
    def fetch(target: Path) -> None:
        target.write_text("from somewhere")

    fetch(FOLDER / "fetched.txt")


def shown(project: str) -> list[str]:
    """Return the lines of `show` about the only dataset, and texts of its picture."""
    session = session_for(HERE)
    (one,) = session.client.datasets.list(project_id=project, limit=None)
    ran = subprocess.run(
        [sys.executable, "-m", "crucible_lineage", "show", one.unique_id, "--data", sys.argv[1]],
        capture_output=True,
        text=True,
        check=True,
    )
    return [ran.stdout, render_svg(fetch_lineage(session, one.unique_id), one.unique_id)]


def a_list_that_is_empty_at_first() -> Any:
    @task
    def one(number: float, found: list[float]) -> None:
        found.append(number)

    found: list[float] = []
    one(1.5, found)
    one(2.5, found)
    return use(found)


def partial_functions() -> Any:
    def add(x: int, y: int) -> list[float]:
        return [x + y + 0.5]

    return use(task(functools.partial(add, y=5), name="added")(3))


@task(cache_policy=INPUTS, persist_result=True)
def warmed(values: list[float], key: str) -> list[float]:
    return [*values, 7.5]


def a_cache_that_a_plain_flow_warmed() -> Any:
    return warmed(make(3), "plain")


def texts_that_are_names_of_files() -> Any:
    for name in ("first.txt", "second.txt"):
        Path(name).write_text("content")

    @task
    def listed(keys: list[str], one: str) -> list[str]:
        return [f"{key}!" for key in [*keys, one]]

    return listed(["first.txt", "second.txt"], "first.txt")


@dataclass
class Reading:
    time: str
    value: float


def models_made_of_items_of_results() -> Any:
    @task
    def measure() -> list[Reading]:
        return [Reading("at ten", 1.25), Reading("at noon", 2.75)]

    @task
    def total(found: list[Reading]) -> float:
        return sum(reading.value for reading in found)

    return total([Reading("later", reading.value) for reading in measure()])


def files_that_no_argument_names() -> Any:
    @task
    def write(values: list[float]) -> None:
        (FOLDER / "elsewhere.json").write_text(json.dumps(values))

    @task
    def read() -> int:
        return len((FOLDER / "elsewhere.json").read_text())

    write(make(4))
    return read()


CASES = (
    *(a_text_of_one_part, other_decorators, a_child_process, inputs_not_known, a_list_that_is_empty_at_first),
    *(partial_functions, a_cache_that_a_plain_flow_warmed, texts_that_are_names_of_files),
    *(files_that_no_argument_names, models_made_of_items_of_results),
)


def main() -> None:
    os.chdir(FOLDER)
    flow(name="plain")(lambda: warmed([0.5, 1.5, 2.5], "plain"))()
    reports = {case.__name__: recorded(case) for case in CASES}
    print(json.dumps({**reports, "shown": shown("inputs-not-known")}))


if __name__ == "__main__":
    main()
