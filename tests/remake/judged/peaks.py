"""Steps of a laboratory, of each kind that can be made again, or cannot."""

from __future__ import annotations

import csv
import json
import random
import time
import urllib.request
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from labkit.smoothing import smooth

from crucible_lineage import Facts, step

HERE = Path(__file__).parent
GAIN = 1.5


class Unit(Enum):
    """Unit of a result."""

    COUNTS = "counts"
    RATE = "rate"


@dataclass
class Window:
    """Range of a scan."""

    low: float
    high: float


def table(path: Path) -> list[tuple[float, float]]:
    """Read a scan."""
    with path.open(newline="") as stream:
        return [(float(row["x"]), float(row["y"])) for row in csv.DictReader(stream)]


@step(data_type="smoothed")
def smoothed(scan: Path, *, out: Path) -> dict[str, Any]:
    """By a package, two imports away."""
    values = smooth([y * GAIN for _, y in table(scan)])
    (out / "smoothed.csv").write_text("y\n" + "".join(f"{value!r}\n" for value in values))
    return {"mean": sum(values) / len(values)}


@step
def drawn_lots(scan: Path, *, seed: int, count: int = 4, out: Path) -> dict[str, Any]:
    """By random numbers of a seed."""
    source = random.Random(seed)
    lots = [source.choice(table(scan)) for _ in range(count)]
    (out / "lots.json").write_text(json.dumps(lots))
    return {"seed": seed}


@step
def typed(
    scan: Path, *, unit: Unit = Unit.COUNTS, window: Window, powers: tuple[int, ...] = (1,), facts: Facts, out: Path
) -> dict[str, Any]:
    """By parameters of all kinds, and by facts."""
    values = [y for x, y in table(scan) if window.low <= x <= window.high]
    (out / "typed.txt").write_text(f"{unit.value} {[value**power for value in values for power in powers]}")
    return {"name": facts.one("scan").name, "exposure": facts.one("scan").metadata["exposure_s"]}


@step
def grouped(rows: list[Path], *, title: str, out: Path) -> dict[str, Any]:
    """From all of a group, in their order."""
    (out / "grouped.txt").write_text("\n".join([title, *(path.read_text() for path in rows)]))
    return {"files": len(rows)}


@step
def stored(scan: Path, *, out: Path) -> dict[str, Any]:
    """Into HDF5, with the time in an attribute."""
    import h5py
    import numpy as np

    values = np.array(table(scan))
    with h5py.File(out / "stored.h5", "w") as file:
        file.create_dataset("scan/y", data=np.exp(values[:, 1]), compression="gzip", chunks=True)
        file["scan"].attrs["created_at"] = str(time.time_ns())
    return {"rows": len(values)}


@step
def plotted(scan: Path, *, out: Path) -> dict[str, Any]:
    """Into a picture, and into one that is returned."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2), dpi=80)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(*zip(*table(scan), strict=True))
    axes.set_title("counts")
    figure.savefig(out / "plotted.png")
    return {"shown": figure}


@step
def dated_picture(scan: Path, *, out: Path) -> dict[str, Any]:
    """Into a picture whose bytes say when it was made."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1), dpi=60)
    figure.add_subplot().plot([y for _, y in table(scan)])
    figure.savefig(out / "dated.png", metadata={"Creation Time": str(time.time_ns())})
    return {}


@step
def wavering(scan: Path, *, out: Path) -> dict[str, Any]:
    """Other numbers each time, by less than a part in 10^12."""
    total = sum(y for _, y in table(scan)) * (1 + random.randint(1, 9000) * 2.0**-52)
    (out / "wavering.txt").write_text(repr(total))
    return {}


@step
def unnamed_file(scan: Path, *, out: Path) -> dict[str, Any]:
    """By a file that nothing names."""
    factor = float((HERE / "forgotten.dat").read_text())
    (out / "unnamed.txt").write_text(repr(factor * len(table(scan))))
    return {}


@step
def asked(scan: Path, *, address: str, out: Path) -> dict[str, Any]:
    """By what a service answers."""
    with urllib.request.urlopen(address, timeout=5) as answer:
        (out / "asked.txt").write_bytes(answer.read())
    return {"rows": len(table(scan))}


@step
def vaulted(scan: Path, *, out: Path) -> dict[str, Any]:
    """By a helper whose source is not kept."""
    import vault

    (out / "vaulted.txt").write_text(repr(vault.weight() * len(table(scan))))
    return {}


@step
def at_import(scan: Path, *, out: Path) -> dict[str, Any]:
    """By a module that reads a file when it is imported."""
    import offsets

    (out / "offset.txt").write_text(repr(offsets.OFFSET * len(table(scan))))
    return {}
