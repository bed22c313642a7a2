"""Shared parts of tests of scheduled and triggered runs: a work pool with a worker, Prefect's API."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.plan.files import hash_files, raw_files, register_raw
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.warm import WarmPython

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


@pytest.fixture(scope="session")
def pool(prefect_server: Any, prefect: Any) -> str:
    """Create a work pool for processes."""
    prefect.post("work_pools/", {"name": POOL, "type": "process"})
    return POOL


@pytest.fixture(scope="session")
def worker(
    prefect_server: Any, warm_python: WarmPython, pool: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Start a worker of the pool, in a separate folder."""
    folder = tmp_path_factory.mktemp("worker")
    words, log = ["-m", "prefect", "worker", "start", "--pool", pool], folder / "log"
    process = warm_python.start(words, prefect_server.environment, log, log, folder)
    yield
    process.send_signal(signal.SIGTERM)
    process.wait(60)


@pytest.fixture
def registered(data: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Provide a function that registers texts as raw datasets of the project lab and returns their ids."""

    def register(*texts: str) -> list[str]:
        folder = tmp_path / "measured"
        folder.mkdir(exist_ok=True)
        mfids = []
        with Session(Settings(data)) as session:
            session.ensure_project("lab")
            for text in texts:
                path = folder / f"{len(list(folder.iterdir()))}.txt"
                path.write_text(text)
                declared = FileInput(file=(str(path),), measurement="counting", data_type="raw", ingest=False)
                raw = raw_files("lab", hash_files([path], session))
                mfids.append(register_raw(raw, declared, path.name, session).mfid)
        return mfids

    return register


@pytest.fixture
def results(data: Path) -> Callable[[], dict[str, list[float]]]:
    """Provide a function that lists the results of the step `scale` by parent, one entry for each dataset."""

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
    """Provide a pipeline that scales each raw dataset of the project."""
    path: Path = lab.declare(SELECTED, "selected.yaml")
    return path
