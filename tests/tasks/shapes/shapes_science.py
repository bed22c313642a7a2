"""Shapes of flows at beamlines and in laboratories: scans by uid, stages of files, calibrations, exports, pruning."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

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
    @lab.task(measurement="SAXS")
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


@shape("raw.npy -> dark_correct", "dark.npy -> dark_correct", "dark_correct -> reconstruct")
def darks_and_flats_from_files(lab: Lab) -> Any:
    rng = np.random.default_rng(3)
    for name in ("raw", "dark"):
        np.save(lab.folder / f"{name}.npy", rng.random((6, 20)))

    @lab.task
    def dark_correct(raw: Path, dark: Path) -> np.ndarray:
        return np.load(raw) - np.load(dark)

    @lab.task
    def reconstruct(sinogram: np.ndarray, algorithm: str = "fbp") -> np.ndarray:
        return np.cumsum(sinogram, axis=0)

    @lab.flow
    def tomography(raw: Path, dark: Path) -> float:
        return round(float(reconstruct(dark_correct(raw, dark)).sum()), 6)

    return tomography(lab.folder / "raw.npy", lab.folder / "dark.npy")


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


@shape("tiled://scans/4f2a -> reduce", "reduce -> upload")
def a_scan_by_uid(lab: Lab) -> Any:
    from crucible_lineage.tasks import lineage

    catalogue = {"4f2a": [1.0, 2.0, 5.0]}

    @lab.task
    def reduce(uid: str) -> dict[str, float]:
        lineage.used(f"tiled://scans/{uid}")
        return {"mean": sum(catalogue[uid]) / 3}

    @lab.task
    def upload(found: dict[str, float], scicat_password: str) -> str:
        return f"uploaded {found['mean']:.3f}"

    @lab.flow
    def end_of_run(uid: str) -> str:
        return upload(reduce(uid), "hunter2-hunter2")

    return end_of_run("4f2a")


@shape("-> export_run")
def files_written_where_a_catalogue_says(lab: Lab) -> Any:
    from crucible_lineage.tasks import lineage

    root = lab.out("proposal")

    @lab.task
    def export_run(ref: str) -> None:
        folder = root / ref
        folder.mkdir()
        target = folder / "data.csv"
        target.write_text("x,y\n1,2\n")
        lineage.wrote(target)

    @lab.flow
    def exporting(ref: str) -> str:
        export_run(ref)
        return (root / ref / "data.csv").read_text()

    return exporting("run-17")


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


@shape(*["a.txt -> find"], *["b.txt -> find"], "find -> read", "find -> read", "read -> table", "read -> table")
def a_folder_of_scans(lab: Lab) -> Any:
    lab.file("day/a.txt", "1 2 3\n")
    lab.file("day/b.txt", "4 5\n")

    @lab.task
    def find(folder: Path, pattern: str) -> list[Path]:
        return sorted(folder.glob(pattern))

    @lab.task
    def read(path: Path) -> dict[str, Any]:
        return {"name": path.name, "n": len(path.read_text().split())}

    @lab.task
    def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
        return pd.DataFrame(rows)

    @lab.flow
    def day(folder: Path) -> int:
        return int(table([read(path) for path in find(folder, "*.txt")])["n"].sum())

    return day(lab.folder / "day")


@shape("make_image -> normalise", "normalise -> segment", "segment -> measure")
def a_chain_on_arrays(lab: Lab) -> Any:
    @lab.task
    def make_image(size: int) -> np.ndarray:
        return np.add.outer(np.arange(size), np.arange(size)).astype(float)

    @lab.task
    def normalise(image: np.ndarray) -> np.ndarray:
        return image / image.max()

    @lab.task
    def segment(image: np.ndarray, threshold: float) -> np.ndarray:
        return image > threshold

    @lab.task
    def measure(mask: np.ndarray) -> dict[str, Any]:
        return {"area": int(mask.sum()), "share": float(mask.mean())}

    @lab.flow
    def imaging() -> Any:
        return measure(segment(normalise(make_image(12)), 0.5))

    return imaging()


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


class Peaks(NamedTuple):
    """Positions and heights."""

    q: list[float]
    height: list[float]


@shape("scan.csv -> find_peaks", "find_peaks -> spacing")
def a_named_tuple(lab: Lab) -> Any:
    @lab.task
    def find_peaks(path: Path) -> tuple[list[float], list[float]]:
        found = pd.read_csv(path).nlargest(3, "counts")
        return list(map(float, found["q"])), list(map(float, found["counts"]))

    @lab.task
    def spacing(q: list[float]) -> float:
        return round(max(q) - min(q), 3)

    @lab.flow
    def peaks(path: Path) -> float:
        q, _ = find_peaks(path)
        return spacing(q)

    return peaks(spectrum(lab))


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


@shape("raw -> refine", "refine -> refine", "refine -> refine")
def refined_until_it_converges(lab: Lab) -> Any:
    @lab.task
    def raw() -> dict[str, float]:
        return {"chi": 8.0}

    @lab.task
    def refine(fit: dict[str, float]) -> dict[str, float]:
        return {"chi": fit["chi"] / 2}

    @lab.flow
    def refining() -> float:
        fit = raw()
        while fit["chi"] > 1.5:
            fit = refine(fit)
        return fit["chi"]

    return refining()


@shape("scan.csv -> load", "load -> fit", "load -> fit", "fit -> compare", "fit -> compare")
def two_models_compared(lab: Lab) -> Any:
    @lab.task
    def load(path: Path) -> pd.DataFrame:
        return pd.read_csv(path)

    @lab.task
    def fit(table: pd.DataFrame, order: int) -> dict[str, Any]:
        found = np.polyfit(table["q"], table["counts"], order)
        return {"order": order, "first": round(float(found[0]), 6)}

    @lab.task
    def compare(one: dict[str, Any], two: dict[str, Any]) -> list[int]:
        return [one["order"], two["order"]]

    @lab.flow
    def models(path: Path) -> list[int]:
        table = load(path)
        return compare(fit(table, 1), fit(table, 2))

    return models(spectrum(lab))


@shape("acquire -> align", "acquire -> align")
def frames_yielded_by_a_detector(lab: Lab) -> Any:
    @lab.task
    def acquire(n: int) -> Iterator[np.ndarray]:
        for i in range(n):
            yield np.arange(60.0) + i

    @lab.task
    def align(frame: np.ndarray) -> float:
        return float(frame.mean())

    @lab.flow
    def detecting() -> list[float]:
        return [align(frame) for frame in acquire(2)]

    return detecting()


@shape("config.json -> load_config", "load_config -> simulate")
def a_configuration_file(lab: Lab) -> Any:
    @lab.task
    def load_config(path: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    @lab.task
    def simulate(config: dict[str, Any]) -> list[float]:
        return [config["gain"] * i for i in range(config["steps"])]

    @lab.flow
    def configured(path: Path) -> list[float]:
        return simulate(load_config(path))

    return configured(lab.file("config.json", '{"gain": 1.5, "steps": 3}'))


@shape("prepare -> heat", "heat -> measure", "prepare -> measure")
def an_experiment_in_steps(lab: Lab) -> Any:
    @lab.task
    def prepare(sample: str) -> dict[str, Any]:
        return {"sample": sample, "mass_g": 1.25}

    @lab.task
    def heat(sample: dict[str, Any], kelvin: float) -> dict[str, Any]:
        return {**sample, "kelvin": kelvin}

    @lab.task
    def measure(sample: dict[str, Any], before: dict[str, Any]) -> float:
        return sample["kelvin"] / before["mass_g"]

    @lab.flow
    def experiment() -> float:
        sample = prepare("gold")
        return measure(heat(sample, 350.0), sample)

    return experiment()


@shape("scan.csv -> read", "read -> save", "save -> ingest")
def saved_and_ingested(lab: Lab) -> Any:
    @lab.task
    def read(path: Path) -> pd.DataFrame:
        return pd.read_csv(path)

    @lab.task
    def save(table: pd.DataFrame, folder: str) -> str:
        target = Path(folder) / "reduced.csv"
        table.to_csv(target, index=False)
        return str(target)

    @lab.task
    def ingest(path: str, retries: int = 2) -> dict[str, Any]:
        return {"size": len(Path(path).read_text()), "retries": retries}

    @lab.flow
    def saving(path: Path, folder: str) -> int:
        return int(ingest(save(read(path), folder))["size"])

    return saving(spectrum(lab), str(lab.out()))


@shape("a.txt -> concatenate", "b.txt -> concatenate", "concatenate -> checksum")
def many_files_into_one(lab: Lab) -> Any:
    @lab.task
    def concatenate(paths: list[Path], target: Path) -> Path:
        target.write_text("".join(path.read_text() for path in paths))
        return target

    @lab.task
    def checksum(path: Path) -> int:
        return sum(path.read_bytes())

    @lab.flow
    def joining(paths: list[Path], target: Path) -> int:
        return checksum(concatenate(paths, target))

    return joining([lab.file("a.txt", "1"), lab.file("b.txt", "2")], lab.folder / "all.txt")


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


@shape("measure -> convert", "convert -> report")
def units_are_converted(lab: Lab) -> Any:
    @lab.task
    def measure() -> dict[str, float]:
        return {"celsius": 26.85}

    @lab.task
    def convert(found: dict[str, float]) -> dict[str, float]:
        return {"kelvin": round(found["celsius"] + 273.15, 2)}

    @lab.task
    def report(found: dict[str, float], title: str = "T") -> str:
        return f"{title} = {found['kelvin']} K"

    @lab.flow
    def units() -> str:
        return report(convert(measure()))

    return units()


@shape(*["poll -> combine"] * 3)
def instruments_polled_at_once(lab: Lab) -> Any:
    @lab.task
    async def poll(name: str) -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"name": name, "value": len(name) * 1.5}

    @lab.task
    async def combine(found: list[dict[str, Any]]) -> float:
        return sum(one["value"] for one in found)

    @lab.flow
    async def polling() -> float:
        return await combine([await poll(name) for name in ("stage", "camera", "lamp")])

    return asyncio.run(polling())


@shape("scan.csv -> split", "split -> mean_of", "split -> mean_of")
def a_dict_of_tables(lab: Lab) -> Any:
    @lab.task
    def split(path: Path) -> dict[str, pd.DataFrame]:
        table = pd.read_csv(path)
        return {"low": table[table["q"] < 15], "high": table[table["q"] >= 15]}

    @lab.task
    def mean_of(table: pd.DataFrame) -> float:
        return round(float(table["q"].mean()), 3)

    @lab.flow
    def splitting(path: Path) -> list[float]:
        parts = split(path)
        return [mean_of(parts["low"]), mean_of(parts["high"])]

    return splitting(spectrum(lab))


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
