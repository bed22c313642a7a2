"""Tasks mapped over a list, and mapped again over their futures."""

from pathlib import Path

import numpy as np
from prefect import flow, task


@task
def measure(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=50)


@task
def square(values: np.ndarray) -> np.ndarray:
    return values**2


@task
def total(parts: list[np.ndarray]) -> float:
    return float(sum(part.sum() for part in parts))


@flow
def mapped(count: int):
    raw = measure.map(range(count))
    squared = square.map(raw)
    return total(squared)


def main(folder: Path):
    return mapped(4)


RETURNED = "188.9413371579276"
EDGES = [
    "measure -> square",
    "measure -> square",
    "measure -> square",
    "measure -> square",
    "square -> total",
    "square -> total",
    "square -> total",
    "square -> total",
]
