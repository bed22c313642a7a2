"""Uploads over real sockets, with faults of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient, scan_file
from crucible_lineage.errors import FileChangedError, RefusedError, ServerError, UnreachableError
from crucible_lineage.machine.process import traffic


def test_many_parts_are_signed_thirty_two_at_a_time(client: CrucibleClient, stub: Any, dsid: str, movie: Path) -> None:
    stub.part_size = 64 << 10
    uploaded = client.files.upload(dsid, movie)
    assert stub.contents[uploaded.file.mfid] == movie.read_bytes()
    signings = [call for call in stub.calls if call.path.endswith("/parts")]
    assert [len(call.json["parts"]) for call in signings] == [32, 24]


def test_storage_gets_the_signed_headers_and_length_but_no_key(
    client: CrucibleClient, stub: Any, dsid: str, movie: Path
) -> None:
    before = traffic.sent
    client.files.upload(dsid, movie)
    assert traffic.sent - before == movie.stat().st_size
    for call in stub.storage_calls:
        assert "authorization" not in call.headers
        assert stub.key not in str(call.headers)
        assert "content-type" not in call.headers
        assert int(call.headers["content-length"]) == len(call.body)
        assert call.query["part"] == ["/a b"]


def test_a_conflict_with_equal_content_counts_as_existing(
    client: CrucibleClient, stub: Any, dsid: str, spectrum: Path
) -> None:
    there = client.files.upload(dsid, spectrum).file
    detail = {"code": "filename_exists", "message": "Filename already exists", "file_mfid": there.mfid}
    stub.fault("POST", "initiate", status=409, body={"detail": detail})
    assert client.files.upload(dsid, spectrum).existed


def test_an_empty_file_arrives_without_any_part(client: CrucibleClient, stub: Any, dsid: str, tmp_path: Path) -> None:
    empty = tmp_path / "empty.log"
    empty.touch()
    uploaded = client.files.upload(dsid, empty)
    assert (uploaded.existed, uploaded.file.size) == (False, 0)
    assert stub.storage_calls == []
    assert client.files.upload(dsid, empty).existed


@pytest.mark.parametrize(
    "path",
    ["multipart/initiate", "multipart/upload-1/parts", "multipart/complete"],
    ids=["initiate", "sign", "complete"],
)
@pytest.mark.parametrize("kind", ["lost", "cut", "status"])
def test_a_lost_or_refused_answer_of_each_call_is_survived(
    client: CrucibleClient, stub: Any, dsid: str, movie: Path, path: str, kind: str
) -> None:
    stub.fault("POST", path, kind, times=2, headers={"Retry-After": "0"})
    uploaded = client.files.upload(dsid, movie)
    assert stub.contents[uploaded.file.mfid] == movie.read_bytes()
    assert len(stub.files) == 1
    assert len(stub.sessions) == 1


@pytest.mark.parametrize(("kind", "status"), [("lost", 0), ("cut", 0), ("status", 500), ("status", 408)])
def test_a_part_that_fails_is_sent_again(
    client: CrucibleClient, stub: Any, dsid: str, movie: Path, kind: str, status: int
) -> None:
    stub.fault("PUT", "/part/upload-1/2", kind, times=2, status=status)
    uploaded = client.files.upload(dsid, movie)
    assert stub.contents[uploaded.file.mfid] == movie.read_bytes()


def test_a_link_that_storage_refuses_is_signed_again(client: CrucibleClient, stub: Any, dsid: str, movie: Path) -> None:
    stub.fault("PUT", "/part/upload-1/2", status=403)
    client.files.upload(dsid, movie)
    signings = [call.json["parts"] for call in stub.calls if call.path.endswith("/parts")]
    assert [[part["part_number"] for part in parts] for parts in signings] == [[1, 2, 3, 4], [2]]


def test_a_part_that_storage_rejects_ends_the_upload_and_the_session(
    client: CrucibleClient, stub: Any, dsid: str, movie: Path
) -> None:
    stub.fault("PUT", "/part/upload-1/3", status=400, body="<Error><Code>BadDigest</Code></Error>")
    with pytest.raises(RefusedError, match=r"send part 3 of movie\.h5: storage answered 400 BadDigest"):
        client.files.upload(dsid, movie)
    assert stub.sessions == {}
    assert stub.files == {}


def test_storage_that_never_recovers_is_an_error_without_the_link(
    client: CrucibleClient, stub: Any, dsid: str, movie: Path
) -> None:
    stub.fault("PUT", "/part/", "cut", times=100)
    with pytest.raises(UnreachableError, match="no answer from storage") as caught:
        client.files.upload(dsid, movie)
    assert stub.signature not in repr(caught.value) + str(caught.value)
    assert stub.sessions == {}


def test_a_file_that_changed_since_it_was_scanned_is_not_sent(
    client: CrucibleClient, stub: Any, dsid: str, spectrum: Path
) -> None:
    checksums = scan_file(spectrum)
    spectrum.write_text("other, longer content than before")
    stub.calls.clear()
    with pytest.raises(FileChangedError):
        client.files.upload(dsid, spectrum, checksums=checksums)
    assert stub.calls == []


@pytest.mark.parametrize("change", ["edit", "remove", "append"])
def test_a_file_that_changes_while_it_is_sent_is_not_stored(
    client: CrucibleClient, stub: Any, dsid: str, movie: Path, change: str
) -> None:
    def act() -> None:
        if change == "edit":
            with movie.open("r+b") as file:
                file.write(b"other")
        elif change == "append":  # to what was sent already
            with movie.open("ab") as file:
                file.write(b"other")
        else:
            movie.unlink()

    stub.fault(*(("PUT", "/part/") if change == "append" else ("POST", "/parts$")), "pass", action=act)
    with pytest.raises(FileChangedError):
        client.files.upload(dsid, movie)
    assert stub.files == {}
    assert stub.sessions == {}


def test_full_storage_is_an_error_at_once(client: CrucibleClient, stub: Any, dsid: str, spectrum: Path) -> None:
    stub.fault("PUT", "/part/", status=507)  # once: the next part would be accepted
    with pytest.raises(ServerError, match="storage answered 507"):
        client.files.upload(dsid, spectrum)


def test_an_existing_file_with_another_checksum_is_not_believed(
    client: CrucibleClient, stub: Any, dsid: str, spectrum: Path
) -> None:
    other = stub.add_file(dsid, "other.txt", b"other")
    stub.fault("POST", "initiate", status=200, body={"existing_file": other})
    with pytest.raises(ServerError, match="has others"):
        client.files.upload(dsid, spectrum)
