"""Damaged files, a full disk, a clock that jumps, a server that was wiped, at any write: the end is as undisturbed, or
one clear error after which the same command ends so.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.verify import verify_project
from crucible_lineage.core.journal import Journal
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.runs import forget
from tests.serving import start_server

STEP = int(os.environ.get("CRASH_STEP", "12"))  # `make crash` tries every write
FAR = 1 if STEP == 1 else 8 * STEP
TROUBLED = Path(__file__).with_name("troubled.py")
LEAST_KIB, MOST_KIB = 8, 4096

posix = pytest.mark.skipif(os.name == "nt", reason="limits and signals are POSIX")


def state(settings: Settings, state_of: Any) -> dict[str, Any]:
    with Session(settings) as session:
        found: dict[str, Any] = state_of(session)
        return found


def run_again(lab: Any, settings: Settings, refresh: bool = False) -> None:
    with Session(settings) as session:
        if refresh:
            forget(session.mirror)
        result = plan_and_run(
            bind_file(lab.pipeline, session.store), session, lambda: LocalEngine(session, 1), lambda event: None
        )
        assert result.ok, result.errors


_calm: list[dict[str, Any]] = []


@pytest.fixture
def calm(lab: Any, tmp_path: Path, state_of: Any) -> dict[str, Any]:
    """The state after an undisturbed run: the same for every laboratory, as ids depend on no place."""
    if not _calm:
        run_again(lab, Settings(tmp_path / "calm"))
        _calm.append(state(Settings(tmp_path / "calm"), state_of))
    return _calm[0]


def require_clear(ended: subprocess.CompletedProcess[str]) -> None:
    """It ended well, or told in whole lines what is wrong; nobody is shown a traceback but that of a step."""
    assert ended.returncode in (0, 1, 2), ended.stderr
    places = [line for line in ended.stderr.splitlines() if line.lstrip().startswith('File "')]
    assert not [line for line in places if "crucible_lineage" in line or "site-packages" in line], ended.stderr
    if ended.returncode:
        assert any(word in ended.stderr for word in ("error: ", "FAILED")), ended.stderr


@posix
@pytest.mark.parametrize("trouble", ["cache", "inputs", "garbage", "scattered", "cut", "disk", "later", "earlier"])
def test_trouble_at_any_write_ends_as_undisturbed_or_in_a_clear_error(
    lab: Any, tmp_path: Path, calm: dict[str, Any], state_of: Any, trouble: str, warm_python: Any
) -> None:
    run = ["run", str(lab.pipeline), "--engine", "local"]
    for number in itertools.count(FAR, FAR):
        data = tmp_path / f"troubled-{number}"
        words = [str(TROUBLED), trouble, str(number), str(data), *run, "--data", str(data)]
        ended = warm_python.run(words, os.environ)
        require_clear(ended)
        if f"trouble: {trouble} before" not in ended.stderr:
            assert number > FAR, "so few writes cannot be all"
            return
        if ended.returncode == 0:
            assert state(Settings(data), state_of) == calm, f"{trouble} before write {number}: {ended.stderr}"
        run_again(lab, Settings(data))
        assert state(Settings(data), state_of) == calm, f"{trouble} before write {number}, and run again"
        shutil.rmtree(data)


def end_server(data: Path) -> None:
    """The server that the command has started, which would wait for the next one under the same limits, has ended."""
    with suppress(FileNotFoundError):
        pid = json.loads((data / "crucible" / "serving.json").read_text())["pid"]
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            while True:  # it is nobody's child any more, so that nobody waits for it
                os.kill(pid, 0)
                time.sleep(0.01)


# The command, whose files may not grow beyond so many KiB, nor those of the server that it starts.


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Path]:
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this account may mount nothing")
    try:
        yield folder
    finally:
        end_server(folder / "data")
        subprocess.run(["umount", "-l", folder], check=True)


@posix
def test_a_small_disk_ends_in_a_clear_error_and_goes_on_when_there_is_room(
    lab: Any, tmp_path: Path, calm: dict[str, Any], state_of: Any, command: Any
) -> None:
    kib = 64
    while kib <= MOST_KIB:
        with small_disk(tmp_path / f"disk-{kib}", kib) as disk:
            ended = command("run", lab.pipeline, "--engine", "local", "--data", disk / "data")
            require_clear(ended)
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            run_again(lab, Settings(disk / "data"))
            assert state(Settings(disk / "data"), state_of) == calm, f"a disk of {kib} KiB"
        if ended.returncode == 0:
            assert kib > 64
            return
        kib = kib * 5 // 4 if STEP == 1 else kib * 2
    raise AssertionError("it never went through")


@posix
@pytest.mark.parametrize("made", ["read-only", "a file", "not mounted"])
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_done(
    lab: Any, tmp_path: Path, command: Any, made: str
) -> None:
    place = tmp_path / "place"
    if made == "a file":
        place.write_text("")
        ended = command("run", lab.pipeline, "--engine", "local", "--data", place / "data")
    elif made == "not mounted":  # as a home folder on a node of a cluster; nothing can be made in /proc either
        ended = command("run", lab.pipeline, "--engine", "local", "--data", "/proc/home/data")
    else:
        with small_disk(place, 64):
            subprocess.run(["mount", "-o", "remount,ro", place], check=True)
            ended = command("run", lab.pipeline, "--engine", "local", "--data", place / "data")
    require_clear(ended)
    assert ended.returncode in (1, 2)
    (line,) = ended.stderr.splitlines()
    assert "name another data folder with --data" in line


@posix
def test_a_server_that_was_wiped_at_any_request_is_filled_again(
    lab: Any, tmp_path: Path, calm: dict[str, Any], state_of: Any, dying: str, warm_python: Any
) -> None:
    for number in itertools.count(STEP if STEP > 1 else 1, STEP if STEP == 1 else 3 * STEP):
        machine = tmp_path / f"machine-{number}"
        with service(tmp_path / f"before-{number}") as server:
            settings = Settings(machine, server.url, server.api_key)
            words = ["-c", dying, "run", str(lab.pipeline), "--engine", "local"]
            ended = warm_python.run(words, client_of(settings) | {"DIE": f"after {number}"})
            port = int(server.url.rpartition(":")[2].partition("/")[0])
        with service(tmp_path / f"after-{number}", port, server.api_key):
            run_again(lab, settings, refresh=True)
            assert state(settings, state_of) == calm, f"wiped after request {number}"
            with Session(settings) as session:
                assert verify_project(session, "lab", read_bytes=True).findings == ()
        if ended.returncode == 0:
            assert number > STEP
            return


@contextmanager
def service(folder: Path, port: int = 0, api_key: str | None = None) -> Iterator[Any]:
    with start_server(folder, port=port, api_key=api_key) as server:
        with Session(Settings(folder / "client", server.url, server.api_key)) as session:
            session.client.projects.create(project_id="lab", organization="x", project_lead="local")
        yield server


def client_of(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "CRUCIBLE_API_URL": str(settings.api_url),
        "CRUCIBLE_API_KEY": str(settings.api_key),
        "CRUCIBLE_LINEAGE_DATA": str(settings.data),
    }


@pytest.mark.parametrize("lost", ["store.sqlite", "journal.sqlite", "cache", "locks", "registrar", "work", "uploads"])
def test_whatever_is_lost_of_a_data_folder_but_crucible_itself_comes_again(
    lab: Any, tmp_path: Path, calm: dict[str, Any], state_of: Any, lost: str
) -> None:
    data = tmp_path / "data"
    run_again(lab, Settings(data))
    for path in data.glob(f"{lost}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run_again(lab, Settings(data))
    assert state(Settings(data), state_of) == calm
    with closing(Journal(data / "journal.sqlite", "any", str)) as journal:
        assert journal.recent_runs("lab", 5)
