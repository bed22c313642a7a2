"""Runs of two machines while a worker merges back older metadata: nothing is undone or made again."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.verify import verify_project
from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import CrucibleError
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.runs import run as run_file
from tests.serving import RunningServer
from tests.written_back import writing_back

HISTORIES = int(os.environ.get("WRITTEN_BACK_HISTORIES", "4"))  # `make crash` tries 200
FACTORS = (2, 3, 5, 7, 11)


class Worker(threading.Thread):
    """Reads datasets with all their metadata, waits, and merges the whole copies back."""

    def __init__(self, server: RunningServer, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self._client = CrucibleClient(server.url, server.api_key)
        self._chance = chance
        self._ends = threading.Event()
        self.written = 0

    def run(self) -> None:
        held: list[tuple[float, str, dict[str, Any]]] = []
        while not self._ends.is_set() or held:
            with suppress(CrucibleError):
                if not self._ends.is_set():
                    page = self._client.request("GET", "/datasets", params={"include_metadata": True, "limit": 20})
                    for item in page["items"]:
                        if item["scientific_metadata"] and self._chance.random() < 0.3:
                            wait_s = self._chance.choice([0.0, 0.02, 0.1, 0.4])
                            held.append((time.monotonic() + wait_s, item["unique_id"], item["scientific_metadata"]))
                for due, mfid, metadata in sorted(held, key=lambda one: one[0]):
                    if due <= time.monotonic() or self._ends.is_set():
                        held.remove((due, mfid, metadata))
                        self._client.request("PATCH", f"/resources/{mfid}/metadata", body=metadata)
                        self.written += 1
            time.sleep(0.01)
        self._client.close()

    def end(self) -> None:
        """Write back what is still held."""
        self._ends.set()
        self.join()


@pytest.fixture(params=[(0.02, 0.2)], ids=str)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningServer]:
    with writing_back(tmp_path / "service", *request.param) as running:
        with CrucibleClient(running.url, running.api_key) as client:
            client.projects.create(project_id="lab", organization="a lab", project_lead="local")
        yield running


def test_histories(server: RunningServer, lab: Any, tmp_path: Path) -> None:
    chance = random.Random(HISTORIES)
    worker = Worker(server, random.Random(7))
    text = lab.pipeline.read_text()
    first, second = (Settings(tmp_path / name, server.url, server.api_key) for name in ("here", "there"))
    worker.start()
    known: dict[int, Any] = {}
    reverted = again = 0
    try:
        for number in range(HISTORIES):
            factor = chance.choice(FACTORS) if chance.random() < 0.4 else 100 + number
            lab.declare(text.replace("factor: 3", f"factor: {factor}"))
            machines = [first, second] if chance.random() < 0.5 else [second, first]
            made = run(lab.pipeline, machines[0])
            assert made.ok, made.errors
            again += factor in known and bool(made.executed)
            assert made.datasets == known.setdefault(factor, made.datasets)
            other = run(lab.pipeline, machines[chance.random() < 0.8])
            assert other.ok, other.errors
            again += bool(other.executed)
            with CrucibleClient(server.url, server.api_key) as client:
                found = client.datasets.list(project_id="lab", include_metadata=True)
            records = [(dataset.scientific_metadata or {}).get("crucible_lineage", {}) for dataset in found]
            reverted += sum(record.get("status") != "complete" for record in records)
    finally:
        worker.end()
    assert (reverted, again) == (0, 0)
    assert worker.written > HISTORIES
    with Session(first) as session:
        assert verify_project(session, "lab").findings == ()


def run(path: Path, settings: Settings) -> RunResult:
    with Session(settings) as session:
        return run_file(session, path)
