"""Access: private by default, shared by projects and publicly."""

from __future__ import annotations

import base64
import hashlib

import httpx
import pytest
import requests
from crucible.models import Dataset


@pytest.fixture
def guest_id(guest):
    return guest.account.profile()["unique_id"]


def _refused(status: int):
    return pytest.raises(requests.HTTPError, match=str(status))


def test_elevated_mode_is_for_administrators(server, guest):
    headers = {"Authorization": f"Bearer {guest.api_key}", "Crucible-Privilege-Mode": "elevated"}
    assert httpx.get(f"{server.url}/account", headers=headers).status_code == 403
    assert httpx.get(f"{server.url}/account", headers=headers | {"Crucible-Privilege-Mode": "?"}).status_code == 422


def test_public_dataset_can_be_read_but_not_changed(client, guest, dataset):
    mfid = dataset()
    client.datasets.set_public(mfid)
    assert guest.datasets.get(mfid)["capabilities"]["can_edit"] is False
    for change in (
        lambda: guest.datasets.update(mfid, dataset_name="mine"),
        lambda: guest.datasets.update_scientific_metadata(mfid, {"a": 1}),
        lambda: guest.datasets.add_keyword(mfid, "mine"),
        lambda: guest.datasets.set_private(mfid),
        lambda: guest.deletions.request(mfid),
    ):
        with _refused(403):
            change()


def test_bytes_are_reused_only_from_data_that_the_key_may_read(server, api, client, guest, dataset):
    file = {"filename": "a.txt", "size": 9, "sha256_hash": hashlib.sha256(b"of others").hexdigest()}
    mfid, own = dataset(), guest.datasets.create(Dataset(dataset_name="mine"))["dsid"]
    given = {**file, "content": base64.b64encode(b"of others").decode()}
    assert api.post(f"/datasets/{mfid}/upload/initiate", json=given).is_success
    headers = {"Authorization": f"Bearer {guest.api_key}", "Crucible-Reuse": "1"}
    asked = f"{server.url}/datasets/{own}/upload/initiate"
    assert httpx.post(asked, json=file, headers=headers).json()["existing_file"] is None
    client.datasets.set_public(mfid)
    assert httpx.post(asked, json=file, headers=headers).json()["existing_file"]["sha256_hash"] == file["sha256_hash"]


@pytest.mark.parametrize(
    ("role", "may_add", "may_edit", "may_publish"),
    [
        ("viewer", False, False, False),
        ("contributor", True, False, False),
        ("editor", True, True, False),
        ("admin", True, True, True),
    ],
)
def test_role_in_the_project_allows_what_it_says(
    client, guest, guest_id, dataset, role, may_add, may_edit, may_publish
):
    project = f"team-{role}"
    client.projects.create({"project_id": project, "organization": "MF", "project_lead": "local"})
    mfid = dataset("inside", project_id=project)
    client.projects.add_user(guest_id, project, role=role)
    assert {record["unique_id"] for record in guest.datasets.list(project_id=project)} == {mfid}
    assert guest.datasets.get(mfid)["capabilities"]["can_edit"] == may_edit
    for allowed, change in (
        (may_add, lambda: guest.datasets.add_keyword(mfid, "k")),
        (may_edit, lambda: guest.datasets.update(mfid, session_name="s")),
        (may_publish, lambda: guest.datasets.set_public(mfid)),
    ):
        if allowed:
            change()
        else:
            with _refused(403):
                change()
    client.datasets.set_private(mfid)
    client.projects.remove_user(project, guest_id)
    assert guest.datasets.list(project_id=project) == []
    with _refused(404):
        guest.datasets.get(mfid)


def test_the_project_changes_only_when_confirmed(client, dataset):
    mfid = dataset()
    client.projects.create({"project_id": "team-two", "organization": "MF", "project_lead": "local"})
    client.datasets.reassign_project(mfid, "team-two")
    assert client.datasets.get(mfid)["project_id"] == "raman-lab"
    client.datasets.reassign_project(mfid, "team-two", confirm=True)
    assert client.datasets.get(mfid)["project_id"] == "team-two"


def test_deletion_is_requested_done_by_administrators_and_listed(client, guest, guest_id, dataset):
    client.projects.create({"project_id": "team-del", "organization": "MF", "project_lead": "local"})
    mfid = dataset("to be deleted", measurement="deletable", project_id="team-del")
    client.projects.add_user(guest_id, "team-del", role="editor")
    request = guest.deletions.request(mfid, reason="wrong sample")
    assert client.datasets.list(measurement="deletable") == []
    assert client.datasets.get(mfid)["deletion_request"]["id"] == request["id"]
    assert request["id"] in [found["id"] for found in guest.deletions.list()]
    with _refused(409):
        client.deletions.request(mfid)
    with _refused(403):
        guest.deletions.delete(mfid)
    client.deletions.delete(mfid)
    with _refused(404):
        client.datasets.get(mfid)
    entry = client.deletions.list_deleted(resource_id=mfid)[0]
    assert (entry["resource_name"], entry["reason"]) == ("to be deleted", "wrong sample")


def test_nobody_deletes_but_in_elevated_mode(api, dataset):
    mfid = dataset()
    normal = {"Crucible-Privilege-Mode": "normal"}
    assert api.delete(f"/resources/{mfid}", headers=normal).status_code == 403
    assert api.get(f"/datasets/{mfid}").status_code == 200
    assert api.delete(f"/resources/{mfid}").status_code == 200
    assert api.get(f"/datasets/{mfid}").status_code == 404


def test_an_administrator_learns_of_every_statement_that_a_list_shows(guest, api):
    def seen():
        answer = api.get("/datasets", params={"keyword": "statement"})
        return answer.headers["Crucible-Statements"], len(answer.json()["items"])

    before = seen()
    stated = guest.datasets.create(Dataset(dataset_name="on hold"))["dsid"]
    guest.datasets.add_keyword(stated, "statement")
    after = seen()
    assert (after[0] != before[0], after[1] - before[1]) == (True, 1)
