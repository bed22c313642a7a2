"""Labelled arrays."""

from pathlib import Path

import numpy as np
import xarray as xr
from prefect import flow, task


@task
def cube() -> xr.Dataset:
    return xr.Dataset({"t": (("time", "x"), np.arange(60.0).reshape(6, 10))}, coords={"x": np.arange(10)})


@task
def mean_over_time(data: xr.Dataset) -> xr.DataArray:
    return data["t"].mean("time")


@flow
def labelled():
    return float(mean_over_time(cube()).sum())


def main(folder: Path):
    return labelled()


RETURNED = "295.0"
EDGES = ["cube -> mean_over_time"]
