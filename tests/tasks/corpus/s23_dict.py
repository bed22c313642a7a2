"""A dict of tables as a result, one of which is used."""

from pathlib import Path

import pandas as pd
from prefect import flow, task


@task
def sheets() -> dict[str, pd.DataFrame]:
    return {"first": pd.DataFrame({"a": range(9)}), "second": pd.DataFrame({"b": range(5)})}


@task
def use_one(sheet: pd.DataFrame) -> int:
    return int(sheet.iloc[:, 0].sum())


@flow
def workbook():
    return use_one(sheets()["second"])


def main(folder: Path):
    return workbook()


RETURNED = "10"
EDGES = [
    "sheets -> use_one",
]
