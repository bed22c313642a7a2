"""Whether a lost call took effect is checked only if it may have."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest

from crucible_lineage.client.connection import Connection, RetryPolicy
from crucible_lineage.client.files import IngestionCalls


def _connection(first: Callable[[httpx.Request], httpx.Response], sent: list[str]) -> Connection:
    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.method)
        return first(request) if len(sent) == 1 else httpx.Response(201, json={"made": "now"})

    http = httpx.Client(transport=httpx.MockTransport(answer))
    connection = Connection("http://here/api/v3", "key", retry=RetryPolicy(), http=http)
    connection.sleep = lambda seconds: None
    return connection


def _refused(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def _lost(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("no answer", request=request)


@pytest.mark.parametrize("first", [_refused, lambda request: httpx.Response(429, headers={"Retry-After": "1"})])
def test_a_call_without_effect_is_repeated_without_looking(first: Callable[[httpx.Request], httpx.Response]) -> None:
    """An equal resource of another user would be mistaken for ours."""
    sent: list[str] = []
    made = _connection(first, sent).call("POST", "/x", "make it", find_effect=lambda: pytest.fail("nothing was made"))
    assert (made, len(sent)) == ({"made": "now"}, 2)


@pytest.mark.parametrize("first", [_lost, lambda request: httpx.Response(502)])
def test_a_call_with_a_possible_effect_is_looked_for_first(first: Callable[[httpx.Request], httpx.Response]) -> None:
    sent: list[str] = []
    assert _connection(first, sent).call("POST", "/x", "make it", find_effect=lambda: {"made": "before"}) == {
        "made": "before"
    }
    assert len(sent) == 1


@pytest.mark.parametrize("zone", [UTC, None])
def test_a_request_for_ingestion_that_has_ended_is_not_repeated(zone: UTC | None) -> None:
    """A service may send times without a zone, which are in UTC."""
    file, now = "0tk9b1pcgxr7x000kq7jf3vz8m", datetime.now(UTC).replace(tzinfo=zone).isoformat()
    sent: list[str] = []
    made = {"id": 7, "status": "complete", "file_mfid": file, "time_created": now}
    connection = _connection(_lost, sent)
    connection._http = httpx.Client(
        transport=httpx.MockTransport(
            lambda request: (
                sent.append(request.method)
                or (_lost(request) if request.method == "POST" else httpx.Response(200, json={"items": [made]}))
            )
        )
    )
    assert IngestionCalls(connection).request(file).id == 7
    assert sent == ["POST", "GET"]
