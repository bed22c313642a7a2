"""Dataclasses, and values that the flow itself makes."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from prefect import flow, task


@dataclass
class Description:
    rows: int
    names: list[str]


@task
def describe(table: pd.DataFrame) -> Description:
    return Description(len(table), list(table.columns))


@task
def judge(description: Description) -> bool:
    return description.rows > 10


@flow
def described():
    table = pd.DataFrame({"length": range(20), "width": range(20)})
    return judge(describe(table))


def main(folder: Path):
    return described()


RETURNED = "True"
EDGES = ["table (from the flow) -> describe", "describe -> judge"]
