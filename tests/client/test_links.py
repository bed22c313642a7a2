"""Signed links are followed to where a service may keep files, and not into the network of whoever follows them."""

from __future__ import annotations

import httpx
import pytest

from crucible_lineage.client.http.connection import Timeouts
from crucible_lineage.client.transfer.storage import Storage, Unsealing, is_private
from crucible_lineage.errors import ServerError

PRIVATE = [
    "http://127.0.0.1/x", "http://169.254.169.254/latest/meta-data", "http://10.1.2.3:9200/", "http://[::1]/",
    "http://localhost:8080/", "http://metadata.google.internal/", "http://printer.local./", "http://192.168.0.1/",
]  # fmt: skip


@pytest.mark.parametrize("url", PRIVATE)
def test_a_public_service_leads_to_no_private_address(url: str) -> None:
    asked: list[str] = []
    storage = _storage(asked, is_private=is_private("https://crucible.lbl.gov/api/v3"))
    with pytest.raises(ServerError, match="it was not followed"):
        storage.put(url, "send a part", headers={})
    with pytest.raises(ServerError, match="it was not followed"), storage.stream(url, "fetch", headers={}):
        pass
    assert asked == []


def test_nor_does_a_redirect() -> None:
    asked: list[str] = []
    storage = _storage(asked, is_private=False)
    with pytest.raises(ServerError, match=r"the private address 10\.0\.0\.1"):
        with storage.stream("https://storage.googleapis.com/bucket/redirect", "fetch", headers={}):
            pass
    assert asked == ["storage.googleapis.com"]


@pytest.mark.parametrize("url", PRIVATE[:4])
def test_a_service_in_a_private_network_may_keep_its_files_there(url: str) -> None:
    asked: list[str] = []
    storage = _storage(asked, is_private=is_private("http://192.168.7.7/api/v3"))
    assert storage.put(url, "send a part", headers={}).status_code == 200
    assert len(asked) == 1


def test_a_setting_lets_a_public_service_keep_its_files_in_a_private_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setenv("CRUCIBLE_LINEAGE_PRIVATE_LINKS", "1")
    _storage(asked, is_private=False).put("http://10.1.2.3:9200/", "send a part", headers={})
    assert asked == ["10.1.2.3"]


def _storage(asked: list[str], *, is_private: bool) -> Storage:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        if request.url.path.endswith("redirect"):
            return httpx.Response(302, headers={"location": "http://10.0.0.1/secret"})
        return httpx.Response(200)

    return Storage(Timeouts(), httpx.Client(transport=Unsealing(httpx.MockTransport(answer))), is_private=is_private)
