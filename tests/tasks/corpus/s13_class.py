"""Tasks as methods of a class."""

from pathlib import Path

import numpy as np
from prefect import flow, task


class Detector:
    def __init__(self, gain: float):
        self.gain = gain

    @task
    def acquire(self, size: int) -> np.ndarray:
        return np.arange(float(size)) * self.gain

    @task
    def corrected(self, frame: np.ndarray) -> np.ndarray:
        return frame / self.gain

    @flow
    def run(self, size: int):
        return self.corrected(self.acquire(size)).sum()


def main(folder: Path):
    return Detector(2.0).run(64)


RETURNED = "np.float64(2016.0)"
EDGES = ["acquire -> corrected"]
