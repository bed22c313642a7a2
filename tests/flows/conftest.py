"""What tests of scheduled and triggered runs share: a work pool with one worker, and ways to ask Prefect."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.pipeline.inputs.existing import hash_files
from crucible_lineage.pipeline.inputs.register import register_raw
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


@pytest.fixture(scope="session")
def pool(prefect_server: Any, prefect_program: Any) -> str:
    """A work pool for processes."""
    prefect_program.command("work-pool", "create", POOL, "--type", "process", "--overwrite")
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
                declared = FileInput(file=str(path), measurement="counting", data_type="raw", ingest=False)
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
