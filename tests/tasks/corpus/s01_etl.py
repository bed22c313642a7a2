"""Extract, transform, load: three tasks in a row, with a DataFrame and a file."""

from pathlib import Path

import pandas as pd
from prefect import flow, task


@task(retries=3, retry_delay_seconds=1)
def extract(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"x": range(rows), "y": [value * 0.5 for value in range(rows)]})


@task
def transform(df: pd.DataFrame, factor: float = 2.0) -> pd.DataFrame:
    return df.assign(z=df["y"] * factor)


@task
def load(df: pd.DataFrame, path: Path) -> None:
    df.to_csv(path, index=False)


@flow(name="ETL", log_prints=True)
def etl(folder: Path):
    df = extract(30)
    better = transform(df)
    load(better, folder / "table.csv")
    print(f"loaded {len(better)} rows")
    return better["z"].sum()


def main(folder: Path):
    return etl(folder)


RETURNED = "np.float64(435.0)"
EDGES = ["extract -> transform", "transform -> load"]
