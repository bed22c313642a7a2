"""A flow runs while Crucible is unreachable, or is killed: its results wait in the outbox for the next flow run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.ask.verify import verify_project
from crucible_lineage.pipeline.job.delivering import delivery_context
from crucible_lineage.registration.deliver import deliver_now
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.crash.conftest import Misbehaving, service
from tests.serving import RunningServer

__all__ = ["service"]  # a fixture

FLOW = """
import json, os, signal, sys
from pathlib import Path

import pandas as pd
from prefect import flow, task

from crucible_lineage.tasks import CrucibleConnection, registering
from crucible_lineage.tasks import recording

recording.LAST_WAIT_S = 0.5  # and not ten: nobody comes

data, path, undelivered, number = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

@task
def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)

@task
def scale(table: pd.DataFrame, by: int) -> pd.DataFrame:
    return table * by

@task
def total(table: pd.DataFrame) -> int:
    return int(table.sum().x)

@task
def note(text: str) -> dict:
    return {"text": text}

crucible = CrucibleConnection(data=data, api_url=os.environ["CRUCIBLE_API_URL"])

@flow
@registering("lab", crucible=crucible, undelivered=undelivered.replace("killed", "warn"))
def process(path: Path, by: int) -> int:
    note("begun")
    found = total(scale(read(path), by))
    if undelivered == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return found

state = process(path, number, return_state=True)
print(json.dumps([state.name, state.result(raise_on_failure=False) if state.is_completed() else str(state.message)]))
"""


@pytest.fixture
def away(service: RunningServer) -> Iterator[Any]:
    """Provide a connection to the service that can be closed and opened."""
    proxy = Misbehaving(service.url.removeprefix("http://").partition("/")[0], 1, 0.0, ())
    yield proxy
    proxy.close()


def test_a_flow_runs_while_crucible_is_away(tmp_path: Path, service: RunningServer, away: Any, prefect: Any) -> None:
    data, path = tmp_path / "data", tmp_path / "scan.csv"
    path.write_text("x\n" + "\n".join(map(str, range(40))))

    def run(number: int, undelivered: str = "warn", url: str = "") -> tuple[Any, str]:
        environment = {
            "CRUCIBLE_API_URL": url or away.url,
            "CRUCIBLE_API_KEY": service.api_key,
            "CRUCIBLE_LINEAGE_RETRY_SECONDS": "0.2",
        }
        ran = prefect.python("-c", FLOW, data, path, undelivered, number, **environment)
        if undelivered == "killed":
            assert ran.returncode == -9
            return None, ran.stderr
        assert ran.returncode == 0, ran.stderr[-3000:]
        return json.loads(ran.stdout.splitlines()[-1]), ran.stderr

    def listed() -> dict[str, list[str]]:
        with Session(Settings(tmp_path / "other", service.url, service.api_key)) as session:
            found = session.client.datasets.list(project_id="lab", include_links=True, limit=None)
            names = {dataset.unique_id: str(dataset.dataset_name) for dataset in found}
            return {
                str(dataset.dataset_name): sorted(
                    names.get(link.unique_id, "?") for link in dataset.links or () if link.direction == "source"
                )
                for dataset in found
            }

    assert run(1)[0] == ["Completed", 780]  # from now on it is known whose key this is
    before = listed()
    away.away_after("GET", "")
    answer, err = run(2)
    assert answer == ["Completed", 1560], (answer, err[-3000:])
    assert "in the outbox: " in err
    assert listed() == before
    assert run(3, "fail")[0][0] == "Failed"
    away.back()
    assert run(4)[0] == ["Completed", 3120]
    made = listed()
    names = {name for name in made if name not in before}
    assert {"scan.csv (scale [2])", "scan.csv (scale [3])", "scan.csv (scale [4])"} <= names
    assert made["scan.csv (scale [2])"] != []
    assert "?" not in {parent for parents in made.values() for parent in parents}
    with Session(Settings(tmp_path / "other", service.url, service.api_key)) as session:
        names_of = [dataset.dataset_name for dataset in session.client.datasets.list(project_id="lab", limit=None)]
    assert names_of.count("scan.csv") == 1  # the files that the service had are not registered again
    assert names_of.count("note [begun]") == 1

    run(5, "killed")
    assert run(4)[0] == ["Completed", 3120]
    with Session(Settings(tmp_path / "other", service.url, service.api_key)) as session:
        names_of = [dataset.dataset_name for dataset in session.client.datasets.list(project_id="lab", limit=None)]
        assert verify_project(session, "lab").ok
    assert [names_of.count(f"scan.csv (scale [{number}])") for number in (4, 5)] == [1, 1]


SWEEP = """
import os, sys
from prefect import flow, task
from crucible_lineage.errors import UnreachableError
from crucible_lineage.registration.deliver import DeliveryContext
from crucible_lineage.tasks import CrucibleConnection, recording, registering

recording.LAST_WAIT_S = 2.0
data, *factors = sys.argv[1:]
crucible = CrucibleConnection(data=data, api_url=os.environ["CRUCIBLE_API_URL"])

@task
def note(text: str) -> dict:
    return {"text": text}

@task
def scaled(of: dict, by: int) -> dict:
    return {"by": by}

def register(context, new, stages):
    if "[2]" in new.name:
        raise UnreachableError("away")
    return registered(context, new, stages)

registered, DeliveryContext.register = DeliveryContext.register, register

@flow
@registering("lab", crucible=crucible)
def sweep() -> None:
    begun = note("begun")
    for by in map(int, factors):
        scaled(begun, by)

sweep()
"""


def test_a_reused_result_stays_current_beside_one_that_waits_at_the_end(
    tmp_path: Path, service: RunningServer, prefect: Any
) -> None:
    data = tmp_path / "data"
    for factors in ([1], [1, 2]):
        where = {"CRUCIBLE_API_URL": service.url, "CRUCIBLE_API_KEY": service.api_key}
        ran = prefect.python("-c", SWEEP, data, *factors, **where)
        assert ran.returncode == 0, ran.stderr[-3000:]
    with Session(Settings(data, service.url, service.api_key)) as session:
        (waiting,) = session.outbox.waiting()
        deliver_now(delivery_context(session, session.client), waiting)
        found = [(entry.summary.step, entry.state) for entry in list_datasets(session, "lab", every=True).entries]
    assert [state for step, state in found if step == "scaled"] == ["current", "current"]
