"""A figure, drawn from a Series."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import pandas as pd
from matplotlib.figure import Figure
from prefect import flow, task


@task
def series() -> pd.Series:
    return pd.Series([1.0, 4.0, 9.0] * 20, name="intensity")


@task
def plot(values: pd.Series) -> Figure:
    figure = Figure()
    figure.subplots().plot(values)
    return figure


@flow
def drawn():
    figure = plot(series())
    return type(figure).__name__


def main(folder: Path):
    return drawn()


RETURNED = "'Figure'"
EDGES = ["series -> plot"]
