"""The revision of a project changes after a loss and only then, and comes with common answers."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.server.database import instance_id, project_changes, project_revision
from tests.serving import start_server

PROJECT = {"project_id": "raman-lab", "organization": "Molecular Foundry", "project_lead": "local"}
EMPTY = {"filename": "a.csv", "size": 0, "sha256_hash": hashlib.sha256(b"").hexdigest()}


class Lab:
    """One server with a project, and requests to it that must succeed."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.post("/projects", PROJECT)
        self.post("/projects", PROJECT | {"project_id": "other-lab"})

    def ask(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        answer = self.http.request(method, path, json=body, params=params)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def post(self, path: str, body: Any = None, **params: Any) -> Any:
        return self.ask("POST", path, body, **params)

    def dataset(self, **fields: Any) -> str:
        return str(self.post("/datasets", {"project_id": "raman-lab", **fields})["unique_id"])

    def file(self, dataset: str) -> str:
        made = self.post(f"/datasets/{dataset}/upload/multipart/initiate", EMPTY)
        return str(made["existing_file"]["mfid"])

    def revision(self, project: str = "raman-lab") -> tuple[str, int]:
        answer = self.http.get("/projects", params={"project_id": project})
        token, _, made = answer.headers["Crucible-Revision"].rpartition(":")
        return token, int(made)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with start_server(tmp_path_factory.mktemp("crucible")) as server:
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.api_key}"}) as http:
            yield Lab(http)


LOSSES: dict[str, Callable[[Lab, str, str], Any]] = {
    "deletion asked for": lambda lab, one, _: lab.post(f"/resources/{one}/delete"),
    "deletion": lambda lab, one, _: lab.ask("DELETE", f"/resources/{one}"),
    "file deleted": lambda lab, one, _: lab.ask("DELETE", f"/files/{lab.file(one)}"),
    "link removed": lambda lab, one, other: (
        lab.post(f"/datasets/{other}/children/{one}"), lab.ask("DELETE", f"/datasets/{other}/children/{one}")
    ),
    "metadata replaced": lambda lab, one, _: (
        lab.post(f"/resources/{one}/metadata", {"a": 1}), lab.post(f"/resources/{one}/metadata", {}, overwrite=True)
    ),
    "moved away": lambda lab, one, _: lab.post(f"/resources/{one}/project", {"project_id": "other-lab"}, confirm=True),
    "made private": lambda lab, one, _: (
        lab.ask("PUT", f"/resources/{one}/access/public"), lab.ask("DELETE", f"/resources/{one}/access/public")
    ),
}  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
def test_it_is_another_one_after_a_loss_and_only_in_that_project(lab: Lab, loss: str) -> None:
    one, other = lab.dataset(), lab.dataset()
    before, elsewhere = lab.revision(), lab.revision("other-lab")
    LOSSES[loss](lab, one, other)
    assert lab.revision()[0] != before[0]
    assert lab.revision("other-lab")[0] == elsewhere[0]


def test_what_is_made_counts_up_and_changes_nothing_else(lab: Lab) -> None:
    before = lab.revision()
    one, other = lab.dataset(), lab.dataset()
    lab.post(f"/datasets/{one}/children/{other}")
    lab.post(f"/datasets/{one}/keywords", keyword="new")
    lab.ask("PATCH", f"/resources/{one}/metadata", {"a": 1})
    lab.ask("PATCH", f"/datasets/{one}", {"session_name": "s"})
    lab.file(one)
    assert lab.revision() == (before[0], before[1] + 2)


def test_lists_and_new_records_tell_it_too(lab: Lab) -> None:
    expected = ":".join(map(str, lab.revision()))
    for path in ("/datasets?project_id=raman-lab&limit=0", "/samples?project_id=raman-lab", "/projects/raman-lab"):
        assert lab.http.get(path).headers["Crucible-Revision"] == expected
    assert "Crucible-Revision" not in lab.http.get("/datasets").headers
    made = lab.http.post("/datasets", json={"project_id": "raman-lab"})
    assert made.headers["Crucible-Revision"] == ":".join(map(str, lab.revision()))


def test_nonmembers_do_not_get_the_revision(lab: Lab) -> None:
    key = lab.post("/service_accounts", {"username": "outsider"})["api_key"]
    outsider = {"Authorization": f"Bearer {key}"}
    for path in ("/projects?project_id=raman-lab", "/projects/raman-lab", "/datasets?project_id=raman-lab"):
        answer = lab.http.get(path, headers=outsider)
        assert (answer.status_code, "Crucible-Revision" in answer.headers) == (200, False)


def test_an_emptied_database_is_another_instance_and_a_backup_brought_back_counts_less(tmp_path: Path) -> None:
    def fill(datasets: int) -> None:
        with start_server(tmp_path) as server:
            with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.api_key}"}) as http:
                http.post("/projects", json=PROJECT)
                for _ in range(datasets):
                    http.post("/datasets", json={"project_id": "raman-lab"}).raise_for_status()

    def revision() -> tuple[str, int]:
        token, _, made = str(project_revision(tmp_path, "raman-lab")).rpartition(":")
        return token, int(made)

    assert (instance_id(tmp_path), project_revision(tmp_path, "raman-lab")) == (None, None)
    fill(2)
    first, name = revision(), instance_id(tmp_path)
    backup = shutil.copy(tmp_path / "crucible.db", tmp_path / "backup.db")
    fill(3)
    assert revision() == (first[0], first[1] + 3)
    shutil.copy(backup, tmp_path / "crucible.db")
    assert revision() == first
    (tmp_path / "crucible.db").unlink()
    fill(5)
    assert revision()[0] != first[0]
    assert instance_id(tmp_path) not in (name, None)


def test_a_list_and_the_folder_select_the_same_datasets_by_keyword(client, dataset, data_folder):
    for keyword in ("pipeline:Scale", "pipeline:scale-all", "other"):
        client.datasets.add_keyword(dataset(), keyword)
        client.datasets.add_keyword(withdrawn := dataset(), keyword)
        client.deletions.request(withdrawn)
    for keyword in ("pipeline:scale", "PIPELINE:SCALE-ALL", "nothing"):
        listed = {found["unique_id"] for found in client.datasets.list(project_id="raman-lab", keyword=keyword)}
        assert project_changes(data_folder, "raman-lab", None, keyword).keys() == listed
