"""`push --to`, killed anywhere, over a bad line, and by two folders at once: all is there in the end, once."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.runs import run
from tests.serving import RunningServer, start_server

STEP = int(os.environ.get("CRASH_STEP", "20"))
SEEDS = int(os.environ.get("CRASH_SEEDS", "2"))
SAMPLE = "0rztm2jg0201b8b6d0znq6915g"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningServer]:
    with start_server(tmp_path / "service") as server:
        with Session(Settings(tmp_path / "direct", server.url, server.api_key)) as session:
            session.client.projects.create(project_id="lab", organization="x", project_lead="local")
        (tmp_path / "key").write_text(server.api_key)
        yield server


def work_offline(lab: Any, data: Path) -> None:
    """The pipeline ran in the folder, and a person added a picture, a sample and a file; no process holds it."""
    with Session(Settings(data)) as session:
        assert run(session, lab.pipeline).ok
        client = session.client
        (scaled,) = client.datasets.list(project_id="lab", data_type="scaled")
        client.samples.create(unique_id=SAMPLE, sample_name="wafer", project_id="lab")
        client.datasets.add_sample(scaled.unique_id, SAMPLE)
        seen = client.datasets.create({"unique_id": "0rztm2jg021sb77z7kvdejhvp0", "project_id": "lab"}).dsid
        client.files.upload(seen, lab.file("remark.txt", "seen by eye"))
        client.datasets.link_parent_child(scaled.unique_id, seen)


def state_at(service: RunningServer, tmp_path: Path, state_of: Callable[[Session], Any]) -> dict[str, Any]:
    with Session(Settings(tmp_path / "direct", service.url, service.api_key)) as session:
        found: dict[str, Any] = state_of(session)
        assert [sample.unique_id for sample in session.client.samples.list(project_id="lab")] == [SAMPLE]
        return found


def words(data: Path, url: str, tmp_path: Path) -> list[str]:
    return ["push", "--data", str(data), "--project", "lab", "--to", url, "--api-key-file", str(tmp_path / "key")]


@pytest.fixture
def expected(lab: Any, tmp_path: Path, state_of: Any) -> dict[str, Any]:
    """What there is in the offline folder, which is there afterwards."""
    work_offline(lab, tmp_path / "offline")
    with Session(Settings(tmp_path / "offline")) as session:
        found: dict[str, Any] = state_of(session)
        assert len(found) == 5
        return found


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_request_and_done_again_all_is_there_once(
    service: RunningServer, tmp_path: Path, expected: Any, state_of: Any, dying: str, when: str, warm_python: Any
) -> None:
    arguments = words(tmp_path / "offline", service.url, tmp_path)
    for number in itertools.count(1, STEP):
        killed = warm_python.run(["-c", dying, *arguments], {**os.environ, "DIE": f"{when} {number}"})
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert number > 1
    assert state_at(service, tmp_path, state_of) == expected


@pytest.mark.parametrize("seed", range(SEEDS))
def test_over_a_line_that_loses_doubles_and_delays_all_is_there_once(
    service: RunningServer, tmp_path: Path, expected: Any, state_of: Any, misbehaving: Any, command: Any, seed: int
) -> None:
    proxy = misbehaving(service.url, seed, 0.1)

    def push() -> Any:
        for _ in range(20):
            ran = command(*words(tmp_path / "offline", proxy.url, tmp_path))
            if "answered 500" not in ran.stderr.partition("\n")[0]:  # while it compares; a person runs it again
                break
        return ran

    ran = push()
    assert ran.returncode == 0, ran.stderr
    assert proxy.faults > 0
    assert state_at(service, tmp_path, state_of) == expected
    again = push()
    assert "nothing was sent: everything is there" in again.stdout, again.stdout + again.stderr


def test_while_the_service_is_away_it_is_waited_for_and_what_is_left_is_told(
    service: RunningServer, tmp_path: Path, expected: Any, state_of: Any, misbehaving: Any, command: Any
) -> None:
    proxy = misbehaving(service.url, 1, 0.0)
    proxy.away_after("POST", "/children/")
    impatient = {"CRUCIBLE_LINEAGE_RETRY_SECONDS": "0.2"}
    ran = command(*words(tmp_path / "offline", proxy.url, tmp_path), "--patience", "0", **impatient)
    assert ran.returncode == 1, ran.stderr
    assert "no answer from" in ran.stderr
    assert "run the same command to continue" in ran.stderr
    proxy.back()
    proxy.away_after("POST", "/children/", back_after=3)
    ran = command(*words(tmp_path / "offline", proxy.url, tmp_path), "--patience", "60")
    assert ran.returncode == 0, ran.stderr
    assert state_at(service, tmp_path, state_of) == expected


def test_two_folders_with_the_same_work_pushed_at_once_end_as_one(
    lab: Any, service: RunningServer, tmp_path: Path, expected: Any, state_of: Any, command: Any, begin: Any
) -> None:
    work_offline(lab, tmp_path / "other")
    pushes = [
        begin(*words(tmp_path / folder, service.url, tmp_path), stderr=subprocess.PIPE)
        for folder in ("offline", "other")
    ]
    said = [push.communicate(timeout=240) for push in pushes]
    assert [push.returncode for push in pushes] == [0, 0], said
    assert state_at(service, tmp_path, state_of) == expected
    for folder in ("offline", "other"):
        again = command(*words(tmp_path / folder, service.url, tmp_path))
        assert "nothing was sent: everything is there" in again.stdout, again.stdout + again.stderr
