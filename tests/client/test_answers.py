"""How answers, and missing ones, become errors that contain no secret."""

from __future__ import annotations

import gzip
import logging
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.client import CrucibleClient, RetryPolicy
from crucible_lineage.errors import (
    ConflictError,
    CrucibleError,
    ForbiddenError,
    InputError,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    ServerError,
    UnauthorizedError,
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


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (422, RefusedError),
        (429, RateLimitedError),
        (302, ServerError),
        (503, ServerError),
    ],
)
def test_each_status_has_its_error(status: int, error_class: type[CrucibleError]) -> None:
    detail = {"code": "some_code", "message": "what is wrong"}
    with client_for(httpx.Response(status, json={"detail": detail}, headers={"Retry-After": "9"})) as client:
        with pytest.raises(CrucibleError, match=f"could not read dataset {MFID}: .* {status} what is wrong") as caught:
            client.datasets.get(MFID)
    error = caught.value
    assert type(error) is error_class
    assert (error.status, error.code, error.detail, error.mfid) == (status, "some_code", detail, MFID)
    assert error.retry_after_s == 9.0


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


@pytest.mark.parametrize("body", [b"{}", b'{"unique_id": 5}', b"[]", b"null", b""])
def test_a_good_status_with_a_wrong_body_is_the_services_fault(body: bytes) -> None:
    with client_for(httpx.Response(200, content=body)) as client, pytest.raises(ServerError, match="could not read"):
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


@pytest.mark.parametrize("cause", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.ReadError("")])
def test_no_answer_is_unreachable(cause: Exception) -> None:
    with client_for(cause) as client, pytest.raises(UnreachableError, match=r"no answer from http://crucible.test"):
        client.datasets.get(MFID)


def test_a_page_is_followed_by_offset_where_there_is_no_cursor(stub: Any, client: CrucibleClient) -> None:
    for number in range(1001):
        stub.add_file(MFID, f"{number}.txt", b"", mfid=f"{number:026d}")
    assert len(client.files.list()) == 1001
    assert stub.calls[-1].query == {"limit": ["1000"], "offset": ["1000"]}


def test_a_list_by_cursor_ends_with_the_last_cursor_whatever_the_total_says() -> None:
    answers = iter(
        [
            {"items": [{"unique_id": MFID}], "total": 9, "next_cursor": "c"},
            {"items": [{"unique_id": MFID}], "total": 9, "next_cursor": None},
        ]
    )
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=next(answers)))
    with CrucibleClient("http://crucible.test", "k", retry=ONCE, transport=transport) as client:
        assert len(client.datasets.list()) == 2


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


def test_a_wait_that_is_too_long_is_reported_with_the_limit(stub: Any, client: CrucibleClient, dsid: str) -> None:
    stub.fault("GET", "^/datasets/", status=429, headers={"Retry-After": "3600"})
    with pytest.raises(RateLimitedError, match="asks to come back in 3600 s; one call waits at most 300 s"):
        client.datasets.get(dsid)


@pytest.mark.parametrize("status", [401, 403, 422])
def test_a_permanent_refusal_is_raised_at_once(stub: Any, client: CrucibleClient, dsid: str, status: int) -> None:
    stub.fault("GET", "^/datasets/", times=9, status=status, headers={"Retry-After": "1"}, body={"detail": "no"})
    with pytest.raises(CrucibleError, match=f"{status} no"):
        client.datasets.get(dsid)
    assert len(stub.calls) == 2


@pytest.mark.parametrize("kind", ["lost", "cut"])
def test_an_ingestion_request_whose_answer_is_lost_is_made_once(
    stub: Any, client: CrucibleClient, dsid: str, spectrum: Path, kind: str
) -> None:
    file = client.files.upload(dsid, spectrum).file
    stub.fault("POST", "/ingest$", kind)
    request = client.ingestions.request(file.mfid)
    assert [request["id"] for request in stub.requests] == [request.id]
    assert client.ingestions.request(file.mfid).id != request.id, "asked for again, it is made again"


@pytest.mark.parametrize("kind", ["lost", "cut"])
def test_a_thumbnail_whose_answer_is_lost_exists_once(stub: Any, client: CrucibleClient, dsid: str, kind: str) -> None:
    stub.fault("POST", "/thumbnails$", kind)
    shown = client.datasets.add_thumbnail(dsid, b"picture", name="a.png")
    assert [thumbnail["id"] for thumbnail in stub.thumbnails[dsid]] == [shown.id]


def test_a_dead_address_is_reported_after_the_tries_that_were_allowed() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with CrucibleClient(url, "k", retry=RetryPolicy(attempts=2, first_wait_s=0.001)) as client:
        with pytest.raises(UnreachableError, match=r"tried 2 times in 0 s\nit was not reached, nothing was sent"):
            client.account.whoami()


def test_after_a_lost_answer_the_error_does_not_say_that_nothing_was_sent() -> None:
    causes = iter([httpx.ReadError("lost"), httpx.ConnectError("refused")])

    def respond(_: httpx.Request) -> httpx.Response:
        raise next(causes)

    twice = RetryPolicy(attempts=2, first_wait_s=0.001)
    with CrucibleClient("http://x.test", "k", retry=twice, transport=httpx.MockTransport(respond)) as client:
        with pytest.raises(UnreachableError, match="whether the call took effect is not known"):
            client.datasets.create({"dataset_name": "x"})


@pytest.mark.parametrize("url", ["crucible.lbl.gov/api/v3", "ftp://x/api", "http://me:secret@x/api", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InputError) as caught:
        CrucibleClient(url, "k")
    assert "secret" not in str(caught.value)


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
