"""Deliverers: parents before children, several at once if the latency is high, no children of overtaken bytes."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.client import CrucibleClient, RetryPolicy
from crucible_lineage.core.folders import machine_id
from crucible_lineage.core.journal import DELIVERED, LACKING, MADE, REFUSED, Journal, ResultRow
from crucible_lineage.ids import derive_mfid
from crucible_lineage.machine.checksums import scan_file
from crucible_lineage.provenance.environment import agent
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.provenance.record import KEY, step_activity, step_record
from crucible_lineage.provenance.schema import StepRecord
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration import outbox as outbox_module
from crucible_lineage.registration.deliver import MIN_THREADS, Deliverer, DeliveryContext
from crucible_lineage.registration.outbox import Outbox
from crucible_lineage.registration.payload import LocalFile, NewDataset
from crucible_lineage.registration.queue import DROPPED
from crucible_lineage.registration.register import register_output
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.eventually import eventually
from tests.serving import RunningServer, start_server

NOW = "2026-01-01T00:00:00+00:00"
SOFTWARE = {"python": "3", "platform": "x", "packages": {}}
AGENT = agent({"unique_id": "0000-0000-0000-0001", "username": "local", "is_service_account": False})


class Wire(httpx.BaseTransport):
    """The network, with a log of the requests."""

    def __init__(self) -> None:
        self.wire = httpx.HTTPTransport()
        self.asked: list[str] = []
        self.fail: Callable[[httpx.Request], int | None] = lambda request: None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path.removeprefix('/api/v3')}")
        status = self.fail(request)
        if status == 0:
            raise httpx.ConnectError("refused", request=request)
        if status is not None:
            return httpx.Response(status, json={"detail": "no"})
        return self.wire.handle_request(request)

    def close(self) -> None:
        self.wire.close()


class Machine:
    """A data folder with an outbox, and deliverers over a wire of its own."""

    def __init__(self, server: RunningServer, data: Path) -> None:
        self.data = data
        self.session = Session(Settings(data, server.url, server.api_key))
        self.journal = Journal(data / "journal.sqlite", server.url, lambda: str(AGENT["unique_id"]))
        self.outbox = Outbox(data, self.journal, durable=False)
        self.wire = Wire()
        quick = RetryPolicy(attempts=2, first_wait_s=0.001, total_s=0.01)
        self.client = CrucibleClient(server.url, server.api_key, transport=self.wire, retry=quick)
        self.heard: list[ResultRow] = []

    def context(self) -> DeliveryContext:
        return DeliveryContext(self.outbox, self.client, machine_id(self.data), self.session.turn)

    def ended(self, *outcomes: str) -> set[str]:
        """Return the datasets of the payloads with this outcome."""
        return {mfid for row in self.heard if row.state in outcomes for mfid in row.mfids}

    @property
    def errors(self) -> list[str]:
        return [row.error for row in self.heard if row.error]

    @contextmanager
    def delivering(self) -> Iterator[Deliverer]:
        deliverer = Deliverer(self.context(), lambda row, _: self.heard.append(row))
        deliverer.take_up()
        try:
            yield deliverer
        finally:
            deliverer.stop()

    def put(self, name: str, content: str, *parents: NewDataset) -> NewDataset:
        new = dataset(self.data, name, content, *parents)
        self.outbox.put(name, "lab", [new])
        return new

    def close(self) -> None:
        self.client.close()
        self.journal.close()
        self.session.close()


def dataset(folder: Path, name: str, content: str, *parents: NewDataset) -> NewDataset:
    """Return a result of these parents, with one file, whose id follows from their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{threading.get_ident()}.txt"
    path.write_text(content)
    file = LocalFile.of(path, scan_file(path))
    file = replace(file, ref=replace(file.ref, name="out.txt"))
    used = [UsedDataset("x", DatasetRef(p.mfid, p.name, ()), tuple(f.ref for f in p.files)) for p in parents]
    recipe = {
        "kind": "step", "version": 2,
        "project": "lab", "step": name, "output": "out", "code": "c0de", "params": {},
        "inputs": {"x": [{"origin": p.mfid, "files": {f.ref.name: f.ref.sha256 for f in p.files}} for p in parents]
                  or [{"origin": "0shj5v00024ybbz5dbt1wrn5zr", "files": {}}]},
    }  # fmt: skip
    record = step_record(
        recipe=recipe, pipeline=None, used=used, generated=[file.ref],
        activity=step_activity(name, f"lab:{name}", "c0de", NOW, NOW), software=SOFTWARE,
        who=AGENT, supersedes=None,
    )  # fmt: skip
    return NewDataset(
        mfid=derive_mfid(recipe, "0shj5v00024ybbz5dbt1wrn5zr"),
        fields={"project_id": "lab", "dataset_name": name, "timestamp": NOW},
        record=record,
        metadata={"content": content},
        files=(file,),
        parents=tuple(p.mfid for p in parents),
        ingest=False,
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with start_server(tmp_path / "service") as running:
        with CrucibleClient(running.url, running.api_key) as client:
            client.projects.create(project_id="lab", organization="x", project_lead="local")
        yield running


@pytest.fixture
def machines(server: RunningServer, tmp_path: Path) -> Iterator[Callable[[], Machine]]:
    made: list[Machine] = []
    numbers = itertools.count(1)

    def make() -> Machine:
        made.append(Machine(server, tmp_path / f"machine-{next(numbers)}"))
        return made[-1]

    yield make
    for machine in made:
        machine.close()


def status_of(machine: Machine, new: NewDataset) -> Any:
    return (machine.session.client.metadata.get(new.mfid) or {})[KEY]["status"]


def test_children_are_linked_after_their_parents_exist_in_any_order(machines: Any) -> None:
    machine = machines()
    new_dataset = dataset(machine.data, "one", "1")
    two = machine.put("two", "2", new_dataset)
    three = machine.put("three", "3", two)
    new_dataset = machine.put("one", "1")
    with machine.delivering() as deliverer:
        assert deliverer.drain(30.0)
    assert [status_of(machine, new) for new in (new_dataset, two, three)] == ["complete"] * 3
    created = [index for index, asked in enumerate(machine.wire.asked) if asked == "POST /datasets"]
    linked = [index for index, asked in enumerate(machine.wire.asked) if "/children/" in asked]
    assert created[0] < linked[0]
    assert len(created) == 3
    assert machine.outbox.all(again=True) == []
    assert machine.ended(DELIVERED) == {new_dataset.mfid, two.mfid, three.mfid}
    assert all(row.is_ours for row in machine.heard)


def test_a_child_is_not_reported_before_its_parent(machines: Any) -> None:
    machine = machines()
    machine.put("two", "2", machine.put("one", "1"))
    heard: list[str] = []

    def hear(row: ResultRow, _: object) -> None:
        time.sleep(0.5 if row.step == "one" else 0.0)
        heard.append(row.step)

    deliverer = Deliverer(machine.context(), hear)
    deliverer.take_up()
    try:
        assert deliverer.drain(30.0)
    finally:
        deliverer.stop()
    assert heard == ["one", "two"]


def test_a_waiting_result_is_dropped_and_reported_when_its_parent_is_made_again_with_other_bytes(machines: Any) -> None:
    machine, other = machines(), machines()
    old = dataset(machine.data / "old", "one", "1.0")
    child, of_same = machine.put("child", "2", old), machine.put("same", "4", dataset(machine.data, "kept", "3"))
    grandchild = machine.put("grandchild", "5", child)
    anew = dataset(other.data, "one", "1.1")
    assert anew.mfid == old.mfid
    for there in (anew, dataset(other.data, "kept", "3")):
        register_output(other.client, there, "another machine")
    with machine.delivering() as deliverer:
        assert deliverer.drain(30.0)
    assert machine.ended(DROPPED) == {child.mfid, grandchild.mfid}
    assert machine.ended(DELIVERED) == {of_same.mfid}
    assert f"out.txt of {old.mfid}" in machine.errors[0]
    links = machine.session.client.datasets.get(old.mfid, include_links=True).links or ()
    assert list(links) == [], "nothing was hung below bytes that it does not come from"
    assert machine.outbox.all(again=True) == []


def test_what_was_begun_is_deleted_when_its_parent_gets_other_bytes_meanwhile(machines: Any) -> None:
    machine, other = machines(), machines()
    old, anew = dataset(machine.data / "old", "one", "1.0"), dataset(other.data, "one", "1.1")
    register_output(other.client, old, "another machine")
    child = machine.put("child", "2", old)

    def replaced(request: httpx.Request) -> None:
        if machine.wire.asked[-1] == "POST /datasets":
            other.client.files.upload(old.mfid, anew.files[0].path, filename="out.txt", replace=True)

    machine.wire.fail = replaced
    with machine.delivering() as deliverer:
        assert deliverer.drain(30.0)
    assert machine.ended(DROPPED) == {child.mfid}
    request = machine.session.client.datasets.get(child.mfid).deletion_request
    assert "another registration" in str(request and request["reason"])


def test_a_result_with_a_missing_parent_is_reported_kept_and_sent_later(machines: Any) -> None:
    machine = machines()
    parent = dataset(machine.data / "parent", "parent", "1")
    child = machine.put("child", "2", parent)
    for _ in range(2):
        with machine.delivering() as deliverer:
            assert not deliverer.drain(30.0)
        (waiting,) = machine.outbox.waiting()
        assert "not found" in waiting.error
        assert machine.heard.pop().state == REFUSED
    register_output(machine.client, parent, "somebody else")
    with machine.delivering() as deliverer:
        assert deliverer.drain(30.0)
    assert status_of(machine, child) == "complete"
    assert machine.outbox.waiting() == []


def test_a_result_is_sent_as_soon_as_its_missing_parent_is_made_again(machines: Any) -> None:
    machine = machines()
    child = machine.put("child", "2", dataset(machine.data / "parent", "parent", "1"))
    with machine.delivering() as deliverer:
        eventually(lambda: [row for row in machine.journal.waiting() if row.state == LACKING], 30)
        parent = machine.put("parent", "1")
        deliverer.add(machine.outbox.row(parent.mfid))
        assert deliverer.drain(30.0)
    assert [status_of(machine, new) for new in (parent, child)] == ["complete"] * 2
    assert machine.ended(REFUSED) == set()


@pytest.mark.parametrize("again", [False, True])
def test_few_of_many_waiting_payloads_are_in_memory_and_all_are_delivered(
    machines: Any, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    monkeypatch.setattr(outbox_module, "MAX_OPEN", 2)
    machine = machines()
    before = records_in_memory()
    mfids = [machine.put(f"s{number}", str(number)).mfid for number in range(20)]
    if again:  # as another process finds them
        machine.outbox = Outbox(machine.data, machine.journal, durable=False)
    machine.wire.fail = lambda request: 0
    with machine.delivering() as deliverer:
        assert not deliverer.drain(0.5)
        assert records_in_memory() - before <= 2 + MIN_THREADS
        machine.wire.fail = lambda request: None
        assert deliverer.drain(60.0)
    assert machine.ended(DELIVERED) == set(mfids)
    assert machine.outbox.is_empty


def test_a_payload_damaged_on_disk_is_set_aside_and_made_again(machines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MAX_OPEN", 0)
    machine = machines()
    good, bad = machine.put("good", "1"), machine.put("bad", "2")
    child = machine.put("child", "3", bad)
    path = machine.outbox.folder / bad.mfid / "result.json"
    with machine.delivering() as deliverer:
        machine.wire.fail = lambda request: 0
        assert not deliverer.drain(0.5)
        path.write_bytes(path.read_bytes().replace(b'"content": "2"', b'"content": "3"'))
        machine.wire.fail = lambda request: None
        assert deliverer.drain(60.0)
    assert machine.ended(DELIVERED) == {good.mfid}
    assert machine.ended(DROPPED) == {bad.mfid, child.mfid}
    assert [one.name for one in machine.outbox.set_aside()] == [bad.mfid]


def records_in_memory() -> int:
    gc.collect()
    return sum(isinstance(one, StepRecord) for one in gc.get_objects())


def test_a_refused_result_blocks_only_its_descendants(machines: Any) -> None:
    machine = machines()
    bad = machine.put("bad", "1")
    child = machine.put("child", "2", bad)
    good = machine.put("good", "3")
    machine.wire.fail = lambda request: 422 if b'"bad"' in request.read() else None
    with machine.delivering() as deliverer:
        assert not deliverer.drain(600.0)
    assert status_of(machine, good) == "complete"
    waiting = {row.step: row for row in machine.outbox.waiting()}
    assert set(waiting) == {"bad", "child"}
    assert (waiting["bad"].refused, waiting["child"].refused) == (True, False)
    assert "422" in waiting["bad"].error
    machine.wire.fail = lambda request: None
    with machine.delivering() as deliverer:
        assert deliverer.drain(30.0)
    assert [status_of(machine, new) for new in (bad, child)] == ["complete"] * 2


def test_two_processes_deliver_the_same_results_once(machines: Any) -> None:
    machine = machines()
    new = [machine.put(f"s{number}", str(number)) for number in range(6)]
    with machine.delivering() as one, machine.delivering() as other:
        assert one.drain(30.0)
        assert other.drain(30.0)
    assert machine.wire.asked.count("POST /datasets") == len(new)
    assert machine.ended(DELIVERED) == {one.mfid for one in new}
    assert sum(one.is_ours for one in machine.heard) == len(new)


def test_an_equal_result_that_another_machine_registered_first_is_not_ours(machines: Any) -> None:
    for machine in (there := machines(), here := machines()):
        machine.put("one", "1")
        with machine.delivering() as deliverer:
            assert deliverer.drain(30.0)
    heard = [*there.heard, *here.heard]
    assert [(one.state, one.is_ours) for one in heard] == [(DELIVERED, True), (DELIVERED, False)]


@pytest.mark.parametrize("status", [401, 403, 422, 429, 503, 0])
def test_each_refusal_is_told_and_the_result_kept(machines: Any, status: int) -> None:
    machine = machines()
    new = machine.put("one", "1")
    machine.wire.fail = lambda request: status
    with machine.delivering() as deliverer:
        assert not deliverer.drain(0.2)
        assert (deliverer.refuses_all, deliverer.waiting()) == (status == 401, 1)
    why = f"Crucible answered {status} no" if status else f"no answer from {machine.client.api_url} (ConnectError"
    verb = "read" if status in (403, 422) else "create"  # these may mean that it exists
    for row in (*machine.heard, *machine.outbox.waiting()):
        assert row.error.startswith(f"could not {verb} dataset {new.mfid}: {why}")
        assert (row.state, row.mfids) == (MADE if status in (429, 503, 0) else REFUSED, (new.mfid,))
    assert machine.heard
    assert [row.tries > 0 for row in machine.outbox.waiting()] == [True]


def test_a_deliverer_that_was_stopped_sends_nothing_more(machines: Any) -> None:
    machine = machines()
    with machine.delivering() as deliverer:
        assert deliverer.drain(30.0)
        deliverer.stop()
        asked = len(machine.wire.asked)
        deliverer.add(machine.outbox.row(machine.put("late", "1").mfid))
        assert not deliverer.drain(0.2)
    assert (len(machine.wire.asked), deliverer.waiting()) == (asked, 1)
