"""Resumable uploads, and the choice of the protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient, uploads
from crucible_lineage.errors import ServerError

CHUNK = 1 << 20


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "SMALLEST_CHUNK", CHUNK)


@pytest.fixture(autouse=True)
def _one_piece(stub: Any) -> None:
    stub.signed_uploads = False


def ranges(stub: Any) -> list[str]:
    return [call.headers["content-range"] for call in stub.storage_calls]


def test_a_file_goes_in_chunks_one_after_the_other(client: CrucibleClient, stub: Any, dsid: str, movie: Path) -> None:
    uploaded = client.files.upload(dsid, movie)
    size = movie.stat().st_size
    assert stub.contents[uploaded.file.mfid] == movie.read_bytes()
    assert ranges(stub) == [
        f"bytes 0-{CHUNK - 1}/{size}",
        f"bytes {CHUNK}-{2 * CHUNK - 1}/{size}",
        f"bytes {2 * CHUNK}-{3 * CHUNK - 1}/{size}",
        f"bytes {3 * CHUNK}-{size - 1}/{size}",
    ]
    assert not [call for call in stub.storage_calls if "authorization" in call.headers]
    assert client.files.upload(dsid, movie).existed


@pytest.mark.parametrize("kind", ["cut", "lost", "status"])
def test_after_a_failure_storage_is_asked_how_far_it_has_come(
    client: CrucibleClient, stub: Any, dsid: str, movie: Path, kind: str
) -> None:
    stub.fault("PUT", "/resumable/", "pass")
    stub.fault("PUT", "/resumable/", kind)
    uploaded = client.files.upload(dsid, movie)
    assert stub.contents[uploaded.file.mfid] == movie.read_bytes()
    held = 2 * CHUNK if kind == "lost" else CHUNK
    size = movie.stat().st_size
    assert ranges(stub)[2:4] == [f"bytes */{size}", f"bytes {held}-{held + CHUNK - 1}/{size}"]


def test_a_last_answer_that_was_lost_is_found_out(client: CrucibleClient, stub: Any, dsid: str, movie: Path) -> None:
    for _ in range(3):
        stub.fault("PUT", "/resumable/", "pass")
    stub.fault("PUT", "/resumable/", "lost")
    assert not client.files.upload(dsid, movie).existed
    assert ranges(stub)[-1] == f"bytes */{movie.stat().st_size}"


def test_storage_that_takes_nothing_of_a_chunk_is_not_fed_for_ever(
    client: CrucibleClient, stub: Any, dsid: str, movie: Path
) -> None:
    stub.fault("PUT", "/resumable/", "pass")
    stub.fault("PUT", "/resumable/", times=99, status=308, headers={"Range": f"bytes=0-{CHUNK - 1}"})
    with pytest.raises(ServerError, match="accepted no byte"):
        client.files.upload(dsid, movie)


def test_a_replacement_needs_signed_uploads(client: CrucibleClient, dsid: str, spectrum: Path) -> None:
    with pytest.raises(ServerError, match="disabled"):
        client.files.upload(dsid, spectrum, replace=True)
