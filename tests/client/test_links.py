"""Signed links are followed to hosts that may store a service's files, but not into the client's own network."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.client.storage import LinkHosts, SignedUrlTransport, Storage
from crucible_lineage.errors import ServerError

PUBLIC = "https://crucible.lbl.gov/api/v3"
PRIVATE = [
    "http://127.0.0.1/x", "http://169.254.169.254/latest/meta-data", "http://10.1.2.3:9200/", "http://[::1]/",
    "http://localhost:8080/", "http://metadata.google.internal/", "http://printer.local./", "http://192.168.0.1/",
]  # fmt: skip


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The addresses of names, public unless a test sets others."""
    known: dict[str, str] = {}

    def look_up(host: str, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known.get(host, "131.243.0.1"), 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def storage(requested: list[str], api_url: str = PUBLIC, folder: Path | None = None) -> Storage:
    def answer(request: httpx.Request) -> httpx.Response:
        requested.append(request.url.host)
        if request.url.path.endswith("redirect"):
            return httpx.Response(302, headers={"location": "http://10.0.0.1/secret"})
        return httpx.Response(200)

    hosts = LinkHosts(api_url, folder)
    return Storage(httpx.Client(transport=SignedUrlTransport(httpx.MockTransport(answer))), hosts)


@pytest.mark.parametrize("url", PRIVATE)
def test_a_public_service_leads_to_no_private_address(url: str) -> None:
    requested: list[str] = []
    public = storage(requested)
    with pytest.raises(ServerError, match="it was not followed"):
        public.put(url, "send a part", headers={})
    with pytest.raises(ServerError, match="it was not followed"), public.stream(url, "fetch", headers={}):
        pass
    assert requested == []


def test_nor_by_a_name_that_stands_for_one(names: dict[str, str]) -> None:
    requested: list[str] = []
    names |= {"files.example.org": "10.0.0.5", "storage.googleapis.com": "127.0.0.1"}
    for host in names:
        with pytest.raises(ServerError, match=f"the private address {host}"):
            storage(requested).put(f"https://{host}/x", "send a part", headers={})
    assert requested == []


def test_nor_does_a_redirect() -> None:
    requested: list[str] = []
    with pytest.raises(ServerError, match=r"the private address 10\.0\.0\.1"):
        with storage(requested).stream("https://storage.googleapis.com/bucket/redirect", "fetch", headers={}):
            pass
    assert requested == ["storage.googleapis.com"]


@pytest.mark.parametrize("url", PRIVATE[:4])
def test_a_service_in_a_private_network_may_keep_its_files_there(url: str) -> None:
    requested: list[str] = []
    assert storage(requested, "http://192.168.7.7/api/v3").put(url, "send a part", headers={}).status_code == 200
    assert len(requested) == 1


def test_beside_its_own_and_public_stores_one_host_is_followed_and_remembered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    requested: list[str] = []
    own = ["crucible.lbl.gov", "files.lbl.gov", "bucket.s3.us-west-2.amazonaws.com", "storage.googleapis.com"]
    for host in (*own, "minio.example.org", "minio.example.org"):
        storage(requested, folder=tmp_path).put(f"https://{host}/x", "send a part", headers={})
    with pytest.raises(
        ServerError, match=r"leads to evil\.example\.net, and files .* were at minio\.example\.org so far"
    ):
        storage(requested, folder=tmp_path).put("https://evil.example.net/x", "send a part", headers={})
    with pytest.raises(ServerError, match=r"evil-lbl\.gov"):
        storage(requested, folder=tmp_path).put("https://evil-lbl.gov/x", "send a part", headers={})
    monkeypatch.setenv("CRUCIBLE_LINEAGE_LINK_HOSTS", "other.example.org, evil.example.net")
    storage(requested, folder=tmp_path).put("https://evil.example.net/x", "send a part", headers={})
    assert requested == [*own, "minio.example.org", "minio.example.org", "evil.example.net"]
