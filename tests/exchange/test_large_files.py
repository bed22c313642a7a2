"""A large file over a connection that is cut again and again: it goes on where it was, and is sent about once."""

from __future__ import annotations

import os
from typing import Any

import httpx
import pytest

from crucible_lineage.session import Session

PART = 64 << 20
CUTS = 4


def test_a_file_that_is_cut_four_times_goes_on_where_it_was(
    offline: Session, service: Any, push: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRUCIBLE_LINEAGE_RETRIES", "1")
    monkeypatch.setattr("crucible_lineage.exchange.copying.FIRST_WAIT_S", 0.01)
    scan = tmp_path / "scan.bin"
    with scan.open("wb") as stream:
        for number in range(3):
            stream.write(os.urandom(1 << 20) * (PART >> 20) if number < 2 else b"e" * 1000)
    made = offline.client.datasets.create({"dataset_name": "scan", "project_id": "lab"}).dsid
    offline.client.files.upload(made, scan)
    scan.unlink()
    arrived: list[int] = []
    cuts = tries = 0
    send = httpx.Client.send

    def cut(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        nonlocal cuts, tries
        is_theirs = str(request.url).startswith(service.url.removesuffix("/api/v3"))
        size = int(request.headers.get("Content-Length") or 0)
        if request.method == "PUT" and is_theirs and size > 100:
            tries += 1
            if cuts < CUTS and tries % 5:
                cuts += 1
                raise httpx.WriteError("the connection was cut", request=request)
        answer = send(self, request, **options)
        if request.method == "PUT" and is_theirs and answer.is_success:
            arrived.append(size)
        return answer

    monkeypatch.setattr(httpx.Client, "send", cut)
    _, outcome = push(service, offline, patience_s=120.0)
    assert (outcome.skipped, cuts) == ([], CUTS)
    assert arrived.count(PART) == 2, "a part that has arrived is not sent again"
    with service.session() as session:
        (file,) = session.client.files.list(made)
        assert file.size == 2 * PART + 1000
        assert session.client.files.download(file, tmp_path / "back").stat().st_size == file.size
