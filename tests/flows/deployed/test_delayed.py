"""A task that a flow hands to a task worker with `.delay`: its result is registered from there, with its parents."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.eventually import eventually

FLOW = """
import os, sys

import pandas as pd
from prefect import flow, task
from prefect.task_worker import serve

from crucible_lineage.tasks import CrucibleConnection, registering

@task
def make(size: int) -> pd.DataFrame:
    return pd.DataFrame({"x": range(size)})

@task(persist_result=True)
def double(table: pd.DataFrame) -> pd.DataFrame:
    return table * 2

@registering(project="lab", crucible=CrucibleConnection(data=os.environ["LAB_DATA"]))
@flow
def delayed():
    double.delay(make(3)).wait(timeout=120)

if __name__ == "__main__":
    delayed() if sys.argv[1:] else serve(double)
"""


def test_what_a_task_worker_makes_is_registered(tmp_path: Path, data: Path, prefect: Any, warm_python: Any) -> None:
    program = tmp_path / "delayed.py"
    program.write_text(FLOW)
    environment = {**prefect.environment, "LAB_DATA": str(data), "PREFECT_LOGGING_LEVEL": "INFO"}
    log = tmp_path / "worker.log"
    worker = warm_python.start([str(program)], environment, log, log, tmp_path)
    try:
        eventually(lambda: "Subscribing to runs" in log.read_text(), 120)
        ran = warm_python.run([str(program), "flow"], environment, tmp_path)
        assert ran.returncode == 0, ran.stderr
        eventually(lambda: "Finished in state Completed" in log.read_text(), 60)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
    with Session(Settings(data)) as session:
        found = session.client.datasets.list(project_id="lab", include_links=True, limit=None)
    (made,) = [dataset for dataset in found if dataset.dataset_name == "make [3]"]
    (doubled,) = [dataset for dataset in found if str(dataset.dataset_name).endswith("(double)")]
    assert [link.unique_id for link in doubled.links or () if link.direction == "source"] == [made.unique_id]
    assert [*(data / "flows").iterdir()] == []
