"""Files: uploaded by every protocol, downloaded completely or in part, and never under a name that leads elsewhere."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import stat
from pathlib import Path

import google_crc32c
import pytest


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


def test_empty_file_is_registered_and_its_damage_healed(client, dataset, tmp_path, storage, data_folder):
    empty = tmp_path / "empty.dat"
    empty.touch()
    for _ in "ab":
        file = client.datasets.add_file(dataset(), str(empty), multipart=False)["associated_file"]
        assert file["size"] == 0
        assert storage.get(client.files.get_download_link(file["mfid"])).content == b""
        _content(data_folder, hashlib.sha256(b"").hexdigest()).write_bytes(b"no longer")


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
