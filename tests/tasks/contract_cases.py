"""What a registering flow says and leaves behind: `contract_cases.py DATA FOLDER`; prints JSON by case."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from prefect import flow, task
from prefect.blocks.system import Secret
from prefect.cache_policies import INPUTS
from prefect.states import Completed, Failed
from prefect.transactions import transaction
from prefect.utilities.annotations import quote

from crucible_lineage.tasks import CrucibleConnection, lineage, registering, session_for

HERE = CrucibleConnection(data=sys.argv[1])
FOLDER = Path(sys.argv[2])


def registered(function: Callable[..., Any], **options: Any) -> Any:
    """Return a flow that registers in a project of its name."""
    return flow(registering(function.__name__.replace("_", "-"), crucible=HERE, **options)(function))


@task
def acquire(seconds: float, what: str = "open", gain: int = 2) -> np.ndarray[Any, Any]:
    return np.full((8, 8), seconds * gain)


@task
def total(image: np.ndarray[Any, Any]) -> float:
    return float(image.sum())


@task
def fail(image: np.ndarray[Any, Any]) -> float:
    raise ValueError("no beam")


@task
def take(value: Any, *more: Any, **named: Any) -> list[str]:
    return [type(each).__name__ for each in (value, *more, *named.values())]


@task
def scale(image: np.ndarray[Any, Any], by: int) -> np.ndarray[Any, Any]:
    return image * by


def a_failing_run() -> None:
    acquire(5.0, "dark")
    total(acquire(2.5))
    fail(acquire(3.0))


def a_strict_run(derived: bool) -> float:
    image = acquire(4.0) + np.arange(8.0)
    return total(lineage.derived(image * 2, acquire(4.0)) if derived else image * 2)


def a_described_run() -> None:
    @task
    @lineage.options(ignore="password", data_type="curve")
    def reduce(uid: str, password: str) -> list[float]:
        lineage.used(f"tiled://raw/{uid}")
        lineage.describe(measurement="SAXS", sample="gold", dataset_name="reduced {uid}")
        return [1.5, 2.5]

    reduce("5f", "hunter2")
    reduce("5f", "hunter3")


def numbers_of_numpy() -> str:
    @task
    def means(count: int) -> list[np.float64]:
        return [np.float64(n) / 3 for n in range(count)]

    @task
    def summary(values: list[np.float64]) -> dict[str, Any]:
        return {"mean": np.mean(values), "n": np.int64(len(values)), "image": np.arange(64.0)}

    found = means(5)
    total(summary(found)["mean"])
    return type(found[0]).__name__


def arguments_of_every_kind() -> None:
    @task
    def table() -> list[list[float]]:
        return [[1.5, 2.5], [3.5, 4.5]]

    rows, image, path = table(), acquire(1.0), FOLDER / "scan.txt"
    take(rows[0], 5, "a text", gain=rows[1], none=None)
    take(image[2:4])
    take({"image": image, "scale": 2, "token": "word"}, password="word")
    rows.append([5.5, 6.5])
    take(rows)
    take([*range(1500)], more=[*range(1500)])
    take({"password": "word", "rows": [*range(1500)]})
    take(image + 1)
    take(lineage.derived(image + 2, image))
    take(
        "0td40y80027sn1w6x3snqzzzzz", session_for(HERE).client.datasets.list(dataset_name="acquire [1.0]")[0].unique_id
    )
    take(path, str(path), [str(path)], FOLDER / "given", FOLDER / "absent.txt")
    take(Secret.load("lab"), object(), (1, 2), float("nan"))
    take(quote(acquire.submit(2.0)), total.submit(acquire.submit(3.0)))
    scale.map([acquire(4.0), acquire(5.0)], by=2).result()


def effects_of_every_kind() -> Any:
    @task
    def correct(path: Path, out: Path) -> None:
        text = path.read_text()
        path.write_text(text + "corrected")
        (out / "report.txt").write_text(text)
        (out / "report.pem").write_text("a key")

    @task
    def publish(values: list[str]) -> None:
        lineage.wrote("https://me:secret@lab.test/9", FOLDER / "published.txt")
        (FOLDER / "published.txt").write_text(str(values))

    @task
    def elsewhere(values: list[str]) -> None:
        lineage.wrote("tiled://made/1")

    @task
    def refresh(values: list[str]) -> str:
        lineage.used("tiled://made/1", FOLDER / "published.txt", values)
        return "a refreshed text"

    @task
    def grow(values: list[str], more: list[str]) -> None:
        values += more

    @task
    def frames(number: int) -> Iterator[list[float]]:
        yield from ([each + 0.5] for each in range(number))

    @task
    async def frames_async(number: int) -> AsyncIterator[list[float]]:
        for each in range(number):
            yield [each + 0.25]

    @task
    def states(kind: str) -> Any:
        return Completed(data=[0.75, 1.75]) if kind == "completed" else Failed(message="no beam")

    @task(persist_result=True, cache_policy=INPUTS)
    def cached(values: list[str]) -> list[str]:
        return [*values, "cached"]

    @task
    def undone(values: list[str]) -> list[str]:
        return [*values, "undone"]

    async def awaited() -> list[Any]:
        return [frame async for frame in frames_async(2)]

    correct(FOLDER / "changing.txt", FOLDER / "out")
    made = take(1)
    publish(made)
    elsewhere(made)
    refresh(made)
    grow(made, ["more"])
    found = [list(frames(2)), asyncio.run(awaited()), states("completed"), cached(made), cached(made)]
    for frame in frames(3):
        take(frame)
        break
    failed = states("failed", return_state=True)
    try:
        with transaction():
            undone(made)
            fail(np.ones(3))
    except ValueError as error:
        found.append(str(error))
    return [*found, failed.name]


def said_outside() -> list[str]:
    def own() -> str:
        lineage.used("tiled://raw/1")
        return "a task that is not recorded may say it"

    own.__module__ = "crucible_lineage.lab"
    try:
        lineage.used("tiled://raw/1")
    except Exception as error:
        return [str(error), task(own)()]
    return []


def in_a_plain_call() -> int:
    @task
    def plain(n: int) -> int:
        lineage.used("tiled://raw/1")
        lineage.wrote(FOLDER / "x")
        lineage.describe(sample="gold")
        return int(lineage.derived(n, n))

    return plain.fn(3)


def main() -> None:
    for name in ("scan.txt", "changing.txt", "given/one.txt", "given/two.txt", "given/key.pem", "out/old.txt"):
        (FOLDER / name).parent.mkdir(exist_ok=True)
        (FOLDER / name).write_text(f"content of {name}")
    Secret(value="word-of-a-block").save("lab", overwrite=True)
    strict = registered(a_strict_run, strict=True)
    returned = {
        "failing": registered(a_failing_run)(return_state=True).name,
        "strict": [str(strict(False, return_state=True).message), strict(True)],
        "described": registered(a_described_run)(),
        "numbers": registered(numbers_of_numpy)(),
        "arguments": registered(arguments_of_every_kind)(),
        "effects": registered(effects_of_every_kind)(),
        "outside": [registered(said_outside)(), in_a_plain_call()],
    }
    print(json.dumps(returned, default=lambda value: type(value).__name__))


if __name__ == "__main__":
    main()
