"""However a run or a command ends, no descendant of the command survives, and its exit code is reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.errors import StoppedError
from crucible_lineage.pipeline.processes import supervised
from crucible_lineage.pipeline.processes.supervised import GRACE_S, Supervised, stop_run
from tests.eventually import eventually, has_ended
from tests.golden.stored import run_examples

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX; Windows has none")


@pytest.fixture(autouse=True)
def real_servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Servers are started here, and not forked from one that has its imports done."""
    monkeypatch.setattr(supervised, "subprocess", subprocess)
    end_server()
    yield
    end_server()


def end_server() -> None:
    supervised._leave()
    supervised._channel = supervised._server = None


# A command with a child of its own, one that left its session and ignores SIGTERM, and one whose parent has gone.
FAMILY = """
import os, signal, subprocess, sys, time
folder = sys.argv[1]
def note(name):
    open(f"{folder}/{name}.part", "w").write(str(os.getpid()))
    os.rename(f"{folder}/{name}.part", f"{folder}/{name}")
def stubborn(name):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note(name)
        time.sleep(300)
stubborn("left-the-session")
if os.fork() == 0:
    stubborn("orphan")
    os._exit(0)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
open(f"{folder}/child.part", "w").write(str(child.pid))
os.rename(f"{folder}/child.part", f"{folder}/child")
while not all(os.path.exists(f"{folder}/{name}") for name in ("left-the-session", "orphan")):
    time.sleep(0.01)
note("command")
print("up", flush=True)
"""
MEMBERS = ("left-the-session", "orphan", "child", "command")

RUN = """
import os, sys, time
from crucible_lineage.pipeline.processes.supervised import Supervised
forked = sys.argv[2] == "forked"
process = Supervised([sys.executable, "-c", sys.argv[3], sys.argv[1]], lambda data: None, "family", run_id="r")
if forked and os.fork() == 0:  # has the socket, too, and lives on
    time.sleep(20)
    os._exit(0)
process.wait()
"""


def pids_of(folder: Path) -> list[int]:
    """The process ids of the whole family, once they are all there."""
    return [int(eventually(lambda path=folder / name: path.exists() and path).read_text()) for name in MEMBERS]


def gone(pids: list[int], seconds: float = 15) -> None:
    eventually(lambda: all(map(has_ended, pids)), seconds)


@pytest.mark.parametrize("how", ["alone", "forked"])
def test_no_process_survives_when_the_run_is_killed(tmp_path: Path, how: str) -> None:
    code = FAMILY + "time.sleep(300)\n"
    run = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path), how, code])
    pids = pids_of(tmp_path)
    assert not any(map(has_ended, pids))
    run.kill()
    run.wait()
    gone(pids)


def test_processes_that_a_command_leaves_running_end_with_it_and_are_counted(tmp_path: Path) -> None:
    process = Supervised([sys.executable, "-c", FAMILY, str(tmp_path)], lambda data: None, "family")
    assert process.wait(60)
    assert (process.code, process.left) == (0, 3)
    assert all(map(has_ended, pids_of(tmp_path)))


def test_a_stopped_process_is_terminated_and_then_killed(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True))\n"
    printed: list[bytes] = []
    code = f"{stubborn}print('up', flush=True)\nwhile True: time.sleep(300)\n"
    process = Supervised([sys.executable, "-c", code], printed.append, "stubborn", run_id="stopped")
    eventually(lambda: b"up" in b"".join(printed))
    began = time.monotonic()
    stop_run("stopped")
    assert process.wait(60)
    assert b"asked" in b"".join(printed)
    assert process.code == -signal.SIGKILL
    assert process.stopped
    assert GRACE_S <= time.monotonic() - began < GRACE_S + 10
    with pytest.raises(StoppedError, match="was not begun, since the run was stopped"):
        Supervised(["true"], printed.append, "next", run_id="stopped")


def test_what_a_process_gets_and_gives_and_how_its_end_is_told() -> None:
    run_examples(Path(__file__).with_name("processes.txt"))


def test_a_killed_supervisor_ends_its_command(tmp_path: Path) -> None:
    code = FAMILY + "time.sleep(300)\n"
    process = Supervised([sys.executable, "-c", code, str(tmp_path)], lambda data: None, "family")
    command = pids_of(tmp_path)[-1]
    os.kill(int(Path(f"/proc/{command}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
    assert process.wait(60)
    assert process.code == -signal.SIGKILL
    gone([command])
    for pid in pids_of(tmp_path):
        if not has_ended(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_server_that_dies_with_a_request_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = _server_killed_at(monkeypatch, most=1)
    printed: list[bytes] = []
    process = Supervised([sys.executable, "-c", "print('made')"], printed.append, "x")
    process.finish()
    assert process.wait(60)
    assert (process.code, b"".join(printed), len(sent)) == (0, b"made\n", 1)


def _server_killed_at(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Have the server die at each of the first `most` requests, after it has got them and before it acts on them."""
    really, sent = supervised._send, []

    def send(channel: Any, data: bytes, descriptors: Any) -> None:
        server = supervised._server
        assert server is not None
        if server.returncode is not None or len(sent) == most:  # known to be dead, or to be left alive
            really(channel, data, descriptors)
            return
        sent.append(server.pid)
        os.kill(server.pid, signal.SIGSTOP)
        really(channel, data, descriptors)
        os.kill(server.pid, signal.SIGKILL)
        server.wait()

    monkeypatch.setattr(supervised, "_send", send)
    return sent


def test_the_command_inherits_no_descriptors_and_has_default_signals() -> None:
    code = (
        "import os, signal\n"
        "print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1], signal.getsignal(signal.SIGTERM),"
        " os.getpid() == os.getsid(0))"
    )
    printed: list[bytes] = []
    process = Supervised([sys.executable, "-c", code], printed.append, "x")
    process.finish()
    assert process.wait(60)
    assert b"".join(printed).decode().strip() == f"[0, 1, 2] {int(signal.SIG_DFL)} True"
