"""Downloads from storage to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.files import local_path
from crucible_lineage.client.models import FileRecord
from crucible_lineage.errors import ChecksumError, InputError, NotFoundError, ServerError
from crucible_lineage.machine.process import traffic

DATASET = "0tr5k2ndm5zvd000nr21qakeh4"


@pytest.fixture
def file(client: CrucibleClient, stub: Any, dsid: str, movie: Path) -> FileRecord:
    """A file that Crucible has."""
    return client.files.upload(dsid, movie).file


def test_a_file_comes_back_whole_and_without_the_key_going_out(
    client: CrucibleClient, stub: Any, file: FileRecord, movie: Path, tmp_path: Path
) -> None:
    path = client.files.download(file.mfid, tmp_path / "back")
    assert path == tmp_path / "back" / "movie.h5"
    assert path.read_bytes() == movie.read_bytes() == client.files.download_bytes(file)
    assert [entry.name for entry in path.parent.iterdir()] == ["movie.h5"]
    assert not [call for call in stub.storage_calls if "authorization" in call.headers]


def test_an_interrupted_download_is_continued_where_it_stopped(
    client: CrucibleClient, stub: Any, file: FileRecord, movie: Path, tmp_path: Path
) -> None:
    content = movie.read_bytes()
    short = {"Content-Length": str(len(content))}
    stub.fault("GET", "/object/", "short", headers=short, body=content[: 1 << 20])
    path = client.files.download(file, tmp_path / "back")
    assert stub.storage_calls[-1].headers["range"] == f"bytes={1 << 20}-"
    assert path.read_bytes() == content


@pytest.mark.parametrize("status", [403, 503, 200])
def test_a_download_is_repeated_as_other_calls_are_with_a_new_link(
    client: CrucibleClient, stub: Any, file: FileRecord, movie: Path, tmp_path: Path, status: int
) -> None:
    """200 is a web page: the answer of something between here and storage."""
    downloads = (
        lambda: client.files.download_bytes(file),
        lambda: client.files.download(file, tmp_path / "one").read_bytes(),
        lambda: client.datasets.download(file.dataset_mfid, tmp_path / "all")[0].read_bytes(),
    )
    for download in downloads:
        stub.fault("GET", "/object/", times=2, status=status, headers={"Content-Type": "text/html"}, body="<html>")
        asked = stub.seen().count("GET /files/ID/download_link")
        assert download() == movie.read_bytes()
        assert stub.seen().count("GET /files/ID/download_link") - asked >= 2


def test_a_download_that_always_fails_ends_with_storages_answer(
    client: CrucibleClient, stub: Any, file: FileRecord, tmp_path: Path
) -> None:
    stub.fault("GET", "/object/", times=9, status=502)
    with pytest.raises(ServerError, match="storage answered 502"):
        client.files.download(file, tmp_path)
    stub.faults.clear()
    stub.fault("GET", "/object/", times=9, status=404)
    with pytest.raises(NotFoundError):
        client.files.download(file, tmp_path)
    assert len([call for call in stub.storage_calls if call.path.startswith("/object/")]) == 4 + 1


def test_storage_that_ignores_the_range_is_read_from_the_start(
    client: CrucibleClient, stub: Any, file: FileRecord, movie: Path, tmp_path: Path
) -> None:
    partial = tmp_path / f".movie.h5.{str(file.sha256_hash)[:16]}.part"
    partial.write_bytes(movie.read_bytes()[:1000])
    stub.fault("GET", "/object/", "short", headers={}, body=movie.read_bytes())
    movie.unlink()
    client.files.download(file, tmp_path)
    assert movie.read_bytes() == stub.contents[file.mfid]


def test_other_bytes_than_recorded_are_not_kept(
    client: CrucibleClient, stub: Any, file: FileRecord, tmp_path: Path
) -> None:
    stub.contents[file.mfid] = b"rotten"
    with pytest.raises(ChecksumError, match="other bytes than recorded; nothing was kept"):
        client.files.download(file, tmp_path / "back")
    assert list((tmp_path / "back").iterdir()) == []


def test_a_download_stops_at_the_recorded_size(
    client: CrucibleClient, stub: Any, file: FileRecord, movie: Path, tmp_path: Path
) -> None:
    before = traffic.received
    endless = movie.read_bytes() * 20
    for _ in range(2):
        stub.fault("GET", "/object/", "short", headers={}, body=endless)
    with pytest.raises(ChecksumError, match=r"is longer than the recorded .* bytes; nothing was kept"):
        client.files.download(file, tmp_path / "back")
    assert traffic.received - before <= movie.stat().st_size
    assert list((tmp_path / "back").iterdir()) == []
    with pytest.raises(ChecksumError, match="is longer than"):
        client.files.download_bytes(file)


def test_a_file_that_crucible_only_knows_of_is_refused(client: CrucibleClient, tmp_path: Path) -> None:
    record = FileRecord(mfid=DATASET, filename="x.h5", storage_backend="globus", storage_path="/x.h5")
    with pytest.raises(InputError, match="its record, not its bytes"):
        client.files.download(record, tmp_path)


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "C:\\x", "..", "a\\..\\b", "C:x", ""])
def test_a_name_never_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leads out of"):
        local_path(tmp_path, FileRecord(mfid=DATASET, filename=name))
    stored = FileRecord(mfid=DATASET, filename=name, dataset_mfid=DATASET, storage_path=f"bucket/{DATASET}/{name}")
    with pytest.raises(InputError, match="leads out of"):
        local_path(tmp_path, stored)


def test_folders_in_the_storage_path_are_kept(tmp_path: Path) -> None:
    record = FileRecord(
        mfid=DATASET, filename="f.h5", dataset_mfid=DATASET, storage_path=f"bucket/{DATASET}/run 1/f.h5"
    )
    assert local_path(tmp_path, record) == tmp_path / "run 1" / "f.h5"
