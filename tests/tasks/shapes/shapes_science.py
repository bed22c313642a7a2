"""Shapes of flows at beamlines and in laboratories: scans by uid, stages of files, calibrations, exports, pruning."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench import Lab, shape
from prefect import unmapped


def spectrum(lab: Lab, name: str = "scan.csv", peak: float = 12.0) -> Path:
    """A small measured pattern."""
    q = np.linspace(0, 30, 60)
    rows = "\n".join(f"{x:.3f},{100 * np.exp(-((x - peak) ** 2)) + 3:.4f}" for x in q)
    return lab.file(name, f"q,counts\n{rows}\n")


@shape("scan.csv -> read", "read -> background", "read -> subtract", "background -> subtract", fast=True)
def a_background_is_subtracted(lab: Lab) -> Any:
    @lab.task
    def read(path: Path) -> pd.DataFrame:
        return pd.read_csv(path)

    @lab.task
    def background(pattern: pd.DataFrame, window: int = 5) -> pd.Series:
        return pattern["counts"].rolling(window, min_periods=1).min()

    @lab.task
    def subtract(pattern: pd.DataFrame, below: pd.Series) -> pd.DataFrame:
        return pattern.assign(counts=pattern["counts"] - below)

    @lab.flow
    def saxs(path: Path) -> float:
        pattern = read(path)
        return float(subtract(pattern, background(pattern))["counts"].max())

    return saxs(spectrum(lab))


@shape("scan.h5.txt -> stage", "stage -> process")
def files_are_staged_and_processed(lab: Lab) -> Any:
    @lab.task(retries=1)
    def stage(source: Path, scratch: Path) -> Path:
        return Path(shutil.copy(source, scratch / source.name))

    @lab.task
    def process(path: Path, scratch: Path) -> Path:
        target = scratch / f"{path.stem}_rec.txt"
        target.write_text(path.read_text()[::-1])
        return target

    @lab.flow
    def move(source: Path, scratch: Path) -> str:
        return process(stage(source, scratch), scratch).read_text()

    return move(lab.file("scan.h5.txt", "1 2 3"), lab.out("scratch"))


@shape("scan -> analyse", "scan -> export", "scan -> validate", in_order=False, fast=True)
def three_tasks_after_each_scan(lab: Lab) -> Any:
    @lab.task
    def scan(uid: str) -> dict[str, Any]:
        return {"uid": uid, "counts": [1, 2, 3]}

    @lab.task
    def validate(run: dict[str, Any]) -> bool:
        return len(run["counts"]) == 3

    @lab.task
    def analyse(run: dict[str, Any]) -> float:
        return sum(run["counts"]) / 3

    @lab.task
    def export(run: dict[str, Any]) -> str:
        return json.dumps(run)

    @lab.flow
    def workflow(uid: str) -> Any:
        run = scan(uid)
        checked = validate.submit(run)
        futures = [analyse.submit(run, wait_for=[checked]), export.submit(run, wait_for=[checked])]
        return [future.result() for future in futures]

    return workflow("abc")


@shape("sinogram -> slice_of", "sinogram -> slice_of", "slice_of -> stack", "slice_of -> stack", in_order=False)
def slices_in_parallel(lab: Lab) -> Any:
    @lab.task
    def sinogram() -> np.ndarray:
        return np.arange(80.0).reshape(2, 40)

    @lab.task
    def slice_of(image: np.ndarray, index: int) -> np.ndarray:
        return np.cumsum(image[index])

    @lab.task
    def stack(slices: list[np.ndarray]) -> np.ndarray:
        return np.stack(slices)

    @lab.flow
    def reconstructing() -> float:
        image = sinogram()
        return float(stack(slice_of.map(unmapped(image), [0, 1])).sum())

    return reconstructing()


@shape("calibrate -> apply", "calibrate -> apply", "s1.csv -> apply", "s2.csv -> apply", "lamp.csv -> calibrate")
def one_calibration_for_many(lab: Lab) -> Any:
    @lab.task
    def calibrate(lamp: Path) -> dict[str, float]:
        return {"slope": float(pd.read_csv(lamp)["counts"].mean())}

    @lab.task
    def apply(path: Path, axis: dict[str, float]) -> pd.DataFrame:
        return pd.read_csv(path) * axis["slope"]

    @lab.flow
    def raman(lamp: Path, samples: list[Path]) -> float:
        axis = calibrate(lamp)
        return round(sum(float(apply(path, axis)["q"].sum()) for path in samples), 6)

    return raman(spectrum(lab, "lamp.csv", 5), [spectrum(lab, "s1.csv", 11), spectrum(lab, "s2.csv", 12)])


@dataclass
class Scan:
    """A scan and its header."""

    name: str
    counts: list[float]
    header: dict[str, float] = field(default_factory=dict)


@shape("acquire -> correct", "correct -> summary")
def dataclasses_handed_on(lab: Lab) -> Any:
    @lab.task
    def acquire(name: str) -> Scan:
        return Scan(name, [1.5, 2.5, 3.5], {"seconds": 2.0})

    @lab.task
    def correct(scan: Scan) -> Scan:
        return Scan(scan.name, [one / scan.header["seconds"] for one in scan.counts], scan.header)

    @lab.task
    def summary(scan: Scan) -> dict[str, Any]:
        return {"name": scan.name, "total": sum(scan.counts)}

    @lab.flow
    def scanning() -> Any:
        return summary(correct(acquire("gold")))

    return scanning()


@shape("simulate -> plot", says=())
def a_figure_is_saved(lab: Lab) -> Any:
    @lab.task
    def simulate(n: int) -> pd.DataFrame:
        return pd.DataFrame({"x": np.arange(float(n)), "y": np.arange(float(n)) ** 2})

    @lab.task
    def plot(table: pd.DataFrame, target: Path) -> None:
        import matplotlib

        matplotlib.use("agg")
        from matplotlib.figure import Figure

        figure = Figure()
        figure.subplots().plot(table["x"], table["y"])
        figure.savefig(target)

    @lab.flow
    def plotting(target: Path) -> bool:
        plot(simulate(20), target)
        return target.exists()

    return plotting(lab.folder / "plot.png")


@shape("archive -> unpack", "unpack -> size", "unpack -> size")
def a_folder_is_given_back(lab: Lab) -> Any:
    @lab.task
    def archive() -> dict[str, str]:
        return {"one.txt": "first file", "two.txt": "second"}

    @lab.task
    def unpack(content: dict[str, str], folder: Path) -> Path:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
        return folder

    @lab.task
    def size(path: Path) -> int:
        return len(path.read_text())

    @lab.flow
    def unpacking(folder: Path) -> list[int]:
        unpacked = unpack(archive(), folder)
        return [size(path) for path in sorted(unpacked.iterdir())]

    return unpacking(lab.folder / "unpacked")


@shape("notes.txt -> append")
def a_file_is_appended_to(lab: Lab) -> Any:
    @lab.task
    def read(path: Path) -> int:
        return len(path.read_text())

    @lab.task
    def append(notes: Path, log: Path) -> None:
        with log.open("a") as stream:
            stream.write(notes.read_text())

    @lab.flow
    def logging(notes: Path, log: Path) -> str:
        append(notes, log)
        return log.read_text()

    return logging(lab.file("notes.txt", "warm"), lab.folder / "log.txt")


@shape("frames -> brightest", "brightest -> crop")
def numbers_of_numpy(lab: Lab) -> Any:
    @lab.task
    def frames() -> np.ndarray:
        return np.arange(300.0).reshape(3, 100)

    @lab.task
    def brightest(images: np.ndarray) -> dict[str, Any]:
        return {"index": images.sum(axis=1).argmax(), "mean": images.mean(), "all": list(images[0][:50])}

    @lab.task
    def crop(found: dict[str, Any]) -> int:
        return int(found["index"])

    @lab.flow
    def counting() -> int:
        return crop(brightest(frames()))

    return counting()
