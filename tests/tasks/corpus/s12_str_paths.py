"""Paths as text, and a task that returns nothing but writes."""

from pathlib import Path

import pandas as pd
from prefect import flow, task


@task
def convert(source: str, target: str) -> None:
    pd.read_csv(source).to_json(target)


@task
def check_file(path: str) -> int:
    return len(Path(path).read_text())


@flow
def by_name(source: str, target: str):
    convert(source, target)
    return check_file(target)


def main(folder: Path):
    source = folder / "counts.csv"
    source.write_text("x,y\n1,2\n3,4\n")
    return by_name(str(source), str(folder / "counts.json"))


RETURNED = "37"
EDGES = ["counts.csv -> convert", "convert -> check_file"]
