"""A thread pool of two workers as the flow's task runner."""

from pathlib import Path

import numpy as np
from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner


@task
def tile(number: int) -> np.ndarray:
    return np.full((8, 8), float(number)) + np.eye(8)


@task
def stitch(tiles: list) -> np.ndarray:
    return np.concatenate(tiles)


@flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
def stitched():
    tiles = [tile.submit(number) for number in range(6)]
    return stitch.submit(tiles).result().shape


def main(folder: Path):
    return stitched()


RETURNED = "(48, 8)"
EDGES = [
    "tile -> stitch",
    "tile -> stitch",
    "tile -> stitch",
    "tile -> stitch",
    "tile -> stitch",
    "tile -> stitch",
]
