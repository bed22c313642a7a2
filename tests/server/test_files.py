"""Files: uploaded by every protocol, downloaded completely or in part, and never under a name that leads elsewhere."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import stat
from pathlib import Path

import google_crc32c
import httpx
import pytest
import requests


@pytest.fixture
def upload(api, dataset):
    """An open signed upload of some bytes: the dataset, the session, the signed part and the bytes."""

    def begin(content: bytes, filename: str = "frame.bin"):
        mfid = dataset()
        announced = {"filename": filename, "size": len(content), "sha256_hash": hashlib.sha256(content).hexdigest()}
        session = api.post(f"/datasets/{mfid}/upload/multipart/initiate", json=announced).json()
        crc = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
        parts = {"parts": [{"part_number": 1, "crc32c": crc}]}
        signed = api.post(f"/datasets/{mfid}/upload/multipart/{session['upload_id']}/parts", json=parts).json()
        complete = {"upload_id": session["upload_id"], "sha256_hash": announced["sha256_hash"], "crc32c": crc}
        return mfid, signed["parts"][0], complete

    return begin


def test_signed_upload_arrives_and_comes_back(client, dataset, spectrum, tmp_path):
    mfid = dataset()
    file = client.datasets.add_file(mfid, str(spectrum))["associated_file"]
    assert file["sha256_hash"] == hashlib.sha256(spectrum.read_bytes()).hexdigest()
    paths = [Path(path) for path in client.datasets.download(mfid, output_dir=str(tmp_path / "down"))]
    assert [path.name for path in paths] == ["record.json", "polystyrene.txt"]
    assert paths[1].read_bytes() == spectrum.read_bytes()


def test_an_upload_arrives_where_folders_cannot_be_flushed(client, dataset, tmp_path, monkeypatch):
    """Some network file systems refuse it."""
    really = os.fsync

    def flush(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        really(handle)

    monkeypatch.setattr(os, "fsync", flush)
    path = tmp_path / "new.txt"
    path.write_text("bytes of which the store has no copy yet")
    assert client.datasets.add_file(dataset(), str(path))["associated_file"]["size"] == path.stat().st_size


@pytest.mark.parametrize("damage", ["flipped", "cut", "lost"])
@pytest.mark.parametrize("way", ["again", "elsewhere", "replaced", "resumable"])
def test_damaged_bytes_are_healed_by_a_good_upload(client, api, dataset, tmp_path, data_folder, storage, damage, way):
    spectrum = tmp_path / "spectrum.txt"
    spectrum.write_text(f"{damage} {way}\n" * 50)
    mfid = dataset()
    file = client.datasets.add_file(mfid, str(spectrum))["associated_file"]
    content = _content(data_folder, file["sha256_hash"])
    _damage(content, damage)
    if way == "resumable":
        _send_resumable(api, storage, mfid, spectrum)
    else:
        target = dataset() if way == "elsewhere" else mfid
        client.datasets.add_file(target, str(spectrum), replace=way == "replaced")
    assert content.read_bytes() == spectrum.read_bytes()
    (there,) = client.datasets.list_files(mfid)
    assert (there["mfid"], there["etag"]) == (file["mfid"], file["etag"])
    assert storage.get(client.files.get_download_link(file["mfid"])).content == spectrum.read_bytes()


def test_a_part_that_is_lost_before_it_is_complete_is_sent_again(api, upload, storage, data_folder):
    mfid, part, complete = upload(b"frame that is lost")
    storage.put(part["url"], headers=part["headers"], content=b"frame that is lost").raise_for_status()
    (data_folder / "uploads" / complete["upload_id"] / "1.part").unlink()
    refused = api.post(f"/datasets/{mfid}/upload/multipart/complete", json=complete)
    assert (refused.status_code, "upload them again" in refused.text) == (409, True)
    storage.put(part["url"], headers=part["headers"], content=b"frame that is lost").raise_for_status()
    assert api.post(f"/datasets/{mfid}/upload/multipart/complete", json=complete).status_code == 200


def _content(data_folder: Path, sha256: str) -> Path:
    return data_folder / "contents" / sha256[:2] / sha256[2:]


def _damage(content: Path, how: str) -> None:
    if how == "flipped":
        with content.open("r+b") as file:
            file.write(b"X")
    elif how == "cut":
        os.truncate(content, 10)
    else:
        content.unlink()


def _send_resumable(api, storage, mfid: str, path: Path) -> None:
    content = path.read_bytes()
    announced = {"filename": path.name, "size": len(content), "sha256_hash": hashlib.sha256(content).hexdigest()}
    opened = api.post(f"/datasets/{mfid}/upload/initiate", json=announced).json()
    storage.put(opened["resumable_uri"], content=content).raise_for_status()
    done = {"upload_id": opened["upload_id"], "sha256_hash": announced["sha256_hash"]}
    api.post(f"/datasets/{mfid}/upload/complete", json=done).raise_for_status()


def test_same_name_with_other_bytes_is_refused_until_replaced(client, dataset, spectrum, storage):
    mfid = dataset()
    before = client.datasets.add_file(mfid, str(spectrum))["associated_file"]
    old_link = client.files.get_download_link(before["mfid"])
    old_bytes = spectrum.read_bytes()
    spectrum.write_text("shift,counts\n1,2\n")
    with pytest.raises(Exception, match="different content"):
        client.datasets.add_file(mfid, str(spectrum))
    after = client.datasets.add_file(mfid, str(spectrum), replace=True)["associated_file"]
    assert after["mfid"] == before["mfid"]
    assert after["etag"] != before["etag"]
    assert storage.get(old_link).content == old_bytes
    assert storage.get(client.files.get_download_link(after["mfid"])).content == spectrum.read_bytes()


def test_replacing_needs_the_present_etag(api, client, dataset, spectrum):
    file = client.datasets.add_file(dataset(), str(spectrum))["associated_file"]
    body = {"size": 3, "sha256_hash": "a" * 64}
    path = f"/files/{file['mfid']}/upload/multipart/initiate"
    assert api.post(path, json=body, headers={"If-Match": '"other"'}).status_code == 412
    assert api.post(path, json=body, headers={"If-Match": file["etag"]}).status_code == 201


def test_empty_file_is_registered_and_its_damage_healed(client, dataset, tmp_path, storage, data_folder):
    empty = tmp_path / "empty.dat"
    empty.touch()
    for _ in "ab":
        file = client.datasets.add_file(dataset(), str(empty), multipart=False)["associated_file"]
        assert file["size"] == 0
        assert storage.get(client.files.get_download_link(file["mfid"])).content == b""
        _content(data_folder, hashlib.sha256(b"").hexdigest()).write_bytes(b"no longer")


def test_resumable_upload_goes_on_where_it_broke_off(api, client, dataset, storage):
    content = os.urandom(300_000)
    mfid = dataset()
    announced = {"filename": "map.bin", "size": len(content), "sha256_hash": hashlib.sha256(content).hexdigest()}
    session = api.post(f"/datasets/{mfid}/upload/initiate", json=announced).json()
    uri = session["resumable_uri"]

    def put(first: int, last: int) -> httpx.Response:
        chunk_range = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return storage.put(uri, content=content[first : last + 1], headers=chunk_range)

    assert storage.put(uri, headers={"Content-Range": f"bytes */{len(content)}"}).status_code == 308
    assert put(0, 99_999).headers["Range"] == "bytes=0-99999"
    assert put(0, 99_999).headers["Range"] == "bytes=0-99999"
    assert put(200_000, 299_999).status_code == 400
    assert put(100_000, 299_999).status_code == 200
    complete = {"upload_id": session["upload_id"], "sha256_hash": announced["sha256_hash"]}
    file = api.post(f"/datasets/{mfid}/upload/complete", json=complete).json()
    assert api.post(f"/datasets/{mfid}/upload/complete", json=complete).json() == file
    assert storage.get(client.files.get_download_link(file["mfid"])).content == content


def test_part_with_other_bytes_than_signed_is_rejected_and_not_counted(api, upload, storage):
    mfid, part, complete = upload(b"a" * 1000)
    for wrong in (b"b" * 1000, b"a" * 999, b"a" * 1001):
        assert storage.put(part["url"], content=wrong).status_code == 400
    assert api.post(f"/datasets/{mfid}/upload/multipart/complete", json=complete).status_code == 409
    assert storage.put(part["url"], content=b"a" * 1000).status_code == 200
    assert api.post(f"/datasets/{mfid}/upload/multipart/complete", json=complete).json()["size"] == 1000


def test_bytes_that_do_not_have_the_announced_sha256_become_no_file(api, upload, storage):
    mfid, part, complete = upload(b"c" * 1000)
    path = f"/datasets/{mfid}/upload/multipart/complete"
    assert storage.put(part["url"], content=b"c" * 1000).status_code == 200
    assert api.post(path, json=complete | {"sha256_hash": "0" * 64}).status_code == 422
    assert api.get(f"/datasets/{mfid}/files").json() == []
    assert api.post(path, json=complete).status_code == 200


def test_aborted_session_takes_no_more_parts(api, upload, storage):
    mfid, part, complete = upload(b"d" * 10)
    assert api.delete(f"/datasets/{mfid}/upload/multipart/{complete['upload_id']}").status_code == 204
    assert storage.put(part["url"], content=b"d" * 10).status_code == 404
    assert api.post(f"/datasets/{mfid}/upload/multipart/complete", json=complete).status_code == 404


@pytest.mark.parametrize("change", [("signature=", "signature=0"), ("expires=", "expires=9"), ("size=", "size=1")])
def test_altered_link_is_refused(upload, change, storage):
    _, part, _ = upload(b"e" * 10)
    assert storage.put(part["url"].replace(*change), content=b"e" * 10).status_code == 403


def test_link_serves_a_range_and_ignores_a_key(client, dataset, spectrum, storage):
    file = client.datasets.add_file(dataset(), str(spectrum))["associated_file"]
    link = client.files.get_download_link(file["mfid"])
    answer = storage.get(link, headers={"Range": "bytes=2-7", "Authorization": "Bearer nonsense"})
    assert (answer.status_code, answer.content) == (206, spectrum.read_bytes()[2:8])
    assert "polystyrene.txt" in answer.headers["Content-Disposition"]


@pytest.mark.parametrize("name", ["../escape", "a\\b", "", "x\n", "n" * 300])
def test_file_name_cannot_lead_elsewhere(api, dataset, name):
    body = {"filename": name, "size": 1, "sha256_hash": "a" * 64}
    assert api.post(f"/datasets/{dataset()}/upload/multipart/initiate", json=body).status_code == 422


@pytest.mark.parametrize("name", ["Si 100 %25 #1?.txt", "Größe.txt", "..txt"])
def test_odd_file_name_survives_the_round_trip(client, dataset, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"bytes of " + name.encode())
    mfid = dataset()
    client.datasets.add_file(mfid, str(path))
    paths = client.datasets.download(mfid, output_dir=str(tmp_path / "down"))
    assert Path(paths[1]).name == name
    assert Path(paths[1]).read_bytes() == path.read_bytes()


def test_no_content_is_shown_by_a_browser(client, dataset, tmp_path, storage):
    page = tmp_path / "page.html"
    page.write_text("<script>alert(1)</script>")
    file = client.datasets.add_file(dataset(), str(page))["associated_file"]
    answer = storage.get(client.files.get_download_link(file["mfid"]))
    assert answer.headers["Content-Disposition"].startswith("attachment")


def test_deleted_file_is_gone_from_the_dataset(client, dataset, spectrum):
    mfid = dataset()
    file = client.datasets.add_file(mfid, str(spectrum))["associated_file"]
    client.files.delete(file["mfid"])
    assert client.datasets.list_files(mfid) == []
    assert client.datasets.get_download_links(mfid) == {}
    with pytest.raises(requests.HTTPError, match="404"):
        client.files.get(file["mfid"])


def test_bytes_of_a_deleted_dataset_are_freed_unless_others_have_them(client, api, dataset, tmp_path, data_folder):
    shared, alone = tmp_path / "shared.txt", tmp_path / "alone.txt"
    shared.write_text("frames that two datasets have\n")
    alone.write_text("frames of one\n")
    kept, gone = dataset(), dataset()
    there = client.datasets.add_file(kept, str(shared))["associated_file"]
    for path in (shared, alone):
        client.datasets.add_file(gone, str(path))
    lonely = _content(data_folder, hashlib.sha256(alone.read_bytes()).hexdigest())
    api.post(f"/resources/{gone}/delete").raise_for_status()
    assert lonely.exists(), "a request deletes nothing"
    api.delete(f"/resources/{gone}").raise_for_status()
    assert not lonely.exists()
    assert _content(data_folder, there["sha256_hash"]).read_bytes() == shared.read_bytes()
    assert client.datasets.list_files(kept)[0]["mfid"] == there["mfid"]
