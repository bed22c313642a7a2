"""A generator task: each item that it yields is used."""

from pathlib import Path

import numpy as np
from prefect import flow, task


@task
def frames(count: int):
    for number in range(count):
        yield np.full((16, 16), float(number)) + np.eye(16)


@task
def brightness(frame: np.ndarray) -> float:
    return float(frame.mean())


@flow
def movie():
    return [brightness(frame) for frame in frames(3)]


def main(folder: Path):
    return movie()


RETURNED = "[0.0625, 1.0625, 2.0625]"
EDGES = ["frames -> brightness", "frames -> brightness", "frames -> brightness"]
