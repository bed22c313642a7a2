"""A gateway answers any call of a registration with 200 and a web page: the dataset exists once, complete."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.client import CrucibleClient, RetryPolicy
from crucible_lineage.ids import derive_mfid
from crucible_lineage.machine.checksums import scan_file
from crucible_lineage.provenance.record import KEY
from crucible_lineage.provenance.schema import new_record
from crucible_lineage.registration.payload import LocalFile
from crucible_lineage.registration.register import register_output
from tests.serving import RunningServer, start_server

PAGE = "<!doctype html><title>Please sign in</title>"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Gateway(httpx.BaseTransport):
    """Answers call `number` with a web page: `before` it reaches Crucible, or `after` Crucible has applied it."""

    def __init__(self, status: int = 200) -> None:
        self.wire = httpx.HTTPTransport()
        self.calls: list[str] = []
        self.number, self.when, self.status = 0, "before", status

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(f"{request.method} {request.url.path.removeprefix('/api/v3')}")
        mine = len(self.calls) == self.number
        if mine and self.when == "before":
            return self.page()
        answer = self.wire.handle_request(request)
        if mine:
            answer.read()
            return self.page()
        return answer

    def page(self) -> httpx.Response:
        return httpx.Response(self.status, html=PAGE)

    def close(self) -> None:
        self.wire.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with start_server(tmp_path_factory.mktemp("service")) as running:
        with CrucibleClient(running.url, running.api_key) as client:
            client.projects.create(project_id="lab", organization="x", project_lead="local")
        yield running


class Registration:
    """A result with two files, a picture, a keyword, a parent and a sample, sent through a gateway."""

    def __init__(self, server: RunningServer, folder: Path, make: Callable[..., Any]) -> None:
        self.server, self.folder, self.make = server, folder, make
        self.reader = CrucibleClient(server.url, server.api_key)
        self.parent = self.reader.datasets.create({"dataset_name": "scan", "project_id": "lab"}).dsid
        self.sample = self.reader.samples.create({"sample_name": "wafer", "project_id": "lab"}).unique_id
        self.trials = itertools.count(1)

    def run(self, number: int, when: str, status: int = 200) -> list[str]:
        """Register a new result, with a page in place of one answer; check it, and return the calls."""
        new = self.new(next(self.trials))
        gateway = Gateway(status)
        gateway.number, gateway.when = number, when
        quick = RetryPolicy(first_wait_s=0.001)
        with CrucibleClient(self.server.url, self.server.api_key, transport=gateway, retry=quick) as client:
            made = register_output(client, new, "machine", patience_s=0.05)
        assert made.mfid == new.mfid
        where = f"{when} call {number}: {gateway.calls}"
        self.check(new, where)
        return gateway.calls

    def new(self, trial: int) -> Any:
        path = self.folder / f"{trial}.csv"
        path.write_text(f"a,b\n{trial},2\n")
        plot = self.folder / "plot.png"
        plot.write_bytes(PIXEL)
        base = self.make(self.parent, path)
        document = base.record.document()
        recipe = {**document["recipe"], "params": {"trial": trial}}
        files = (*base.files, LocalFile.of(plot, scan_file(plot), preview=True))
        listed = [file.ref.to_json() for file in files]
        record = new_record({**document, "recipe": recipe, "generated": listed})
        mfid = derive_mfid(recipe, self.parent)
        return replace(base, mfid=mfid, record=record, files=files, samples=(self.sample,))

    def check(self, new: Any, where: str) -> None:
        client, mfid = self.reader, new.mfid
        named = [dataset for dataset in client.datasets.list(project_id="lab") if dataset.dataset_name == "smoothed"]
        assert [dataset.unique_id for dataset in named].count(mfid) == 1, where
        found = client.datasets.get(mfid, include_metadata=True, include_links=True)
        stored = found.scientific_metadata or {}
        assert stored[KEY]["status"] == "complete", where
        assert stored["width"] == 3, where
        assert {link.unique_id for link in found.links or ()} == {self.parent, self.sample}, where
        assert [keyword.keyword for keyword in client.datasets.get_keywords(mfid)] == ["smooth"], where
        files = {file.filename: client.files.download_bytes(file) for file in client.files.list(mfid)}
        assert files == {file.ref.name: file.path.read_bytes() for file in new.files}, where
        assert [thumbnail.thumbnail_name for thumbnail in client.datasets.get_thumbnails(mfid)].count(
            "plot.png"
        ) == 1, where
        assert len(client.ingestions.list(dataset_mfid=mfid)) == 1, where


@pytest.fixture(scope="module")
def registration(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registration]:
    from tests.registration.conftest import smoothed_dataset

    made = Registration(server, tmp_path_factory.mktemp("results"), smoothed_dataset)
    yield made
    made.reader.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_page_in_place_of_any_answer_is_a_lost_answer(registration: Registration, when: str) -> None:
    calls = registration.run(0, when)
    assert len(calls) > 12, calls
    for number in range(1, len(calls) + 1):
        registration.run(number, when)


def test_a_page_that_says_not_found_is_a_lost_answer(registration: Registration) -> None:
    for number in range(1, 6):
        registration.run(number, "before", 404)
