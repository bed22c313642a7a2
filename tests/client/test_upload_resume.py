"""Uploads that another process began, resumed from the files in the state folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient, RetryPolicy
from crucible_lineage.errors import FileConflictError, UnreachableError

QUICK = RetryPolicy(attempts=2, first_wait_s=0.001)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def keeper(stub: Any, state: Path) -> Iterator[CrucibleClient]:
    """A client with a state folder."""
    with CrucibleClient(stub.url, stub.key, retry=QUICK, state_folder=state) as keeper:
        yield keeper


def sent_parts(stub: Any) -> list[str]:
    return sorted(call.path for call in stub.storage_calls)


def test_an_upload_cut_short_goes_on_where_it_was(
    keeper: CrucibleClient, stub: Any, dsid: str, movie: Path, state: Path
) -> None:
    stub.fault("PUT", "/part/upload-1/4", "cut", times=2)
    with pytest.raises(UnreachableError):
        keeper.files.upload(dsid, movie)
    arrived = set(stub.sessions["upload-1"].parts)
    stub.storage_calls.clear()
    uploaded = keeper.files.upload(dsid, movie)
    assert stub.contents[uploaded.file.mfid] == movie.read_bytes()
    assert sent_parts(stub) == [f"/part/upload-1/{number}" for number in range(1, 5) if number not in arrived]
    assert sum(call.path.endswith("/initiate") for call in stub.calls) == 1
    assert list(state.iterdir()) == []


def test_an_upload_goes_on_after_its_process_was_killed(
    keeper: CrucibleClient, stub: Any, dsid: str, movie: Path, state: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from crucible_lineage.client import CrucibleClient;"
        "url, key, state, dsid, path = sys.argv[1:];"
        "CrucibleClient(url, key, state_folder=Path(state)).files.upload(dsid, path)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, stub.url, stub.key, str(state), dsid, str(movie)])
    stub.fault("PUT", "/part/upload-1/3", "cut", action=process.kill)
    assert process.wait() != 0
    arrived = set(stub.sessions["upload-1"].parts)
    stub.storage_calls.clear()
    uploaded = keeper.files.upload(dsid, movie)
    assert stub.contents[uploaded.file.mfid] == movie.read_bytes()
    assert not arrived & {int(path.rpartition("/")[2]) for path in sent_parts(stub)}


def test_a_session_that_the_service_forgot_is_replaced(
    keeper: CrucibleClient, stub: Any, dsid: str, movie: Path, state: Path
) -> None:
    stub.fault("POST", "/complete", "cut", times=2)
    with pytest.raises(UnreachableError):
        keeper.files.upload(dsid, movie)
    stub.forgets_sessions = True
    uploaded = keeper.files.upload(dsid, movie)
    assert stub.contents[uploaded.file.mfid] == movie.read_bytes()
    assert len(stub.sessions) == 2


def test_an_upload_that_was_finished_unheard_counts_as_existing(
    keeper: CrucibleClient, stub: Any, dsid: str, movie: Path
) -> None:
    stub.fault("POST", "/complete", "lost", times=2)
    with pytest.raises(UnreachableError):
        keeper.files.upload(dsid, movie)
    stub.forgets_sessions = True
    assert keeper.files.upload(dsid, movie).existed


def test_an_unfinished_replacement_continues_only_on_request(
    keeper: CrucibleClient, stub: Any, dsid: str, movie: Path
) -> None:
    first = keeper.files.upload(dsid, movie).file
    recalibrated = movie.read_bytes()[::-1]  # of several parts: the session is remembered
    movie.write_bytes(recalibrated)
    stub.fault("POST", "/complete", "cut", times=2)
    with pytest.raises(UnreachableError):
        keeper.files.upload(dsid, movie, replace=True)
    with pytest.raises(FileConflictError):
        keeper.files.upload(dsid, movie)
    assert stub.contents[first.mfid] != recalibrated
    keeper.files.upload(dsid, movie, replace=True)
    assert stub.contents[first.mfid] == recalibrated
