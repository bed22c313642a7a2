"""Shapes whose parents are easily lost or invented: folders, views, items, equal bytes, effects."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench import Lab, shape
from prefect import unmapped


@shape("fit -> report", "fit -> report", fast=True)
def a_list_of_dicts(lab: Lab) -> Any:
    @lab.task
    def fit(seed: int) -> dict[str, float]:
        return {"slope": seed * 2.0, "offset": 0.5}

    @lab.task
    def report(fits: list[dict[str, float]]) -> str:
        return f"{len(fits)} fits, {sum(one['slope'] for one in fits)}"

    @lab.flow
    def fan_in() -> str:
        return report([fit(1), fit(2)])

    return fan_in()


@shape("samples.csv -> read", "read -> validate", "read -> validate", "read -> validate", fast=True)
def rows_one_by_one(lab: Lab) -> Any:
    @lab.task
    def read(path: Path) -> list[dict[str, str]]:
        with path.open() as stream:
            return list(csv.DictReader(stream))

    @lab.task
    def validate(row: dict[str, str]) -> dict[str, float]:
        return {"t": float(row["t"])}

    @lab.flow
    def rows(path: Path) -> list[Any]:
        return [validate(row) for row in read(path)]

    return rows(lab.file("samples.csv", "name,t\na,1\nb,2\nc,3\n"))


@shape("fit -> report")
def a_number_handed_on(lab: Lab) -> Any:
    @lab.task
    def fit(seed: int) -> float:
        return seed * 1.25

    @lab.task
    def report(slope: float) -> str:
        return f"{slope:.3f}"

    @lab.flow
    def numbers() -> str:
        return report(fit(3))

    return numbers()


@shape("-> double", "-> log")
def a_number_that_is_the_flows_own(lab: Lab) -> Any:
    @lab.task
    def double(n: int) -> int:
        return n * 2

    @lab.task
    def log(n: int) -> str:
        return f"n is {n}"

    @lab.flow
    def own() -> Any:
        n = 1000
        return [double(n), log(n)]

    return own()


@shape("-> measure", "table (from the flow) -> fit", says="no parent known for table of fit", fast=True)
def a_filtered_table(lab: Lab) -> Any:
    @lab.task
    def measure() -> pd.DataFrame:
        return pd.DataFrame({"q": np.arange(50.0), "i": np.arange(50.0) ** 2})

    @lab.task
    def fit(table: pd.DataFrame) -> float:
        return float(table["i"].mean())

    @lab.flow
    def filtered() -> float:
        table = measure()
        return fit(table[table["q"] > 10])

    return filtered()


@shape(*["image -> part (taken)", "part (taken) -> total"] * 2, fast=True)
def slices_and_a_transposed_array(lab: Lab) -> Any:
    @lab.task
    def image() -> np.ndarray:
        return np.arange(600.0).reshape(20, 30)

    @lab.task
    def total(part: np.ndarray) -> float:
        return float(part.sum())

    @lab.flow
    def slicing() -> Any:
        whole = image()
        return [total(whole[5:20]), total(whole.T)]

    return slicing()


@shape("measure -> table (taken)", "table (taken) -> fit", "measure -> column (taken)", "column (taken) -> mean")
def columns_and_rows_of_a_table(lab: Lab) -> Any:
    @lab.task
    def measure() -> pd.DataFrame:
        return pd.DataFrame({"q": np.arange(50.0), "i": np.arange(50.0) ** 2})

    @lab.task
    def fit(table: pd.DataFrame) -> float:
        return float(table["i"].mean())

    @lab.task
    def mean(column: Any) -> float:
        return float(column.mean())

    @lab.flow
    def columns() -> list[float]:
        table = measure()
        return [fit(table.iloc[5:20]), mean(table["q"])]

    return columns()


@shape(
    "part (from the flow) -> total",
    "-> image",
    says="no parent known for part of total",
    fast=True,
)
def an_array_that_the_flow_has_computed(lab: Lab) -> Any:
    @lab.task
    def image() -> np.ndarray:
        return np.arange(600.0).reshape(20, 30)

    @lab.task
    def total(part: np.ndarray) -> float:
        return float(part.sum())

    @lab.flow
    def computing() -> Any:
        return total(image() * 2 + 1)

    return computing()


@shape("image -> value (derived)", "value (derived) -> total")
def an_array_that_is_said_to_be_derived(lab: Lab) -> Any:
    from crucible_lineage.tasks import lineage

    @lab.task
    def image() -> np.ndarray:
        return np.arange(600.0).reshape(20, 30)

    @lab.task
    def total(part: np.ndarray) -> float:
        return float(part.sum())

    @lab.flow
    def deriving() -> Any:
        whole = image()
        return total(lineage.derived(whole * 2 + 1, whole))

    return deriving()


@shape("frame -> save", "frame -> save", "frame -> save", "frame -> save", in_order=False, fast=True)
def one_folder_mapped(lab: Lab) -> Any:
    @lab.task
    def frame(i: int) -> np.ndarray:
        return np.full((8, 8), float(i)) + np.arange(8.0)

    @lab.task
    def save(image: np.ndarray, i: int, out_dir: Path) -> None:
        np.save(out_dir / f"frame_{i}.npy", image)

    @lab.flow
    def saving(out_dir: Path) -> list[str]:
        frames = frame.map(range(4))
        save.map(frames, range(4), unmapped(out_dir)).wait()
        return sorted(path.name for path in out_dir.iterdir())

    return saving(lab.out())


@shape("a.txt -> first", "first -> second")
def a_second_task_reads_what_the_first_wrote_there(lab: Lab) -> Any:
    @lab.task
    def first(source: Path, work: Path) -> None:
        (work / "one.txt").write_text(source.read_text() * 2)

    @lab.task
    def second(work: Path) -> None:
        (work / "two.txt").write_text((work / "one.txt").read_text().upper())

    @lab.flow
    def chained(source: Path, work: Path) -> str:
        first(source, work)
        second(work)
        return (work / "two.txt").read_text()

    return chained(lab.file("a.txt", "abc"), lab.out("work"))


@shape("acquire -> subtract", "acquire -> subtract", fast=True)
def equal_bytes_of_two_calls(lab: Lab) -> Any:
    @lab.task
    def acquire(seconds: float, what: str) -> np.ndarray:
        return np.ones((20, 20))

    @lab.task
    def subtract(image: np.ndarray, dark: np.ndarray) -> np.ndarray:
        return image - dark

    @lab.flow
    def darks() -> float:
        return float(subtract(acquire(5.0, "open"), acquire(5.0, "dark")).sum())

    return darks()


@shape("load -> normalise", "normalise -> mean", fast=True)
def a_task_that_changes_its_argument(lab: Lab) -> Any:
    @lab.task
    def load() -> np.ndarray:
        return np.arange(100.0)

    @lab.task
    def normalise(image: np.ndarray) -> None:
        image /= image.max()

    @lab.task
    def mean(image: np.ndarray) -> float:
        return float(image.mean())

    @lab.flow
    def changing() -> float:
        image = load()
        normalise(image)
        return mean(image)

    return changing()


@shape("load -> add_units", "add_units -> show")
def a_dict_that_a_task_fills(lab: Lab) -> Any:
    @lab.task
    def load() -> dict[str, Any]:
        return {"t": [300.0, 301.0]}

    @lab.task
    def add_units(found: dict[str, Any]) -> None:
        found["unit"] = "K"

    @lab.task
    def show(found: dict[str, Any]) -> str:
        return f"{found['t']} {found['unit']}"

    @lab.flow
    def filling() -> str:
        found = load()
        add_units(found)
        return show(found)

    return filling()


@shape("-> lookup")
def an_id_of_another_service(lab: Lab) -> Any:
    @lab.task
    def lookup(ulid: str, run: str) -> dict[str, str]:
        return {"found": ulid, "run": run}

    @lab.flow
    def looking() -> Any:
        return lookup("01arz3ndektsv4rrffq69g5fav", "0tk5r2ndm5zvd000nr21qakeh4")

    return looking()


@dataclass
class Scan:
    image: list[float]
    axes: dict[str, float]


@shape("measure -> area", "measure -> perimeter")
def fields_of_a_dataclass(lab: Lab) -> Any:
    @lab.task
    def measure() -> Scan:
        return Scan([1.5] * 400, {"x": 0.5, "y": 0.25})

    @lab.task
    def area(image: list[float]) -> float:
        return sum(image)

    @lab.task
    def perimeter(axes: dict[str, float]) -> float:
        return sum(axes.values())

    @lab.flow
    def fields() -> Any:
        scan = measure()
        return [area(scan.image), perimeter(scan.axes)]

    return fields()


@shape("pair -> left", "pair -> right")
def items_of_a_tuple(lab: Lab) -> Any:
    @lab.task
    def pair() -> tuple[list[float], dict[str, int]]:
        return [1.5, 2.5], {"n": 3}

    @lab.task
    def left(values: list[float]) -> float:
        return sum(values)

    @lab.task
    def right(found: dict[str, int]) -> int:
        return found["n"]

    @lab.flow
    def unpacking() -> Any:
        one, two = pair()
        return [left(one), right(two)]

    return unpacking()


@shape("tiled://raw/5f3a -> reduce", fast=True)
def a_uid_of_another_catalogue(lab: Lab) -> Any:
    from crucible_lineage.tasks import lineage

    out = lab.out()

    @lab.task
    def reduce(uid: str) -> None:
        lineage.used(f"tiled://raw/{uid}")
        target = out / f"{uid}.txt"
        target.write_text("reduced")
        lineage.wrote(target)
        lineage.describe(measurement="SAXS", sample="gold")

    @lab.flow
    def reducing() -> str:
        reduce("5f3a")
        return (out / "5f3a.txt").read_text()

    return reducing()


@shape("image -> publish")
def a_result_that_lies_elsewhere(lab: Lab) -> Any:
    from crucible_lineage.tasks import lineage

    @lab.task
    def image() -> np.ndarray:
        return np.arange(100.0)

    @lab.task
    def publish(values: np.ndarray, key: str) -> None:
        lineage.wrote(f"s3://bucket/{key}")

    @lab.flow
    def publishing() -> None:
        publish(image(), "a.npy")

    return publishing()


@shape("a.tif -> stack", "b.tif -> stack")
def a_pattern_of_a_folder(lab: Lab) -> Any:
    for name in ("a.tif", "b.tif", "notes.md", ".hidden", "id_rsa"):
        lab.file(f"in/{name}", f"content of {name}")

    @lab.task
    def stack(folder: Path) -> int:
        return sum(len(path.read_text()) for path in folder.glob("*.tif"))

    @lab.flow
    def stacking(folder: Path) -> int:
        return stack(folder)

    return stacking(lab.folder / "in")


@shape("a.tif -> stack", fast=True)
def hidden_files_and_keys_in_a_folder(lab: Lab) -> Any:
    for name in ("a.tif", ".hidden", ".ssh/known", "id_rsa", ".env", "server.pem"):
        lab.file(f"in/{name}", f"content of {name}")

    @lab.task
    def stack(folder: Path) -> int:
        return sum(len(path.read_text()) for path in folder.glob("*.tif"))

    @lab.flow
    def stacking(folder: Path) -> int:
        return stack(folder)

    return stacking(lab.folder / "in")


@shape("a.txt -> read", "b.txt -> read")
def paths_as_texts_in_a_list(lab: Lab) -> Any:
    @lab.task
    def read(paths: list[str]) -> int:
        return sum(len(Path(path).read_text()) for path in paths)

    @lab.flow
    def reading(paths: list[str]) -> int:
        return read(paths)

    return reading([str(lab.file("a.txt", "1 2")), str(lab.file("b.txt", "3"))])
