"""A flow whose tasks register what they give, with a step of a module in it: `python flow.py`."""

from pathlib import Path

import peaks
from prefect import flow, task

from crucible_lineage.tasks import registering


@task
def heights(path: Path) -> list[float]:
    """Read the heights of a scan."""
    return [y for _, y in peaks.table(path)]


@task
def times(values: list[float], factor: float) -> list[float]:
    """Multiply all."""
    return [value * factor for value in values]


@flow
@registering(project="lab")
def process(path: Path) -> None:
    """Read, multiply, and smooth."""
    times(heights(path), 3.0)
    peaks.smoothed(path)


process(Path("scan.csv"))
