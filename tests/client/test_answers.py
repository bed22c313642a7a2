"""How answers, and missing ones, become errors that contain no secret."""

from __future__ import annotations

import gzip
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.client import CrucibleClient, RetryPolicy
from crucible_lineage.errors import (
    CrucibleError,
    InputError,
    ServerError,
    UnreachableError,
)

ONCE = RetryPolicy(attempts=1)
MFID = "0tr5k2ndm5zvd000nr21qakeh4"


def client_for(answer: httpx.Response | Exception, key: str = "key-1") -> CrucibleClient:
    """Return a client that gets this answer to every call."""

    def respond(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return CrucibleClient("http://crucible.test/api/v3/", key, retry=ONCE, transport=httpx.MockTransport(respond))


@pytest.mark.parametrize("status", [200, 404])
def test_no_more_of_an_answer_is_read_than_the_limit(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crucible_lineage.client.connection.MAX_BYTES", 3 << 20)
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 1 << 20
            yield b" " * (1 << 20)

    with client_for(httpx.Response(status, content=endless())) as client:
        with pytest.raises(ServerError, match=f"could not read dataset {MFID}: the answer has more than 3 MB"):
            client.datasets.get(MFID)
    assert read <= 5 << 20
    packed = httpx.Response(status, content=gzip.compress(bytes(9 << 20)), headers={"Content-Encoding": "gzip"})
    with client_for(packed) as client, pytest.raises(ServerError, match="the answer has more than 3 MB"):
        client.datasets.get(MFID)


@pytest.mark.parametrize("status", [200, 404])
def test_a_web_page_at_an_address_that_never_answered_is_reported_after_three_tries(status: int) -> None:
    asked: list[httpx.Request] = []
    page = httpx.MockTransport(lambda request: asked.append(request) or httpx.Response(status, html="<html>"))
    with CrucibleClient("http://x.test", "k", retry=RetryPolicy(first_wait_s=0.001), transport=page) as client:
        with pytest.raises(
            UnreachableError, match=r"not JSON\ncheck that the API URL ends in /api/v3.*\ntried 3 times"
        ):
            client.datasets.get(MFID)
    assert len(asked) == 3


def test_a_page_is_followed_by_offset_where_there_is_no_cursor(stub: Any, client: CrucibleClient) -> None:
    for number in range(1001):
        stub.add_file(MFID, f"{number}.txt", b"", mfid=f"{number:026d}")
    assert len(client.files.list()) == 1001
    assert stub.calls[-1].query == {"limit": ["1000"], "offset": ["1000"]}


def test_eight_refusals_with_retry_after_are_waited_out_and_logged(
    stub: Any, dsid: str, caplog: pytest.LogCaptureFixture
) -> None:
    stub.fault("GET", "^/datasets/", times=8, status=429, headers={"Retry-After": "1"})
    stub.fault("GET", "^/datasets/", status=503)
    with CrucibleClient(stub.url, stub.key, retry=RetryPolicy(attempts=2)) as client:
        client._connection.sleep = (slept := []).append
        assert client.datasets.get(dsid).unique_id == dsid
    assert slept[:-1] == [1.0] * 8, "none of which counts as a try"
    assert f"could not read dataset {dsid}: Crucible answered 429" in caplog.text
    assert "trying again in 1 s" in caplog.text


@pytest.mark.parametrize("kind", ["lost", "cut"])
def test_an_ingestion_request_whose_answer_is_lost_is_made_once(
    stub: Any, client: CrucibleClient, dsid: str, spectrum: Path, kind: str
) -> None:
    file = client.files.upload(dsid, spectrum).file
    stub.fault("POST", "/ingest$", kind)
    request = client.ingestions.request(file.mfid)
    assert [request["id"] for request in stub.requests] == [request.id]
    assert client.ingestions.request(file.mfid).id != request.id, "asked for again, it is made again"


@pytest.mark.parametrize("key", ["", "two words", "line\n", "schlüssel"])
def test_a_key_that_cannot_be_one_is_refused_unseen(key: str) -> None:
    with pytest.raises(InputError) as caught:
        CrucibleClient("http://x/api/v3", key)
    assert not key or key not in str(caught.value)


def test_nothing_secret_is_logged_or_shown(
    stub: Any, client: CrucibleClient, dsid: str, movie: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stub.fault("PUT", "/part/", status=403)
    uploaded = client.files.upload(dsid, movie)
    client.files.download(uploaded.file, tmp_path / "back")
    errors = []
    for fault in ({"kind": "cut", "times": 9}, {"kind": "status", "status": 404, "body": stub.signature}):
        stub.faults.clear()
        stub.fault("GET", "/object/", **fault)
        with pytest.raises(CrucibleError) as caught:
            client.files.download_bytes(uploaded.file)
        errors.append("".join(traceback.format_exception(caught.value)) + repr(vars(caught.value)))
    stub.fault("GET", "^/datasets/", status=422, body={"detail": f"odd header: Bearer {stub.key}"})
    with pytest.raises(CrucibleError) as caught:
        client.datasets.get(dsid)
    shown = [repr(client), str(vars(client)), str(caught.value), caplog.text, *errors]
    assert "127.0.0.1" in caplog.text
    assert not [text for text in shown if stub.key in text or stub.signature in text]
