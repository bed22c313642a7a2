"""News of Crucible: new datasets and ended ingestions, each told once, whatever is restarted in between."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.flows.reports import as_event
from crucible_lineage.session import Session
from crucible_lineage.statements import HOLD, About
from crucible_lineage.stating import lift, state
from crucible_lineage.watch.changes import DATASET_CREATED, INGESTION_COMPLETED, DatasetEvent, Watcher


@pytest.fixture
def watched(session: Session) -> Watcher:
    """A watcher of the project lab that has begun; nothing is there."""
    session.ensure_project("lab")
    session.ensure_project("other")
    watcher = Watcher(session, "lab")
    watcher.begin()
    return watcher


@pytest.fixture
def new(session: Session) -> Callable[..., str]:
    """Makes a dataset."""

    def make(name: str, project: str = "lab", **more: Any) -> str:
        return session.client.datasets.create({"dataset_name": name, "project_id": project, **more}).dsid

    return make


def heard(watcher: Watcher) -> list[DatasetEvent]:
    return [news for portion in watcher.look() for news in portion]


def test_a_new_dataset_is_told_once_with_what_a_trigger_can_match(watched: Watcher, new: Any, session: Session) -> None:
    new("elsewhere", "other")
    mfid = new("scan 1", measurement="counting", instrument_name="lamp")
    (news,) = heard(watched)
    assert (news.event, news.mfid, news.name) == (DATASET_CREATED, mfid, "scan 1")
    wanted = {"mfid": mfid, "project_id": "lab", "measurement": "counting", "instrument_name": "lamp", "kind": "raw"}
    assert wanted.items() <= news.attributes.items()
    assert heard(watched) == []
    restarted = Watcher(session, "lab")
    restarted.begin()
    assert heard(restarted) == []
    later = new("scan 2")
    assert [news.mfid for news in heard(restarted)] == [later]


def test_what_is_there_at_the_first_start_is_no_news_unless_it_is_asked_for(session: Session, new: Any) -> None:
    session.ensure_project("lab")
    mfid = new("old")
    watcher = Watcher(session, "lab")
    watcher.begin()
    assert heard(watcher) == []
    watcher.begin(datetime.now(UTC) - timedelta(hours=1))
    assert [news.mfid for news in heard(watcher)] == [mfid]


def test_a_project_may_be_watched_before_it_is_made(session: Session, new: Any) -> None:
    watcher = Watcher(session, "lab")
    watcher.begin()
    assert heard(watcher) == []
    session.ensure_project("lab")
    mfid = new("first")
    assert [news.mfid for news in heard(watcher)] == [mfid]


def test_news_that_were_not_told_come_again_as_the_same_events(watched: Watcher, new: Any, session: Session) -> None:
    new("scan")
    (lost,) = next(iter(watched.look()))  # whoever was to tell them failed, so that they were not asked for the rest
    (again,) = heard(watched)
    assert as_event(lost).id == as_event(again).id
    assert as_event(again).resource["prefect.resource.id"] == f"crucible.dataset.{again.mfid}"


def test_a_dataset_that_is_still_being_registered_is_told_when_it_is_complete(
    watched: Watcher, new: Any, session: Session, lab: Any, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crucible_lineage.watch import changes

    unfinished = {new("half")}
    monkeypatch.setattr(changes, "OVERLAP", timedelta(0))
    monkeypatch.setattr(changes, "_is_complete", lambda dataset: dataset.unique_id not in unfinished)
    whole = new("whole")
    assert [news.mfid for news in heard(watched)] == [whole]
    (half,) = unfinished
    unfinished.clear()
    assert [news.mfid for news in heard(watched)] == [half]
    assert heard(watched) == []


def test_an_ingestion_is_told_when_it_has_ended(watched: Watcher, new: Any, session: Session, tmp_path: Path) -> None:
    path = tmp_path / "scan.csv"
    path.write_text("x,y\n1,2\n")
    mfid = new("scan")
    elsewhere = new("elsewhere", "other")
    assert [news.event for news in heard(watched)] == [DATASET_CREATED]
    client = session.client
    uploaded = client.files.upload(mfid, path).file.mfid
    client.ingestions.request(client.files.upload(elsewhere, path).file.mfid)
    asked = client.ingestions.request(uploaded).id
    said = heard(watched)
    client.ingestions.wait(asked)
    said += heard(watched)
    (news,) = said
    assert (news.event, news.mfid) == (INGESTION_COMPLETED, mfid)
    assert news.attributes["file_mfid"] == uploaded
    assert heard(watched) == []


def test_a_hold_and_its_end_are_news_and_statements_are_no_new_data(
    watched: Watcher, new: Any, session: Session
) -> None:
    mfid = new("scan 1")
    heard(watched)
    hold = state(session, "lab", HOLD, About((mfid,)), why="detector saturated").statement
    (placed,) = heard(watched)
    assert (placed.event, placed.mfid) == ("crucible.hold.placed", mfid)
    assert {"why": "detector saturated", "statement": hold.mfid}.items() <= placed.attributes.items()
    assert as_event(placed).event == "crucible.hold.placed"
    lift(session, About((mfid,)), "it was not", project="lab")
    (lifted,) = heard(watched)
    assert (lifted.event, lifted.mfid, lifted.attributes["why"]) == ("crucible.hold.lifted", mfid, "it was not")
    assert heard(watched) == []
