"""Tasks with a cache policy, as the documentation of caching has them."""

from datetime import timedelta
from pathlib import Path

import numpy as np
from prefect import flow, task
from prefect.cache_policies import INPUTS, TASK_SOURCE


@task
def load_image() -> np.ndarray:
    return np.linspace(0, 1, 400).reshape(20, 20)


@task(cache_policy=INPUTS + TASK_SOURCE, cache_expiration=timedelta(days=1))
def expensive(image: np.ndarray, sigma: float) -> np.ndarray:
    return image * sigma


@flow
def cached():
    return expensive(load_image(), 2.5).sum()


def main(folder: Path):
    return cached()


RETURNED = "np.float64(500.0)"
EDGES = ["load_image -> expensive"]
