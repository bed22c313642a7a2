"""Uploads of bytes that the service has already send nothing, for users who may read them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from crucible_lineage.client import CrucibleClient


@pytest.fixture
def ours(server):
    with CrucibleClient(server.url, server.api_key) as opened:
        yield opened


def made(client: CrucibleClient) -> str:
    return client.datasets.create({"dataset_name": "shares files", "project_id": "reuse-lab"}).dsid


@pytest.fixture
def project(ours):
    if ours.projects.find("reuse-lab") is None:
        lead = ours.account.whoami().user_unique_id
        ours.projects.create(project_id="reuse-lab", organization="test", project_lead=lead)


def initiate(api, mfid: str, path: Path, **headers: str):
    content = path.read_bytes()
    body = {"filename": path.name, "size": len(content), "sha256_hash": hashlib.sha256(content).hexdigest()}
    return api.post(f"/datasets/{mfid}/upload/multipart/initiate", json=body, headers=headers).json()


@pytest.mark.parametrize("protocol", ["signed", "resumable"])
def test_another_dataset_gets_them_without_their_being_sent(ours, project, tmp_path, protocol):
    path = tmp_path / f"{protocol}.bin"
    path.write_bytes(protocol.encode() * 1000)
    first = ours.files.upload(made(ours), path, protocol=protocol)
    other = made(ours)
    again = ours.files.upload(other, path, filename="other.bin", protocol=protocol)
    assert not again.existed, "the file is new in its dataset"
    assert again.file.mfid != first.file.mfid
    assert ours.files.download_bytes(again.file) == path.read_bytes()
    assert [file.filename for file in ours.files.list(other)] == ["other.bin"]


def test_users_who_may_not_read_the_bytes_must_send_them(ours, project, api, client, server, tmp_path):
    path = tmp_path / "secret.bin"
    path.write_bytes(b"secret" * 1000)
    ours.files.upload(made(ours), path)
    key = client.service_accounts.create("guesses-hashes")["api_key"]
    with CrucibleClient(server.url, key) as stranger:
        mfid = stranger.datasets.create({"dataset_name": "a guess"}).dsid
    answer = initiate(api, mfid, path, **{"Authorization": f"Bearer {key}", "Crucible-Reuse-Content": "readable"})
    assert answer["existing_file"] is None
    assert answer["upload_id"]


def test_other_clients_send_them_as_before(ours, project, api, tmp_path):
    path = tmp_path / "twice.bin"
    path.write_bytes(b"twice" * 1000)
    ours.files.upload(made(ours), path)
    assert initiate(api, made(ours), path)["existing_file"] is None


def test_damaged_bytes_are_sent_again(ours, project, data_folder, tmp_path):
    path = tmp_path / "damaged.bin"
    path.write_bytes(b"damaged" * 1000)
    sha256 = ours.files.upload(made(ours), path).file.sha256_hash
    (stored,) = [one for one in data_folder.rglob(sha256[2:]) if one.parent.name == sha256[:2]]
    stored.write_bytes(b"DAMAGED" * 1000)
    again = ours.files.upload(made(ours), path)
    assert ours.files.download_bytes(again.file) == path.read_bytes()
