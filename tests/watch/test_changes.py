"""Changes at Crucible: new datasets and ended ingestions are each reported once, even after restarts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.flows.reports import as_event
from crucible_lineage.pipeline.watch import DATASET_CREATED, INGESTION_COMPLETED, DatasetEvent, Watcher
from crucible_lineage.session import Session
from tests.golden.stored import run_examples


@pytest.fixture
def watched(session: Session) -> Watcher:
    """Start a watcher of the empty project lab."""
    session.ensure_project("lab")
    session.ensure_project("other")
    watcher = Watcher(session, "lab")
    watcher.begin()
    return watcher


@pytest.fixture
def new(session: Session) -> Callable[..., str]:
    """Return a function that makes a dataset."""

    def make(name: str, project: str = "lab", **more: Any) -> str:
        return session.client.datasets.create({"dataset_name": name, "project_id": project, **more}).dsid

    return make


def events_of(watcher: Watcher) -> list[DatasetEvent]:
    return [event for events in watcher.poll() for event in events]


def test_a_new_dataset_is_reported_once_with_attributes_for_triggers(
    watched: Watcher, new: Any, session: Session
) -> None:
    new("elsewhere", "other")
    mfid = new("scan 1", measurement="counting", instrument_name="lamp")
    (event,) = events_of(watched)
    assert (event.event, event.mfid, event.name) == (DATASET_CREATED, mfid, "scan 1")
    expected = {"mfid": mfid, "project_id": "lab", "measurement": "counting", "instrument_name": "lamp", "kind": "raw"}
    assert expected.items() <= event.attributes.items()
    assert events_of(watched) == []
    restarted = Watcher(session, "lab")
    restarted.begin()
    assert events_of(restarted) == []
    later = new("scan 2")
    assert [event.mfid for event in events_of(restarted)] == [later]


def test_existing_datasets_are_not_reported_unless_requested(session: Session, new: Any) -> None:
    session.ensure_project("lab")
    mfid = new("old")
    watcher = Watcher(session, "lab")
    watcher.begin()
    assert events_of(watcher) == []
    watcher.begin(datetime.now(UTC) - timedelta(hours=1))
    assert [event.mfid for event in events_of(watcher)] == [mfid]


def test_unreported_events_come_again_with_the_same_ids(watched: Watcher, new: Any, session: Session) -> None:
    new("scan")
    (lost,) = next(iter(watched.poll()))  # reporting them failed, so that the rest was not requested
    (again,) = events_of(watched)
    assert as_event(lost).id == as_event(again).id
    assert as_event(again).resource["prefect.resource.id"] == f"crucible.dataset.{again.mfid}"


def test_what_is_new_follows_from_what_was_noted() -> None:
    run_examples(Path(__file__).with_name("watcher.txt"))


def test_an_ingestion_is_reported_when_it_has_ended(
    watched: Watcher, new: Any, session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "scan.csv"
    path.write_text("x,y\n1,2\n")
    mfid = new("scan")
    elsewhere = new("elsewhere", "other")
    assert [event.event for event in events_of(watched)] == [DATASET_CREATED]
    client = session.client
    uploaded = client.files.upload(mfid, path).file.mfid
    client.ingestions.request(client.files.upload(elsewhere, path).file.mfid)
    request = client.ingestions.request(uploaded).id
    events = events_of(watched)
    client.ingestions.wait(request)
    events += events_of(watched)
    (event,) = events
    assert (event.event, event.mfid) == (INGESTION_COMPLETED, mfid)
    assert event.attributes["file_mfid"] == uploaded
    assert events_of(watched) == []
