"""An async flow that submits and maps async tasks."""

import asyncio
from pathlib import Path

import numpy as np
from prefect import flow, task


@task
async def grow(number: int) -> np.ndarray:
    return np.arange(float(64 + number))


@task
async def shrink(values: np.ndarray) -> np.ndarray:
    return values[::2].copy()


@task
def pack(values: list) -> int:
    return sum(len(value) for value in values)


@flow
async def submitted():
    grown = grow.map([1, 2, 3])
    smaller = shrink.map(grown)
    return pack(smaller)


def main(folder: Path):
    return asyncio.run(submitted())


RETURNED = "100"
EDGES = [
    "grow -> shrink",
    "grow -> shrink",
    "grow -> shrink",
    "shrink -> pack",
    "shrink -> pack",
    "shrink -> pack",
]
