"""Access: private by default, shared by grants, by projects and publicly."""

from __future__ import annotations

import httpx
import pytest
import requests
from crucible import CrucibleClient as Official
from crucible.models import Dataset

from crucible_lineage.server.app import build_app


@pytest.fixture
def guest_id(guest):
    return guest.account.profile()["unique_id"]


def _refused(status: int):
    return pytest.raises(requests.HTTPError, match=str(status))


def test_every_route_but_health_and_storage_asks_for_a_key(server, storage):
    paths = build_app(None).openapi()["paths"]  # type: ignore[arg-type]
    asked = 0
    for path, methods in paths.items():
        if "/storage/" in path or "/health/" in path:
            continue
        for method in methods:
            address = server.url + path.removeprefix("/api/v3").replace("{", "").replace("}", "")
            assert storage.request(method, address).status_code == 401, (method, path)
            asked += 1
    assert asked > 100


def test_wrong_key_is_refused(server):
    for value in ("Bearer wrong", "Basic abc", "Bearer", ""):
        answer = httpx.get(f"{server.url}/account", headers={"Authorization": value})
        assert answer.status_code == 401
        assert isinstance(answer.json()["detail"], str)


def test_elevated_mode_is_for_administrators(server, guest):
    headers = {"Authorization": f"Bearer {guest.api_key}", "Crucible-Privilege-Mode": "elevated"}
    assert httpx.get(f"{server.url}/account", headers=headers).status_code == 403
    assert httpx.get(f"{server.url}/account", headers=headers | {"Crucible-Privilege-Mode": "?"}).status_code == 422


def test_dataset_of_others_does_not_exist_for_a_stranger(client, guest, dataset):
    mfid = dataset("secret alloy", measurement="hidden")
    client.datasets.update_scientific_metadata(mfid, {"alloy": "unobtainium"})
    with _refused(404):
        guest.datasets.get(mfid)
    assert guest.datasets.list(measurement="hidden") == []
    assert guest.datasets.count(measurement="hidden") == 0
    assert guest.datasets.search("secret alloy") == []
    assert guest.datasets.search_metadata("unobtainium") == []
    assert guest.datasets.facets("measurement", visibility="private")["items"] == []
    with _refused(404):
        guest.graphs.get(mfid)


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


@pytest.mark.parametrize(
    ("role", "may_add", "may_edit", "may_share"),
    [
        ("viewer", False, False, False),
        ("contributor", True, False, False),
        ("editor", True, True, False),
        ("admin", True, True, True),
    ],
)
def test_granted_role_allows_what_it_says(client, guest, guest_id, dataset, role, may_add, may_edit, may_share):
    mfid = dataset()
    grant = client.datasets.set_access(mfid, "users", guest_id, role)
    assert (grant.principal_id, grant.permission) == (guest_id, role)
    assert client.users.check_dataset_access(guest_id, mfid).effective_access == role
    capabilities = guest.datasets.get(mfid)["capabilities"]
    assert (capabilities["can_edit"], capabilities["can_manage_access"]) == (may_edit, may_share)
    for allowed, change in (
        (may_add, lambda: guest.datasets.add_keyword(mfid, "k")),
        (may_edit, lambda: guest.datasets.update(mfid, session_name="s")),
        (may_share, lambda: guest.datasets.set_public(mfid)),
    ):
        if allowed:
            change()
        else:
            with _refused(403):
                change()
    client.datasets.revoke_access(mfid, "users", guest_id)
    client.datasets.set_private(mfid)
    with _refused(404):
        guest.datasets.get(mfid)


def test_project_members_see_the_projects_data_and_what_is_shared_with_it(client, guest, guest_id, dataset):
    client.projects.create({"project_id": "team-one", "organization": "MF", "project_lead": "local"})
    inside, shared = dataset("inside", project_id="team-one"), dataset("shared")
    client.projects.add_user(guest_id, "team-one", role="viewer")
    client.datasets.set_access(shared, "projects", "team-one", "editor")
    assert {record["unique_id"] for record in guest.datasets.list(project_id="team-one")} == {inside}
    found = guest.datasets.list(project_id="team-one", project_scope="all")
    assert {record["unique_id"]: record["project_relation"] for record in found} == {
        inside: "assigned",
        shared: "shared",
    }
    with _refused(403):
        guest.datasets.update(inside, session_name="s")
    guest.datasets.update(shared, session_name="s")
    client.projects.remove_user("team-one", guest_id)
    assert guest.datasets.list(project_id="team-one", project_scope="all") == []


def test_creating_in_a_project_needs_a_part_in_it(guest, dataset):
    with _refused(403):
        guest.datasets.create(Dataset(dataset_name="x", project_id="raman-lab"))


def test_ownership_and_project_change_only_when_confirmed(client, guest_id, dataset):
    mfid = dataset()
    client.projects.create({"project_id": "team-two", "organization": "MF", "project_lead": "local"})
    client.datasets.transfer_ownership(mfid, guest_id)
    client.datasets.reassign_project(mfid, "team-two")
    assert client.datasets.get(mfid)["project_id"] == "raman-lab"
    client.datasets.transfer_ownership(mfid, guest_id, confirm=True)
    client.datasets.reassign_project(mfid, "team-two", confirm=True)
    record = client.datasets.get(mfid)
    assert (record["owner_orcid"], record["project_id"]) == (guest_id, "team-two")


