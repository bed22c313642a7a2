"""A flow over one file put on hold, and then its result to be deleted: `held_flow.py DATA FOLDER`; prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from prefect import flow, task

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.statements.statements import HOLD, About
from crucible_lineage.statements.stating import lift, state
from crucible_lineage.tasks import CrucibleConnection, lineage, registering

DATA, FOLDER = map(Path, sys.argv[1:])


@task
def scaled(path: Path, factor: float) -> list[float]:
    """Return the numbers of a file, scaled."""
    return [float(line) * factor for line in path.read_text(encoding="utf-8").split()]


@task
@lineage.options(measurement="sum")
def total(values: list[float]) -> float:
    """Return their sum."""
    return sum(values)


@flow
@registering("lab", crucible=CrucibleConnection(data=str(DATA)))
def summed(path: Path, factor: float) -> float:
    """Scale and sum."""
    return total(scaled(path, factor))


def main() -> None:
    """Print the flow's results: free, on hold, free again, and to be deleted."""
    path = FOLDER / "counts.txt"
    path.write_text("1\n2\n", encoding="utf-8")
    answers: list[object] = [summed(path, 2.0)]
    with Session(Settings(DATA)) as session:
        (raw,) = (
            dataset
            for dataset in session.client.datasets.list(project_id="lab")
            if dataset.dataset_name == "counts.txt"
        )
        state(session, "lab", HOLD, About((raw.unique_id,)), why="the lamp was off")
    try:
        answers.append(summed(path, 3.0))
    except Exception as error:
        answers.append(f"{type(error).__name__}: {error}".replace(raw.unique_id, "MFID"))
    with Session(Settings(DATA)) as session:
        lift(session, [raw.unique_id], "it was on")
    answers.append(summed(path, 4.0))
    with Session(Settings(DATA)) as session:
        for made in session.client.datasets.list(measurement="sum"):
            session.client.datasets.delete(made.unique_id, "it was wrong")
    answers.append(summed(path, 4.0))
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
