"""Async tasks in an async flow, gathered."""

import asyncio
from pathlib import Path

import numpy as np
from prefect import flow, task


@task
async def fetch(number: int) -> np.ndarray:
    await asyncio.sleep(0)
    return np.arange(100.0) + number


@task
async def clean(values: np.ndarray) -> np.ndarray:
    return values - values.mean()


@task
async def combine(arrays: list[np.ndarray]) -> dict:
    return {"sum": float(sum(array.sum() for array in arrays)), "arrays": len(arrays)}


@flow
async def gathered(count: int):
    arrays = await asyncio.gather(*[fetch(number) for number in range(count)])
    cleaned = await asyncio.gather(*[clean(array) for array in arrays])
    return await combine(cleaned)


def main(folder: Path):
    return asyncio.run(gathered(3))


RETURNED = "{'sum': 0.0, 'arrays': 3}"
EDGES = [
    "fetch -> clean",
    "fetch -> clean",
    "fetch -> clean",
    "clean -> combine",
    "clean -> combine",
    "clean -> combine",
]