def test_revoked_and_rotated_keys_stop_working(client, server):
    made = client.service_accounts.create("pilatus")
    rotated = client.service_accounts.rotate_key(made["unique_id"])["api_key"]

    def status(key: str) -> int:
        return httpx.get(f"{server.url}/account", headers={"Authorization": f"Bearer {key}"}).status_code

    assert (status(made["api_key"]), status(rotated)) == (401, 200)
    client.users.revoke_api_keys(made["unique_id"])
    assert status(rotated) == 401


def test_deletion_is_requested_reviewed_and_recorded(client, guest, guest_id, dataset):
    mfid = dataset("to be deleted", measurement="deletable")
    client.datasets.set_access(mfid, "users", guest_id, "editor")
    request = guest.deletions.request(mfid, reason="wrong sample")
    assert client.datasets.list(measurement="deletable") == []
    assert client.datasets.get(mfid)["deletion_request"]["id"] == request["id"]
    with _refused(409):
        client.deletions.request(mfid)
    with _refused(403):
        guest.deletions.approve(request["id"])
    with _refused(409):
        client.deletions.delete(mfid)
    assert request["id"] in [found["id"] for found in client.deletions.list(scope="reviewable")]
    client.deletions.approve(request["id"])
    client.deletions.delete(mfid)
    with _refused(404):
        client.datasets.get(mfid)
    entry = client.deletions.list_deleted(resource_id=mfid)[0]
    assert (entry["resource_name"], entry["reason"]) == ("to be deleted", "wrong sample")


def test_rejected_deletion_brings_the_dataset_back(client, dataset):
    mfid = dataset(measurement="kept")
    client.deletions.reject(client.deletions.request(mfid)["id"])
    assert [record["unique_id"] for record in client.datasets.list(measurement="kept")] == [mfid]
    client.deletions.request(mfid)


def test_nobody_deletes_without_an_approved_request_but_in_elevated_mode(api, dataset):
    mfid = dataset()
    normal = {"Crucible-Privilege-Mode": "normal"}
    assert api.delete(f"/resources/{mfid}", params={"force": True}, headers=normal).status_code == 403
    assert api.get(f"/datasets/{mfid}").status_code == 200
    assert api.delete(f"/resources/{mfid}", params={"force": True}).status_code == 200
    assert api.get(f"/datasets/{mfid}").status_code == 404


def test_service_accounts_are_looked_at_and_promoted_by_administrators_only(client, server, api):
    made = client.service_accounts.create("robot")
    mfid, robot, own = made["unique_id"], Official(server.url, made["api_key"]), client.whoami()["user_unique_id"]
    assert client.service_accounts.get_admin(mfid)["username"] == "robot"
    assert client.service_accounts.set_platform_role(mfid, "contributor")["platform_role"] == "contributor"
    assert client.users.verify_api_key(mfid)["valid"] is True
    assert robot.users.verify_api_key(mfid)["valid"] is True
    with _refused(403):
        robot.users.set_platform_role(mfid, "admin")
    with _refused(403):
        robot.users.verify_api_key(own)
    with _refused(409):
        client.users.set_platform_role(own, "none")
    assert api.get(f"/service_accounts/{own}").status_code == 404
    assert client.users.list_access_groups(mfid) == []
    assert client.account.profile()["capabilities"]["can_manage_users"] is False


def test_lists_and_searches_select_instruments_by_the_same_affiliations(client, guest, guest_id, api):
    body = {"instrument_id": "ftir-3", "instrument_name": "Bruker Tensor", "location": "B67"}
    mfid = client.instruments.create(body)["unique_id"]
    api.put(f"/resources/{mfid}/access/users/{guest_id}", json={"permission": "editor"}).raise_for_status()
    for affiliation, is_found in (("maintainer", True), ("owner", False)):
        listed = guest.instruments.list(instrument_name="Bruker Tensor", affiliation=[affiliation])
        found = guest.instruments.search("Bruker Tensor", affiliation=[affiliation])
        assert [bool(listed), bool(found)] == [is_found, is_found]


def test_users_and_service_accounts_are_found_in_upper_and_lower_case(client, api):
    client.service_accounts.create("uploader-9")
    for path in ("/users", "/service_accounts"):
        names = [item["username"] for item in api.get(path, params={"q": "UPLOADER-9"}).json()["items"]]
        assert names == ["uploader-9"]


def test_an_administrator_learns_of_every_statement_that_a_list_shows(guest, api):
    def seen():
        answer = api.get("/datasets", params={"keyword": "statement"})
        return answer.headers["Crucible-Statements"], len(answer.json()["items"])

    before = seen()
    stated = guest.datasets.create(Dataset(dataset_name="on hold"))["dsid"]
    guest.datasets.add_keyword(stated, "statement")
    after = seen()
    assert (after[0] != before[0], after[1] - before[1]) == (True, 1)


def test_only_the_owner_gives_a_dataset_away(client, guest, guest_id, api, dataset):
    mfid = dataset()
    api.put(f"/resources/{mfid}/access/users/{guest_id}", json={"permission": "editor"}).raise_for_status()
    assert guest.datasets.update(mfid, instrument_name="a balance")["instrument_name"] == "a balance"
    with _refused(403):
        guest.datasets.update(mfid, owner_orcid=guest_id)
    assert client.datasets.update(mfid, owner_orcid=guest_id)["owner_orcid"] == guest_id
