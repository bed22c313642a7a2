"""A backup is consistent while others write, continues after an interruption, and replaces the folder when restored."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.server.backup import BackupError, back_up, restore
from crucible_lineage.server.database import project_revision
from tests.serving import start_server

PROJECT = "raman-lab"


def fill(folder: Path, names: list[str]) -> dict[str, str]:
    """Create a dataset with a file for each name and return their MFIDs."""
    made = {}
    with start_server(folder) as server, CrucibleClient(server.url, server.api_key) as client:
        if client.projects.find(PROJECT) is None:
            lead = client.account.whoami().user_unique_id
            client.projects.create(project_id=PROJECT, organization="lab", project_lead=lead)
        for name in names:
            made[name] = client.datasets.create({"dataset_name": name, "project_id": PROJECT}).dsid
            path = folder.parent / f"{name}.txt"
            path.write_text(f"counts of {name}\n")
            client.files.upload(made[name], path)
    return made


def held(folder: Path) -> dict[str, bytes]:
    """Return the datasets of a folder, each with the bytes of its file."""
    with start_server(folder) as server, CrucibleClient(server.url, server.api_key) as client:
        return {
            str(dataset.dataset_name): client.files.download_bytes(client.files.list(dataset.unique_id)[0])
            for dataset in client.datasets.iter(project_id=PROJECT)
        }


def test_what_was_backed_up_comes_back_with_another_revision(tmp_path: Path) -> None:
    folder = tmp_path / "crucible"
    fill(folder, ["first", "second"])
    before, revision = held(folder), project_revision(folder, PROJECT)
    assert back_up(folder, tmp_path / "backup").datasets == 2
    fill(folder, ["third"])
    _, set_aside = restore(tmp_path / "backup", folder)
    assert held(folder) == before
    assert set_aside is not None
    assert set(held(set_aside)) == {"first", "second", "third"}
    assert str(project_revision(folder, PROJECT)).rpartition(":")[0] != str(revision).rpartition(":")[0]


def test_a_backup_while_others_write_is_consistent(tmp_path: Path) -> None:
    folder, over = tmp_path / "crucible", threading.Event()
    fill(folder, ["first"])

    def write() -> None:
        with start_server(folder) as server, CrucibleClient(server.url, server.api_key) as client:
            for number in range(10_000):
                if over.is_set():
                    return
                mfid = client.datasets.create({"dataset_name": f"more {number}", "project_id": PROJECT}).dsid
                path = tmp_path / "more.txt"
                path.write_text(f"{number}\n")
                client.files.upload(mfid, path)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        sizes = [back_up(folder, tmp_path / "backup").datasets for _ in range(5)]
    finally:
        over.set()
        writing.join()
    assert sizes == sorted(sizes)
    backup, set_aside = restore(tmp_path / "backup", tmp_path / "elsewhere")
    assert (set_aside, backup.damaged) == (None, ())
    with start_server(tmp_path / "elsewhere") as server, CrucibleClient(server.url, server.api_key) as client:
        for file in client.files.iter():
            client.files.download_bytes(file)


def test_an_earlier_backup_is_brought_up_to_date_and_its_files_are_not_copied_again(tmp_path: Path) -> None:
    folder = tmp_path / "crucible"
    fill(folder, ["first"])
    back_up(folder, tmp_path / "backup")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "backup" / "contents").rglob("*") if path.is_file()}
    fill(folder, ["second"])
    found = back_up(folder, tmp_path / "backup")
    assert (found.datasets, found.files) == (2, 2)
    assert all(path.stat().st_mtime_ns == was for path, was in stamps.items())


def test_damaged_files_are_named_and_come_from_where_they_are_good(tmp_path: Path) -> None:
    folder = tmp_path / "crucible"
    fill(folder, ["first"])
    (content,) = [path for path in (folder / "contents").rglob("*") if path.is_file()]
    good = content.read_bytes()
    content.write_bytes(b"#" * len(good))
    sha256 = content.parent.name + content.name
    assert back_up(folder, tmp_path / "backup").damaged == (sha256,)
    content.write_bytes(good)
    assert back_up(folder, tmp_path / "backup").damaged == ()
    (copy,) = [path for path in (tmp_path / "backup" / "contents").rglob("*") if path.is_file()]
    copy.write_bytes(b"#" * len(good))
    assert restore(tmp_path / "backup", folder)[0].damaged == ()
    assert set(held(folder).values()) == {good}


def test_a_damaged_database_replaces_no_good_backup(tmp_path: Path) -> None:
    folder = tmp_path / "crucible"
    fill(folder, ["first"])
    back_up(folder, tmp_path / "backup")
    kept = (tmp_path / "backup" / "crucible.db").read_bytes()
    stored = (folder / "crucible.db").read_bytes()
    (folder / "crucible.db").write_bytes(stored.replace(b"first", b"fIrst"))
    with pytest.raises(BackupError, match=r"is damaged: a row of its table 'resource'"):
        back_up(folder, tmp_path / "backup")
    assert (tmp_path / "backup" / "crucible.db").read_bytes() == kept
    shutil.copy(folder / "crucible.db", tmp_path / "backup" / "crucible.db")
    with pytest.raises(BackupError, match=r"the backup in .* is damaged"):
        restore(tmp_path / "backup", folder)


def test_the_replaced_folder_may_be_unreadable(tmp_path: Path) -> None:
    folder = tmp_path / "crucible"
    fill(folder, ["first"])
    back_up(folder, tmp_path / "backup")
    (folder / "crucible.db").write_bytes(b"no database" * 1000)
    restore(tmp_path / "backup", folder)
    assert list(held(folder)) == ["first"]


def test_nothing_is_restored_under_a_server_that_works_there(tmp_path: Path) -> None:
    folder = tmp_path / "crucible"
    fill(folder, ["first"])
    back_up(folder, tmp_path / "backup")
    with start_server(folder), pytest.raises(BackupError, match="a server works in"):
        restore(tmp_path / "backup", folder)
    restore(tmp_path / "backup", folder)


def test_a_folder_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path / "crucible", ["first"])
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").touch()
    with pytest.raises(BackupError, match="is neither empty nor an earlier backup"):
        back_up(tmp_path / "crucible", tmp_path / "photos")
    with pytest.raises(BackupError, match="there is no embedded Crucible"):
        back_up(tmp_path / "none", tmp_path / "backup")
    with pytest.raises(BackupError, match="there is no backup in"):
        restore(tmp_path / "photos", tmp_path / "crucible")


def test_a_run_after_a_restored_backup_makes_what_the_backup_lacks(
    lab: Any, data: Path, tmp_path: Path, command: Any, keeping: None
) -> None:
    backup, options = tmp_path / "backup", ("--data", data)
    assert command("run", lab.pipeline, "--only", "scaled", *options).returncode == 0
    copied = command("data", "backup", backup, *options, "--json")
    assert (copied.returncode, json.loads(copied.stdout)["datasets"]) == (0, 5), copied.stderr
    assert command("run", lab.pipeline, *options).returncode == 0
    _until_idle(lambda: command("data", "restore", backup, *options))
    again = command("run", lab.pipeline, "--json", *options)
    assert json.loads(again.stdout)["outcomes"] == {"scaled": "reused", "total": "executed"}
    assert command("verify", "--project", "lab", "--bytes", *options).returncode == 0


def _until_idle(ask: Any) -> None:
    for _ in range(40):
        answer = ask()
        if "a server works in" not in answer.stderr:
            break
        time.sleep(0.25)  # the shared server stops some seconds after the last command
    assert answer.returncode == 0, answer.stderr
