"""`ingest: 10m`: a dataset is complete when its files are ingested; failures are reported."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client.files import IngestionCalls
from crucible_lineage.client.models import IngestionRequest
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.declare.load import load_pipeline
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.provenance.record import read_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.ingestion import note_ingestions
from crucible_lineage.session import Session

PIPELINE = """
pipeline: read
project: lab
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z", ingest: false}
steps:
  scaled:
    uses: LABMODULE:scale
    inputs: {counts: first}
    output: {ingest: INGEST}
"""


@pytest.fixture
def run(lab: Any, session: Session) -> Callable[[str], RunResult]:
    def with_ingest(ingest: str) -> RunResult:
        path: Path = lab.declare(PIPELINE.replace("INGEST", ingest))
        bound = bind_file(path, session.store)
        return plan_and_run(bound, session, lambda: LocalEngine(session, 1), lambda event: None)

    return with_ingest


@pytest.fixture
def slow(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A service whose worker is slow: how each request was answered, and whether the dataset was complete."""
    answers: list[str] = []
    get = IngestionCalls.get

    def late(self: IngestionCalls, request_id: int) -> IngestionRequest:
        found = get(self, request_id)
        while found.is_open:
            time.sleep(0.01)
            found = get(self, request_id)
        dataset = session.client.datasets.get(str(found.dataset_mfid), include_metadata=True)
        record = read_record(dataset.scientific_metadata)
        if len(answers) < 3:
            found = found.model_copy(update={"status": "started"})
        answers.append(f"{found.status} {record is not None and record.is_complete}")
        return found

    monkeypatch.setattr(IngestionCalls, "get", late)
    return answers


def test_with_wait_a_dataset_is_complete_only_when_its_files_are_ingested(run: Any, slow: list[str]) -> None:
    result = run("1m")
    assert (result.ok, result.not_ingested) == (True, ())
    assert slow == ["started False"] * 3 + ["complete False"]


def test_without_wait_no_dataset_waits(run: Any, slow: list[str]) -> None:
    assert run("true").ok
    assert slow[0] == "started True"


def test_after_the_timeout_the_dataset_is_complete_and_the_file_is_reported(run: Any, slow: list[str]) -> None:
    result = run("0.01")
    assert result.ok
    assert slow[0] == "started False"
    assert all("scaled.txt of 'first (scaled)'" in note for note in result.not_ingested)


def test_a_failed_ingestion_is_reported_once_and_does_not_fail_the_run(run: Any, session: Session) -> None:
    result = run("10m, ingestor: NoSuchIngestor")
    assert result.ok
    (note,) = result.not_ingested
    assert "scaled.txt of 'first (scaled)'" in note
    assert "was not ingested as asked: There is no ingestor NoSuchIngestor here" in note
    again = run("10m, ingestor: NoSuchIngestor")
    assert again.not_ingested == ()


def test_a_run_without_work_does_not_wait_for_earlier_requests(
    run: Any, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("true")
    found = session.client.ingestions.list()
    (ingestion_request,) = [request for request in found if request.status != "not_requested"]
    stuck = ingestion_request.model_copy(update={"status": "requested"})  # the service's worker is gone
    note_ingestions(
        session.store, DatasetRef(str(ingestion_request.dataset_mfid), "first (scaled)", ()), {"scaled.txt": stuck}
    )
    looks: list[int] = []
    monkeypatch.setattr(IngestionCalls, "get", lambda self, number: looks.append(number) or stuck)
    assert run("true").ok
    assert looks == [ingestion_request.id], "it looks once, and leaves it"


@pytest.mark.parametrize(
    ("ingest", "message"), [("{wait: true}", "write true, false, or the longest wait for it, as in 90s, 10m, 2h")]
)
def test_a_fault_is_reported_with_its_line(lab: Any, ingest: str, message: str) -> None:
    path = lab.declare(PIPELINE.replace("INGEST", ingest))
    with pytest.raises(InputError) as caught:
        load_pipeline(path)
    (fault,) = caught.value.faults
    assert message in fault.message
    assert fault.line == 10


@pytest.mark.parametrize(("text", "seconds"), [("10m", 600), ("90", 90)])
def test_times_are_seconds_or_have_a_unit(lab: Any, text: str, seconds: float) -> None:
    spec = load_pipeline(lab.declare(PIPELINE.replace("INGEST", text)))
    assert spec.steps["scaled"].output.ingestion["ingestion_timeout_s"] == seconds
