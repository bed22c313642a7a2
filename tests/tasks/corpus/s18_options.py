"""Names, tags, with_options, and a function of the flow's own between tasks."""

from pathlib import Path

import pandas as pd
from prefect import flow, tags, task


@task(name="load", tags=["raw"], task_run_name="load-{rows}")
def load_table(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"v": range(rows)})


@task(name="scale")
def scale(value: pd.DataFrame, by: int = 2) -> pd.DataFrame:
    return value * by


def add_column(table: pd.DataFrame) -> None:
    table["w"] = table["v"] + 1


@flow(flow_run_name="options")
def options():
    with tags("tagged"):
        table = scale(load_table(25))
    add_column(table)
    return scale.with_options(name="scale by ten")(table, by=10)["w"].max()


def main(folder: Path):
    return options()


RETURNED = "np.int64(490)"
EDGES = ["load -> scale", "scale -> value (changed)", "value (changed) -> scale by ten"]
