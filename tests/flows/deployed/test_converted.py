"""A converted flow under what Prefect offers for operating flows, by Prefect's own commands.

The first test runs every time; all do with CRUCIBLE_NIGHTLY=1.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.eventually import eventually
from tests.nights import by_night

POOL = "lab-pool"
nightly = by_night("seconds each")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="files and signals")

MODULE = """
import time
from pathlib import Path

from prefect import flow, task
from prefect.flow_runs import suspend_flow_run
from crucible_lineage.tasks import CrucibleConnection, registering

HERE = Path(__file__).parent


@task
def read(path: str) -> list[int]:
    return [int(line) for line in Path(path).read_text().split()]


@task
def total(values: list[int]) -> int:
    return sum(values)


@flow
DECORATOR
def process(path: str) -> int:
    return total(read(path))


@flow
DECORATOR
def interrupted(path: str) -> int:
    values = read(path)
    (HERE / "arrived").touch()
    if not (HERE / "open").exists():
        suspend_flow_run(timeout=600)
    return total(values)


@flow
DECORATOR
def long(path: str) -> int:
    values = read(path)
    (HERE / "arrived").touch()
    time.sleep(120)
    return total(values)
"""


class Converted:
    """A folder with converted flows, and the datasets that the converted ones registered."""

    def __init__(self, folder: Path, prefect: Any) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.prefect = prefect
        self.name = f"lab_{abs(hash(str(folder))) % 10**8}"
        self.file = folder / f"{self.name}.py"
        decorator = f"@registering('lab', crucible=CrucibleConnection(data={str(self.data)!r}))"
        self.file.write_text(MODULE.replace("DECORATOR", decorator))
        self.counts = folder / "counts.txt"
        self.counts.write_text("1\n2\n6\n")

    def deploy(self, flow: str) -> str:
        """Run `prefect deploy` and return FLOW/NAME."""
        self.prefect.command("deploy", f"{self.file.name}:{flow}", "--name", self.name, "--pool", POOL, cwd=self.folder)
        return f"{flow}/{self.name}"

    def begin(self, deployment: str, *options: str) -> str:
        """Run `prefect deployment run` and return the id of the run."""
        output = self.prefect.command("deployment", "run", deployment, "--param", f"path={self.counts}", *options)
        return re.findall(r"UUID: ([0-9a-f-]{36})|runs/flow-run/([0-9a-f-]{36})", output)[0][0] or _last(output)

    def state(self, run: str) -> str:
        (found,) = self.prefect.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return str((found["state"] or {}).get("name"))

    def edges(self) -> list[str]:
        """Return parents and children by the names of their tasks and files; one without either alone."""
        with Session(Settings(self.data)) as session:
            client = session.client
            if client.projects.find("lab") is None:
                return []
            found = client.datasets.list(project_id="lab", include_metadata=True, limit=None)
            names = {
                dataset.unique_id: (dataset.scientific_metadata or {}).get("flow", {}).get("task")
                or str(dataset.dataset_name)
                for dataset in found
            }
            links = [
                (names[parent.unique_id], names[mfid])
                for mfid in names
                for parent in client.datasets.list_parents(mfid)
            ]
            linked = {name for link in links for name in link}
            return sorted([*(f"{parent} -> {child}" for parent, child in links), *(set(names.values()) - linked)])


WHOLE = ["counts.txt -> read", "read -> total"]


def _last(output: str) -> str:
    return re.findall(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", output)[-1]


@pytest.fixture
def converted(tmp_path: Path, prefect: Any) -> Converted:
    return Converted(tmp_path, prefect)


@pytest.mark.usefixtures("worker")
def test_prefect_deploy(converted: Converted) -> None:
    converted.begin(converted.deploy("process"), "--watch")
    assert converted.edges() == WHOLE


@nightly
@pytest.mark.usefixtures("worker")
def test_a_run_that_is_suspended_goes_on_and_registers_once(converted: Converted) -> None:
    run = converted.begin(converted.deploy("interrupted"))
    eventually(lambda: converted.state(run) == "Suspended", 120)
    eventually(lambda: converted.edges() == WHOLE[:1], 60)  # what was made before is registered
    (converted.folder / "open").touch()
    converted.prefect.post(f"flow_runs/{run}/resume")
    eventually(lambda: converted.state(run) == "Completed", 120)
    assert converted.edges() == WHOLE


@nightly
@pytest.mark.usefixtures("worker")
def test_a_run_that_is_cancelled_at_once_keeps_what_it_has_made(converted: Converted) -> None:
    run = converted.begin(converted.deploy("long"))
    eventually((converted.folder / "arrived").exists, 120)
    converted.prefect.command("flow-run", "cancel", run)
    eventually(lambda: converted.state(run) == "Cancelled", 120)
    assert converted.edges() == WHOLE[:1]
