"""The embedded Crucible in a process of its own: shared by all sessions of a folder, restarted, stopped when idle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crucible_lineage.server.database import DataFolder
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.eventually import has_ended


def serving(data: Path) -> int | None:
    """Return the process that serves the data folder, None if there is none."""
    notice = DataFolder(data / "crucible").notice
    return int(json.loads(notice.read_text())["pid"]) if notice.exists() else None


@pytest.fixture
def shared(data: Path) -> Iterator[Session]:
    with Session(Settings(data, source="given")) as session:
        session.ensure_project("lab")
        yield session


def test_all_sessions_of_a_folder_share_one_process(shared: Session, data: Path) -> None:
    pid = serving(data)
    assert pid not in (None, os.getpid())
    with Session(Settings(data, source="given")) as other:
        assert other.client.projects.find("lab") is not None
        assert other.client.api_url == shared.client.api_url
    assert serving(data) == pid


def test_it_stops_when_nobody_uses_it(shared: Session, data: Path) -> None:
    pid = serving(data)
    assert pid
    shared.close()
    end = time.monotonic() + 30
    while not has_ended(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert has_ended(pid)
    assert serving(data) is None
    assert not (data / "crucible" / "crucible.db-wal").exists(), "the database is closed"


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_killed_it_is_started_again_by_the_next_call(shared: Session, data: Path) -> None:
    pid, url = serving(data), shared.client.api_url
    assert pid
    os.kill(pid, signal.SIGKILL)
    while not has_ended(pid):
        time.sleep(0.01)
    assert shared.client.projects.find("lab") is not None
    assert serving(data) not in (None, pid)
    assert shared.client.api_url == url


def test_a_copy_of_the_folder_has_a_server_of_its_own(shared: Session, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "copy")
    with Session(Settings(tmp_path / "copy", source="given")) as other:
        other.client.projects.create(project_id="elsewhere", organization="x", project_lead="local")
    assert shared.client.projects.find("elsewhere") is None


def test_a_notice_of_a_stopped_server_is_ignored(shared: Session, data: Path) -> None:
    notice = DataFolder(data / "crucible").notice
    shared.close()
    for text in ("", "{}", '{"pid": 1, "port": 9}'):
        notice.write_text(text)
        with Session(Settings(data, source="given")) as other:
            assert other.client.projects.find("lab") is not None
