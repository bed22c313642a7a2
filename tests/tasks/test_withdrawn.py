"""A flow does not rely on its result once somebody has requested its deletion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PROGRAM = """
import sys
from pathlib import Path

from prefect import flow, task

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.tasks import CrucibleConnection, lineage, registering

data, path = Path(sys.argv[1]), Path(sys.argv[2])


@task
@lineage.options(measurement="sum")
def added(path: Path, offset: float) -> list[float]:
    print("added")
    return [sum(map(float, path.read_text().split(","))) + offset]


@flow(log_prints=False)
@registering("lab", crucible=CrucibleConnection(data=str(data)))
def summed(path: Path) -> list[float]:
    return added(path, 2.0)


path.write_text("1,2,3")
summed(path)
with Session(Settings(data)) as session:
    (made,) = session.client.datasets.list(measurement="sum")
    session.client.datasets.delete(made.unique_id, "it was wrong")
summed(path)
"""


def test_a_result_to_be_deleted_is_not_relied_on(data: Path, tmp_path: Path, prefect: Any) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    ran = prefect.python(tmp_path / "program.py", data, tmp_path / "counts.csv")
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert ran.stdout.split() == ["added", "added"], "it runs again"
    assert "has a request for deletion" in ran.stderr
