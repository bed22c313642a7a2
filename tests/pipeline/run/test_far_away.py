"""A Crucible with high latency: no requests for known facts, and independent requests are sent at once."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.cli.run import returned_by
from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.connection import Connection
from crucible_lineage.lineage.records import OWN_KEYS
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.server import RunningServer, start_server
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

CHAIN = """
pipeline: chain
project: lab
defaults: {output: {ingest: false}}
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z", ingest: false}
  other: {file: other.txt, timestamp: "2024-05-01T13:00:00Z", ingest: false}
steps:
  one: {uses: "LABMODULE:scale", inputs: {counts: first}}
  two: {uses: "LABMODULE:scale", inputs: {counts: one}}
  three: {uses: "LABMODULE:scale", inputs: {counts: two}}
  beside: {uses: "LABMODULE:scale", inputs: {counts: other}}
"""
AT_ONCE = "POST /datasets"
DATASET = ("POST /datasets", "POST /resources/ID/metadata", "PATCH /resources/ID/metadata")
FILE = ("POST /datasets/ID/upload/multipart/initiate", "POST /datasets/ID/upload/multipart/ID/parts",
        "PUT /storage/parts/ID/1", "POST /datasets/ID/upload/multipart/complete")  # fmt: skip


class Wire(httpx.BaseTransport):
    """The network, and the requests sent over it."""

    def __init__(self) -> None:
        self.wire = httpx.HTTPTransport()
        self.sent: list[str] = []
        self.meet = threading.Barrier(2, timeout=20)  # of the first two datasets that are made

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = re.sub(r"[0-9a-z]{20,}", "ID", request.url.path.removeprefix("/api/v3"))
        call = f"{request.method} {path}"
        self.sent.append(call)
        if call == AT_ONCE and self.sent.count(AT_ONCE) <= 2:
            self.meet.wait()
        return self.wire.handle_request(request)

    def close(self) -> None:
        self.wire.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningServer]:
    with start_server(tmp_path / "service") as server:
        with CrucibleClient(server.url, server.api_key) as client:
            client.projects.create(project_id="lab", organization="x", project_lead="local")
        yield server


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    monkeypatch.setattr(Connection, "latency_s", 0.05)  # whatever this machine is busy with
    return Wire()


@pytest.fixture
def far(service: RunningServer, wire: Wire, tmp_path: Path) -> Iterator[Session]:
    session = Session(Settings(tmp_path / "machine", service.url, service.api_key))
    uploads = tmp_path / "machine" / "uploads"
    client = CrucibleClient(service.url, service.api_key, transport=wire, state_folder=uploads)
    with session:
        session._client = session._stack.enter_context(client)
        yield session


def run(lab: Any, session: Session) -> RunResult:
    path: Path = lab.declare(CHAIN)
    bound = bind_file(path, session.store)
    return plan_and_run(bound, session, lambda: LocalEngine(session, 2), lambda event: None)


def test_a_run_sends_new_results_and_requests_nothing_that_it_knows(lab: Any, far: Session, wire: Wire) -> None:
    lab.file("other.txt", "10 20 30")
    result = run(lab, far)
    assert (sorted(result.executed), result.ok) == (["beside", "one", "three", "two"], True), result.errors
    sent = Counter(wire.sent)
    asked = {call: sent.pop(call) for call in list(sent) if call.startswith("GET")}
    assert asked == {
        # What there is of the pipeline, and in the end what of it is new.
        "GET /datasets": 2,
        "GET /datasets/ID": 2,  # whether each file is registered
        "GET /files": 2,
        "GET /projects": 1,
        "GET /account": 1,
    }
    links = {"POST /datasets/ID/keywords": 4, "POST /datasets/ID/children/ID": 4}
    assert dict(sent) == dict.fromkeys(DATASET, 6) | dict.fromkeys(FILE, 6) | links


def test_returned_values_are_reported_without_a_request(lab: Any, far: Session, wire: Wire) -> None:
    lab.file("other.txt", "10 20 30")
    result = run(lab, far)
    before = len(wire.sent)
    values_by_output = returned_by(far, result)
    assert len(wire.sent) == before
    mfids = {step: outputs["out"] for step, outputs in result.datasets.items()}
    datasets = {step: far.client.datasets.get(mfid, include_metadata=True) for step, mfid in mfids.items()}
    there = {step: dataset.scientific_metadata or {} for step, dataset in datasets.items()}
    assert {step: (mfid, dict(values)) for (step, _), (mfid, values) in values_by_output.items()} == {
        step: (mfids[step], {key: value for key, value in metadata.items() if key not in OWN_KEYS})
        for step, metadata in there.items()
    }
