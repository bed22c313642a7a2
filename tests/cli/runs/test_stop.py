"""Ctrl-C and SIGTERM: no step is begun any more, what runs is ended, all is told as it is; twice: gone."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.warm import WarmPython

pty = pytest.importorskip("pty", reason="terminals are POSIX")

# A step whose process notes its id, tells that it was asked to end, and goes on.
STUBBORN = """
import os, signal, sys, time
from pathlib import Path

def stubborn(counts: Path, *, out: Path):
    folder = Path(__file__).parent
    signal.signal(signal.SIGTERM, lambda *_: (folder / "asked").touch())
    (folder / "pid.part").write_text(str(os.getpid()))
    (folder / "pid.part").rename(folder / "pid")
    while True:
        time.sleep(60)

if __name__ == "__main__":
    stubborn(None, out=None)
"""
HEAD = """
pipeline: stopping
project: lab
inputs: {first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}
steps:
  scaled: {uses: "LABMODULE:scale", inputs: {counts: first}, params: {factor: 2}}
"""
AFTER = """
  after: {uses: "LABMODULE:scale", inputs: {counts: long}, params: {factor: 3}}
"""
COMMAND = f'["{sys.executable}", stubborn_STEP.py, "{{inputs.counts}}", "{{out}}"]'
KINDS = {
    "function": '  long: {uses: "stubborn_STEP:stubborn", inputs: {counts: scaled}}',
    "command": f"  long: {{run: {COMMAND}, inputs: {{counts: scaled}}}}",
}


class Terminal:
    """A command on a terminal of its own, as a person has it."""

    def __init__(self, python: WarmPython, *arguments: object, before: str = "") -> None:
        self._ours, theirs = pty.openpty()
        code = ["-c", before + _ON_TERMINAL, *map(str, arguments)]
        terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        self.process = python.popen(code, {**os.environ, "TERM": "xterm"}, **terminal)
        os.close(theirs)
        self._said = b""

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def read(self, seconds: float = 120) -> str:
        """All that it says until it ends. One that does not is asked where its threads are, and ended."""
        end = time.monotonic() + seconds
        while block := self._block(end):
            self._said += block
        os.close(self._ours)
        self.process.wait(60)
        return self._said.decode()

    def _block(self, end: float) -> bytes:
        if not select.select([self._ours], [], [], max(0.0, end - time.monotonic()))[0]:
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(1)
            where = os.read(self._ours, 1 << 16).decode() if select.select([self._ours], [], [], 5)[0] else ""
            self.process.kill()
            self.process.wait(60)
            raise AssertionError(f"it does not end; it said {self._said.decode()}, and is at\n{where}")
        try:
            return os.read(self._ours, 1 << 16)
        except OSError:  # so Linux tells the end
            return b""


_ON_TERMINAL = """
import faulthandler, fcntl, os, signal, sys, termios
faulthandler.register(signal.SIGUSR1)
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.argv[0] = "crucible-lineage"
from crucible_lineage.cli import main
main()
"""


@pytest.fixture(params=list(KINDS))
def stubborn(request: pytest.FixtureRequest, lab: Any) -> Any:
    """A pipeline of a step, one that does not end when it is asked to, and one after it."""
    name = f"stubborn_{lab.module}"
    lab.file(f"{name}.py", STUBBORN)
    lab.declare(HEAD + KINDS[request.param].replace("stubborn_STEP", name) + AFTER)
    return lab


def awaited(look: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


def pid_of(lab: Any) -> int:
    path: Path = lab.folder / "pid"
    return int(awaited(lambda: path.exists() and path.read_text()))


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.parametrize("how", ["ctrl-c", "sigterm"])
def test_the_first_ends_what_runs_and_all_is_told_as_it_is(
    stubborn: Any, data: Path, command: Any, how: str, warm_python: WarmPython
) -> None:
    terminal = Terminal(warm_python, "run", stubborn.pipeline, "--data", data, "--engine", "local")
    pid = pid_of(stubborn)
    began = time.monotonic()
    if how == "ctrl-c":
        terminal.press(b"\x03")
    else:
        terminal.process.send_signal(signal.SIGTERM)
    said = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.read())
    assert time.monotonic() - began < 15
    assert terminal.process.returncode == 130
    assert (stubborn.folder / "asked").exists(), "it is asked before it is killed"
    assert is_gone(pid)
    assert "Traceback" not in said
    assert "stopping: no further steps are started, running ones are terminated" in said
    assert "1 executed, 1 stopped, 1 skipped" in said
    assert re.search(r"long +stopped .*it was ended, because the run was stopped", said)
    assert re.search(r"after +skipped .*the run was stopped before it was begun", said)
    (run,) = json.loads(command("status", "--data", data, "--json").stdout)["runs"]
    assert (run["state"], run["steps"]) == ("stopped", {"executed": 1, "stopped": 1, "skipped": 1})
    plan = json.loads(command("plan", stubborn.pipeline, "--data", data, "--json").stdout)
    assert [step["state"] for step in plan["steps"]] == ["fresh", "missing", "missing"]


UNHEARD = """
import signal, threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
"""


def test_a_signal_that_does_not_wake_the_main_thread_is_heard(
    stubborn: Any, data: Path, warm_python: WarmPython
) -> None:
    """As when it comes just before that begins to wait: Python notes it, and nothing interrupts the wait."""
    terminal = Terminal(warm_python, "run", stubborn.pipeline, "--data", data, "--engine", "local", before=UNHEARD)
    pid_of(stubborn)
    terminal.process.send_signal(signal.SIGTERM)
    said = terminal.read(30)
    assert terminal.process.returncode == 130
    assert "stopping: no further steps are started" in said


def test_the_second_leaves_within_a_second(stubborn: Any, data: Path, command: Any, warm_python: WarmPython) -> None:
    terminal = Terminal(warm_python, "run", stubborn.pipeline, "--data", data, "--engine", "local")
    pid = pid_of(stubborn)
    terminal.press(b"\x03")
    awaited(lambda: (stubborn.folder / "asked").exists())
    began = time.monotonic()
    terminal.press(b"\x03")
    said = terminal.read()
    assert time.monotonic() - began < 1
    assert terminal.process.returncode == 130
    assert "Traceback" not in said
    assert "stopped immediately; registered results are kept" in said
    awaited(lambda: is_gone(pid), 10)
    (run,) = json.loads(command("status", "--data", data, "--json").stdout)["runs"]
    assert run["state"] == "stopped"


def test_with_json_the_outcome_of_each_step_is_printed(stubborn: Any, data: Path, begin: Any) -> None:
    run = begin("run", stubborn.pipeline, "--data", data, "--engine", "local", "--json")
    pid_of(stubborn)
    run.send_signal(signal.SIGTERM)
    out, _ = run.communicate(timeout=60)
    told = json.loads(out)
    assert run.returncode == 130
    assert told["stopped"]
    assert told["outcomes"] == {"scaled": "executed", "long": "stopped", "after": "skipped"}
