"""`status` shows how runs ended and the disk space in use; `clean` removes only what nothing needs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crucible_lineage.cli import main
from crucible_lineage.core.folders import KEPT_DAYS, in_use, is_in_use, leftovers, remove_old_work

WAITS = """
from pathlib import Path

from crucible_lineage import step


@step
def scale(counts: Path, *, factor: float = 2.0, out: Path) -> dict:
    import time
    (out / "begun.txt").write_text("begun")
    Path(__file__).with_name("begun").touch()
    time.sleep(600)
"""


def cli(*arguments: object, answer: str | None = None) -> Any:
    return CliRunner().invoke(main, [*map(str, arguments)], input=answer)


def states(data: Path) -> list[str]:
    return [run["state"] for run in json.loads(cli("status", "--data", data, "--json").stdout)["runs"]]


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def waiting_run(lab: Any, data: Path, begin: Any) -> Iterator[Any]:
    """Start a run whose step does not end by itself."""
    lab.file(f"{lab.module}.py", WAITS)
    text = "\n".join(line for line in lab.pipeline.read_text().splitlines() if "second" not in line)
    lab.declare(text.partition("  total:")[0])
    nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = begin("run", lab.pipeline, "--data", data, "--engine", "local", **nowhere)
    try:
        wait_until(lambda: (lab.folder / "begun").exists() or process.poll() is not None)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_run_is_under_way_until_its_process_ends_and_then_cut_short(waiting_run: Any, data: Path) -> None:
    assert states(data) == ["under way"]
    assert "under way" in cli("status", "--data", data).stdout
    (work,) = (path for path in (data / "work").iterdir() if path.is_dir())
    assert leftovers(data, copies=True) == [], "a step is running"
    waiting_run.send_signal(signal.SIGKILL)
    waiting_run.wait()
    assert states(data) == ["cut short"]
    refused = cli("data", "clean", "--data", data, answer="n\n")
    assert (refused.exit_code, work.exists()) == (1, True)
    cleaned = cli("data", "clean", "--data", data, "--yes", "--json")
    assert cleaned.exit_code == 0
    assert str(work) in [one["path"] for one in json.loads(cleaned.stdout)["removed"]]
    assert not list((data / "work").iterdir())


def test_clean_removes_copies_only_on_request(lab: Any, data: Path) -> None:
    cli("run", lab.pipeline, "--data", data, "--engine", "local")
    assert "nothing to remove" in cli("data", "clean", "--data", data).stdout
    (data / "cache" / ".part-0").write_text("a fetch was killed")
    assert cli("data", "clean", "--data", data, "--cache", "--yes").exit_code == 0
    assert not [path for path in (data / "cache").rglob("*") if path.is_file()]
    again = cli("run", lab.pipeline, "--data", data, "--engine", "local", "--json")
    assert json.loads(again.stdout)["executed"] == []


def test_clean_removes_what_a_killed_process_kept_in_part(lab: Any, data: Path) -> None:
    cli("run", lab.pipeline, "--data", data, "--engine", "local")
    for name, seconds in (("new", 0), ("old", 2 * 86_400)):
        draft = data / "outbox" / "service" / f".{name}-0"
        draft.mkdir(parents=True)
        (draft / "a.txt").write_text("a")
        for path in (draft / "a.txt", draft):
            os.utime(path, (time.time() - seconds,) * 2)
    assert cli("data", "clean", "--data", data, "--yes").exit_code == 0
    assert [path.name for path in (data / "outbox" / "service").iterdir()] == [".new-0"], "its process may be at it"


def test_old_leftovers_are_removed_unless_in_use(tmp_path: Path) -> None:
    old, recent, used = (tmp_path / name for name in ("old", "recent", "used"))
    for folder in (old, recent, used):
        (folder / "out").mkdir(parents=True)
        (folder / "out" / "a.txt").write_text("a")
    long_ago = time.time() - (KEPT_DAYS + 1) * 86_400
    for folder in (old, used):
        for path in (folder / "out" / "a.txt", folder / "out", folder):
            os.utime(path, (long_ago, long_ago))
    with in_use(used):
        assert is_in_use(used)
        remove_old_work(tmp_path)
    assert [folder.exists() for folder in (old, recent, used)] == [False, True, True]
    assert not is_in_use(used)
