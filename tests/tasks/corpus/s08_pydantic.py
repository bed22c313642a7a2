"""Pydantic models as parameters and results."""

from pathlib import Path

from prefect import flow, task
from pydantic import BaseModel


class Settings(BaseModel):
    degree: int = 2
    window: tuple[int, int] = (0, 10)


class Spectrum(BaseModel):
    energies: list[float]
    counts: list[float]


class Fit(BaseModel):
    slope: float
    settings: Settings


@task
def acquire(points: int) -> Spectrum:
    return Spectrum(energies=[i * 0.1 for i in range(points)], counts=[float(i % 7) for i in range(points)])


@task
def fit(spectrum: Spectrum, settings: Settings) -> Fit:
    return Fit(slope=sum(spectrum.counts) / len(spectrum.counts), settings=settings)


@task
def grade(result: Fit) -> str:
    return "good" if result.slope < 5 else "bad"


@flow
def fitted(points: int, settings: Settings):
    return grade(fit(acquire(points), settings))


def main(folder: Path):
    return fitted(40, Settings(degree=3))


RETURNED = "'good'"
EDGES = ["acquire -> fit", "fit -> grade"]
