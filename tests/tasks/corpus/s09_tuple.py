"""A task that returns several values, unpacked by the flow."""

from pathlib import Path

import pandas as pd
from prefect import flow, task


@task
def make(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"x": range(rows), "y": [2 * value + 1 for value in range(rows)]})


@task
def split(df: pd.DataFrame, share: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    at = int(len(df) * share)
    return df.iloc[:at], df.iloc[at:]


@task
def train(df: pd.DataFrame) -> dict:
    slope = (df["y"].iloc[-1] - df["y"].iloc[0]) / (df["x"].iloc[-1] - df["x"].iloc[0])
    return {"slope": float(slope), "intercept": float(df["y"].iloc[0]), "columns": ["x", "y"]}


@task
def evaluate(model: dict, df: pd.DataFrame) -> float:
    return float((df["y"] - model["slope"] * df["x"] - model["intercept"]).abs().max())


@flow
def trained():
    training, testing = split(make(50), share=0.8)
    return evaluate(train(training), testing)


def main(folder: Path):
    return trained()


RETURNED = "0.0"
EDGES = ["make -> split", "split -> train", "split -> evaluate", "train -> evaluate"]
