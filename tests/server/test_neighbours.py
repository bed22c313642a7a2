"""Other users of a server can neither change nor read one's data, nor make the server fail."""

from __future__ import annotations

import base64
import errno
import hashlib
from collections.abc import Callable

import google_crc32c
import httpx
import pytest
from crucible import CrucibleClient

from crucible_lineage.server import database, storage
from tests.serving import RunningServer, start_server


@pytest.fixture(scope="module")
def account(client: CrucibleClient, server: RunningServer) -> Callable[[str], httpx.Client]:
    """Plain HTTP as a new service account of that name."""

    def make(name: str) -> httpx.Client:
        key = client.service_accounts.create(name)["api_key"]
        return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"})

    return make


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "9001-01-01"])
def test_dates_beyond_any_calendar_are_refused(api, moment):
    mfid = api.post("/datasets", json={}).json()["unique_id"]
    for answer in (
        api.post("/datasets", json={"timestamp": moment}),
        api.post("/samples", json={"timestamp": moment}),
        api.patch(f"/datasets/{mfid}", json={"timestamp": moment}),
        *(api.get("/datasets", params={f"{side}_time_{end}": moment})
          for side in ("creation", "modification") for end in ("gte", "lte")),
    ):  # fmt: skip
        assert answer.status_code == 422, answer.text
        assert "must lie between the years" in answer.text


@pytest.mark.parametrize(
    "address", ["/datasets?" + "&".join(f"keyword=k{n}" for n in range(1000)), "/datasets?cursor=" + "W1tb" * 10_000]
)
def test_queries_beyond_measure_are_refused(api, address):
    assert api.get(address).status_code == 422


@pytest.mark.parametrize("depth", [201, 100_000])
def test_json_nested_too_deeply_is_refused_with_a_sentence(api, depth):
    mfid = api.post("/datasets", json={}).json()["unique_id"]
    body = '{"a":' + "[" * depth + "]" * depth + "}"
    headers = {"Content-Type": "application/json"}
    answer = api.patch(f"/resources/{mfid}/metadata", content=body, headers=headers)
    assert answer.status_code in (400, 422)
    assert "nested" in answer.json()["detail"]
    assert api.get(f"/resources/{mfid}/metadata").json() is None


def test_full_disk_is_reported_and_nothing_is_written_in_part(tmp_path, monkeypatch):
    connect = database.connect

    def small(path):
        connection = connect(path)
        connection.execute("PRAGMA max_page_count = 120")
        return connection

    monkeypatch.setattr(database, "connect", small)
    with start_server(tmp_path) as server:
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.api_key}"}) as http:
            body = {"dataset_name": "large", "scientific_metadata": {"long": "x" * 20_000}}
            answers = [http.post("/datasets", json=body) for _ in range(40)]
            refused = [answer for answer in answers if answer.status_code != 201]
            assert {answer.status_code for answer in refused} == {507}
            assert "full" in refused[0].json()["detail"]
            assert http.get("/datasets").json()["total"] == len(answers) - len(refused)


def test_full_disk_during_an_upload_is_reported_and_the_part_may_be_sent_again(api, dataset, monkeypatch):
    def full(_file):
        raise OSError(errno.ENOSPC, "No space left on device")

    content = b"x,y\n1,2\n"
    mfid = dataset()
    new = {"filename": "a.csv", "size": len(content), "sha256_hash": hashlib.sha256(content).hexdigest()}
    upload = api.post(f"/datasets/{mfid}/upload/multipart/initiate", json=new).json()["upload_id"]
    crc = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
    body = {"parts": [{"part_number": 1, "crc32c": crc}]}
    (part,) = api.post(f"/datasets/{mfid}/upload/multipart/{upload}/parts", json=body).json()["parts"]
    with monkeypatch.context() as disk:
        disk.setattr(storage.os, "fsync", full)
        refused = httpx.put(part["url"], content=content)
    assert (refused.status_code, "No space left" in refused.json()["detail"]) == (507, True)
    assert httpx.put(part["url"], content=content).status_code == 200
