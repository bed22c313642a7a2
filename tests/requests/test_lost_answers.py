"""A gateway loses or doubles any one call: a hold counts once, and a request has one result and one state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import LineageError
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.statements.statements import HOLD, About
from crucible_lineage.statements.stating import state
from tests.contract.variants import Answer, Door, HandOn, Request
from tests.serving import RunningServer, start_server


class Gateway:
    """Answers the writing call `number` with a web page after it took effect, or hands it on twice."""

    def __init__(self) -> None:
        self.number, self.is_doubled, self.calls = 0, False, 0

    def __call__(self, request: Request, hand_on: HandOn) -> Answer:
        answer = hand_on(request)
        if request.method == "GET":
            return answer
        self.calls += 1
        if self.calls != self.number:
            return answer
        if self.is_doubled:
            return hand_on(request)
        return Answer(200, b"<!doctype html><title>Please sign in</title>", {"Content-Type": "text/html"})


@contextmanager
def service(folder: Path, gateway: Gateway) -> Iterator[tuple[RunningServer, Door]]:
    with start_server(folder / "served") as server, CrucibleClient(server.url, server.api_key) as client:
        client.projects.create({"project_id": "lab", "organization": "Foundry", "project_lead": "local"})
        door = Door(server.url, server.api_key, gateway)
        try:
            yield server, door
        finally:
            door.close()


@pytest.mark.parametrize("is_doubled", [False, True])
def test_a_hold_counts_once(is_doubled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRUCIBLE_LINEAGE_RETRY_SECONDS", "2")
    gateway = Gateway()
    with service(tmp_path, gateway) as (server, door), CrucibleClient(server.url, server.api_key) as client:
        number = 0
        while gateway.calls >= number:  # until there is no such call
            number += 1
            mfid = client.datasets.create({"dataset_name": f"scan {number}", "project_id": "lab"}).dsid
            gateway.number, gateway.is_doubled, gateway.calls = number, is_doubled, 0
            with Session(Settings(tmp_path / str(number), door.url, door.api_key)) as session:
                try:
                    state(session, "lab", HOLD, About((mfid,)), why="bad")
                except LineageError:
                    state(session, "lab", HOLD, About((mfid,)), why="bad")  # as the error says
            with Session(Settings(tmp_path / f"{number}-later", server.url, server.api_key)) as other:
                other.mirror.sync_statements()
                held = [hold.about.datasets for hold in other.effects.holds("lab")]
                assert held.count((mfid,)) == 1, number
        assert number > 2, "statements take several calls"


@pytest.mark.parametrize("is_doubled", [False, True])
def test_the_state_of_a_request_is_one(is_doubled: bool, tmp_path: Path) -> None:
    gateway = Gateway()
    with service(tmp_path, gateway) as (_, door), CrucibleClient(door.url, door.api_key) as client:
        mfid = client.datasets.create({"dataset_name": "scan", "project_id": "lab"}).dsid
        asked: Any = client.requests.ask(mfid, "rga_analysis")
        gateway.number, gateway.is_doubled, gateway.calls = 1, is_doubled, 0
        assert client.requests.answer(asked.id, "complete", [mfid]).status == "complete"
        assert client.requests.answer(asked.id, "failed", reason="late").status == "complete"
        assert client.requests.get(asked.id).results == (mfid,)
