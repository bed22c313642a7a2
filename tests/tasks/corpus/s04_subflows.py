"""A flow that calls another flow and hands its result on."""

from pathlib import Path

import pandas as pd
from prefect import flow, task


@task
def read() -> pd.DataFrame:
    return pd.DataFrame({"a": [3.0, 1.0, 2.0] * 10})


@task
def normalise(df: pd.DataFrame) -> pd.DataFrame:
    return df / df.max()


@task
def report(df: pd.DataFrame) -> str:
    return f"{len(df)} rows, highest {df['a'].max():.2f}"


@flow
def preparation(df: pd.DataFrame) -> pd.DataFrame:
    return normalise(df)


@flow
def outer():
    return report(preparation(read()))


def main(folder: Path):
    return outer()


RETURNED = "'30 rows, highest 1.00'"
EDGES = [
    "read -> normalise",
    "normalise -> report",
]
