"""Ctrl-C and SIGTERM: no further step starts, running ones are terminated, and all is reported; twice: exit at once."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually, has_ended
from tests.warm import WarmPython

pty = pytest.importorskip("pty", reason="terminals are POSIX")

# A step whose process stores its id, notes the request to end, and continues.
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
    """A command on its own terminal."""

    def __init__(self, python: WarmPython, *arguments: object, before: str = "") -> None:
        self._ours, theirs = pty.openpty()
        code = ["-c", before + _ON_TERMINAL, *map(str, arguments)]
        terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        self.process = python.popen(code, {**os.environ, "TERM": "xterm"}, **terminal)
        os.close(theirs)
        self._output = b""

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def read(self, seconds: float = 120) -> str:
        """Return all output until the command ends. If it does not end, print its threads and kill it."""
        end = time.monotonic() + seconds
        while block := self._block(end):
            self._output += block
        os.close(self._ours)
        self.process.wait(60)
        return self._output.decode()

    def _block(self, end: float) -> bytes:
        if not select.select([self._ours], [], [], max(0.0, end - time.monotonic()))[0]:
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(1)
            stacks = os.read(self._ours, 1 << 16).decode() if select.select([self._ours], [], [], 5)[0] else ""
            self.process.kill()
            self.process.wait(60)
            raise AssertionError(f"it does not end; its output: {self._output.decode()}, its threads:\n{stacks}")
        try:
            return os.read(self._ours, 1 << 16)
        except OSError:  # Linux's end of file
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
    """Declare a step, one that does not end on request, and one after it."""
    name = f"stubborn_{lab.module}"
    lab.file(f"{name}.py", STUBBORN)
    lab.declare(HEAD + KINDS[request.param].replace("stubborn_STEP", name) + AFTER)
    return lab


def pid_of(lab: Any) -> int:
    path: Path = lab.folder / "pid"
    return int(eventually(lambda: path.exists() and path.read_text()))


@pytest.mark.parametrize("request_kind", ["ctrl-c", "sigterm"])
def test_the_first_request_terminates_running_steps_and_is_reported(
    stubborn: Any, data: Path, command: Any, request_kind: str, warm_python: WarmPython
) -> None:
    terminal = Terminal(warm_python, "run", stubborn.pipeline, "--data", data, "--engine", "local")
    pid = pid_of(stubborn)
    began = time.monotonic()
    if request_kind == "ctrl-c":
        terminal.press(b"\x03")
    else:
        terminal.process.send_signal(signal.SIGTERM)
    output = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.read())
    assert time.monotonic() - began < 15
    assert terminal.process.returncode == 130
    assert (stubborn.folder / "asked").exists(), "it is asked to end before it is killed"
    assert has_ended(pid)
    assert "Traceback" not in output
    assert "stopping: no further steps are started, running ones are terminated" in output
    assert "1 executed, 1 stopped, 1 skipped" in output
    assert re.search(r"long +stopped .*it was ended, because the run was stopped", output)
    assert re.search(r"after +skipped .*the run was stopped before it was begun", output)
    (run,) = json.loads(command("status", "--data", data, "--json").stdout)["runs"]
    assert (run["state"], run["steps"]) == ("stopped", {"executed": 1, "stopped": 1, "skipped": 1})
    plan = json.loads(command("plan", stubborn.pipeline, "--data", data, "--json").stdout)
    assert [step["state"] for step in plan["steps"]] == ["fresh", "missing", "missing"]


def test_the_second_request_exits_within_a_second(
    stubborn: Any, data: Path, command: Any, warm_python: WarmPython
) -> None:
    terminal = Terminal(warm_python, "run", stubborn.pipeline, "--data", data, "--engine", "local")
    pid = pid_of(stubborn)
    terminal.press(b"\x03")
    eventually(lambda: (stubborn.folder / "asked").exists())
    began = time.monotonic()
    terminal.press(b"\x03")
    output = terminal.read()
    assert time.monotonic() - began < 1
    assert terminal.process.returncode == 130
    assert "Traceback" not in output
    assert "stopped immediately; registered results are kept" in output
    eventually(lambda: has_ended(pid), 10)
    (run,) = json.loads(command("status", "--data", data, "--json").stdout)["runs"]
    assert run["state"] == "stopped"
