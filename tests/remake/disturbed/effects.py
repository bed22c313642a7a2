"""Steps, each of which one thing of its surroundings changes."""

from __future__ import annotations

import json
import locale
import os
import sys
import time
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from labkit.smoothing import smooth

from crucible_lineage import step

HERE = Path(__file__).parent
GAIN = 1.5
UNIT = "counts"
TIMES = 10


class Scaling:
    """How counts are scaled."""

    def scaled(self, value: float) -> float:
        """Return a value, scaled."""
        return value * GAIN


def heights(scan: Path) -> list[float]:
    """Read the heights of a scan."""
    return [float(line.split(",")[1]) for line in scan.read_text().split()[1:]]


@step
def smoothed(scan: Path, *, out: Path) -> dict[str, Any]:
    """By a constant, and a helper two imports away."""
    (out / "smoothed.txt").write_text(repr(smooth([Scaling().scaled(y) for y in heights(scan)]) * TIMES) + UNIT)
    return {}


@step(reads=["response.dat"])
def responded(scan: Path, *, out: Path) -> dict[str, Any]:
    """By a file of data."""
    response = float((HERE / "response.dat").read_text().split()[0])
    (out / "responded.txt").write_text(repr([y * response for y in heights(scan)]))
    return {}


@step
def summed(scan: Path, *, out: Path) -> dict[str, Any]:
    """As threads sum: each its part, and then the parts; `sum` rounds once from Python 3.12 on."""
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    values = [y / (7 + number) for number in range(200) for y in heights(scan)]
    total = reduce(add, (reduce(add, values[part::threads]) for part in range(threads)))
    (out / "sum.txt").write_text(repr(total))
    return {}


@step
def multiplied(scan: Path, *, out: Path) -> dict[str, Any]:
    """By the linear algebra of NumPy."""
    import numpy as np

    values = np.outer(np.sqrt(np.arange(1.0, 301.0)), np.resize(heights(scan), 300)) / 3
    np.save(out / "product.npy", values @ values.T)
    return {}


@step
def shown(scan: Path, *, out: Path) -> dict[str, Any]:
    """As NumPy writes a number."""
    import numpy as np

    (out / "shown.txt").write_text(repr([np.float64(y) for y in heights(scan)]))
    return {}


@step
def plotted(scan: Path, *, out: Path) -> dict[str, Any]:
    """With the usual font of matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2), dpi=80)
    figure.add_subplot(title="Raman shift").plot(heights(scan))
    figure.savefig(out / "plotted.png", metadata={"Software": None})
    return {}


@step
def located(scan: Path, *, out: Path) -> dict[str, Any]:
    """By the locale."""
    (out / "located.txt").write_text(f"{locale.setlocale(locale.LC_CTYPE, '')} {len(heights(scan))}")
    return {}


@step
def timed(scan: Path, *, out: Path) -> dict[str, Any]:
    """By the time zone."""
    (out / "timed.txt").write_text(time.strftime("%H:%M", time.localtime(86400 * len(heights(scan)))))
    return {}


@step
def by_python(scan: Path, *, out: Path) -> dict[str, Any]:
    """By the version of Python."""
    (out / "python.txt").write_text(f"{len(heights(scan))} {sys.version_info[:2]}")
    return {}


@step
def unordered(scan: Path, *, out: Path) -> dict[str, Any]:
    """In the order of a set of texts."""
    rows = {f"row {y}" for y in heights(scan)}
    (out / "rows.txt").write_text("".join(f"{row}\n" for row in rows))
    return {}


@step
def placed(scan: Path, *, out: Path) -> dict[str, Any]:
    """By a variable that nothing records."""
    (out / "placed.txt").write_text(f"{os.environ.get('LAB_SITE', 'nowhere')} {len(heights(scan))}")
    return {}


@step
def dated(scan: Path, *, out: Path) -> dict[str, Any]:
    """With the time, which does not count."""
    said = {"created_at": time.time_ns(), "heights": heights(scan)}
    (out / "dated.json").write_text(json.dumps(said))
    return {}


@step
def packed(scan: Path, *, kind: str, out: Path) -> dict[str, Any]:
    """As a package writes it, which is another one in another version."""
    import labtools

    labtools.write(kind, heights(scan), out)
    return {}


@step
def all_of_them(parts: list[Path], *, out: Path) -> dict[str, Any]:
    """From all results, so that one bundle has them all."""
    (out / "all.txt").write_text(str(len(parts)))
    return {}
