"""What tests of scheduled and triggered runs share: a work pool with one worker, and ways to ask Prefect."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.pipeline.plan.raw import hash_files, register_raw
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

POOL = "lab-pool"

SELECTED = """
pipeline: selected
project: lab
inputs:
  counts: {select: {measurement: counting, data_type: raw}, each: true}
steps:
  scaled:
    uses: LABMODULE:scale
    inputs: {counts: counts}
    params: {factor: 3}
"""


class Prefect:
    """The server of the session, as a user's program or the command line sees it."""

    def __init__(self, server: Any) -> None:
        self.url = server.url
        self.environment = server.environment

    def post(self, path: str, body: Any = None) -> Any:
        answer = httpx.post(f"{self.url}/{path}", json=body or {}, timeout=60)
        assert answer.is_success, answer.text
        return answer.json()

    def run(self, code: str, *arguments: object) -> Any:
        """What the last line printed by a program says, as JSON."""
        ran = self.start(code, *arguments)
        out, err = ran.communicate(timeout=240)
        assert ran.returncode == 0, err
        return json.loads(out.splitlines()[-1])

    def start(self, code: str, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def command(self, *arguments: str, cwd: Path | None = None) -> str:
        """What `prefect ...` prints."""
        ran = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            cwd=cwd,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def deployments(self, name: str) -> list[Any]:
        found: list[Any] = self.post("deployments/filter", {"deployments": {"name": {"any_": [name]}}})
        return found

    def automations(self, name: str) -> list[Any]:
        return [found for found in self.post("automations/filter") if found["name"].startswith(f"{name} on ")]

    def events(self, prefix: str, is_meant: Callable[[Any], bool]) -> list[Any]:
        found = self.post("events/filter", {"filter": {"event": {"prefix": [prefix]}}})["events"]
        return [event for event in found if is_meant(event)]

    def runs(self, deployment_id: str, kind: str | None = None) -> list[Any]:
        """Flow runs of a deployment; of one kind, as AUTOMATION or SCHEDULE."""
        asked = {"flow_runs": {"deployment_id": {"any_": [deployment_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
        found = self.post("flow_runs/filter", asked)
        return [run for run in found if kind is None or (run["created_by"] or {}).get("type") == kind]


@pytest.fixture
def prefect(prefect_server: Any) -> Prefect:
    return Prefect(prefect_server)


@pytest.fixture(scope="session")
def pool(prefect_server: Any) -> str:
    """A work pool for processes."""
    prefect = Prefect(prefect_server)
    prefect.command("work-pool", "create", POOL, "--type", "process", "--overwrite")
    return POOL


@pytest.fixture(scope="session")
def worker(prefect_server: Any, pool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A worker of the pool, in a folder of its own."""
    folder = tmp_path_factory.mktemp("worker")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool],
            env=prefect_server.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    yield
    process.terminate()
    process.wait(60)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """The first value of `look()` that is true. Asks again until `seconds` are over."""

    def ask(look: Callable[[], Any], seconds: float = 240) -> Any:
        end = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.3)
        return found

    return ask


@pytest.fixture
def registered(data: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Registers texts as raw datasets of the project lab, and gives their ids."""

    def register(*texts: str) -> list[str]:
        folder = tmp_path / "measured"
        folder.mkdir(exist_ok=True)
        mfids = []
        with Session(Settings(data)) as session:
            session.ensure_project("lab")
            for text in texts:
                path = folder / f"{len(list(folder.iterdir()))}.txt"
                path.write_text(text)
                declared = FileInput(file=str(path), measurement="counting", data_type="raw")
                raw = hash_files("lab", [path], None, session)
                mfids.append(register_raw(raw, declared, path.name, session).mfid)
        return mfids

    return register


@pytest.fixture
def results(data: Path) -> Callable[[], dict[str, list[float]]]:
    """What the step `scale` made, by parent: one entry for each dataset that there is."""

    def read() -> dict[str, list[float]]:
        made: dict[str, list[float]] = {}
        with Session(Settings(data)) as session:
            if session.client.projects.find("lab") is None:
                return {}
            found = session.client.datasets.list(
                project_id="lab", data_type="scaled", include_metadata=True, include_links=True, limit=None
            )
            for dataset in found:
                metadata = dataset.scientific_metadata or {}
                if metadata.get("crucible_lineage", {}).get("status") != "complete":
                    continue
                (parent,) = [link.unique_id for link in dataset.links or () if link.direction == "source"]
                made.setdefault(parent, []).append(metadata["factor"])
        return made

    return read


@pytest.fixture
def selected(lab: Any) -> Path:
    """A pipeline that scales each raw dataset of the project."""
    path: Path = lab.declare(SELECTED, "selected.yaml")
    return path
