"""Killed at any point and run again, a pipeline ends as if nothing had happened: everything once, nothing half."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

# A process that dies, as by SIGKILL, just before its Nth step in the file system: a file of the data folder is opened
# for writing, renamed, linked or taken away. What was written until then is there; what SQLite writes in between counts
# for its own.
DYING_AT_WRITES = """
import itertools, os, signal, sys
steps = itertools.count(1)
data, number = os.environ["DATA"], int(os.environ["DIE"])
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
def dying(event, arguments):
    if event == "open":
        path, counts = arguments[0], bool(arguments[2] & writing)
    else:
        path, counts = arguments[0] if arguments else "", event in ("os.rename", "os.link", "os.remove", "os.mkdir")
    if counts and isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(data):
        if next(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(dying)
from crucible_lineage.cli import main
main(sys.argv[1:])
"""
# As in a terminal; a shell starts what is in the background with SIGINT ignored, and children inherit that.
ON_TERMINAL = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from crucible_lineage.cli import main
main(sys.argv[1:])
"""
STEP = int(os.environ.get("CRASH_STEP", "30"))  # `make crash` tries every request
KILLS = int(os.environ.get("CRASH_KILLS", "4"))  # and 300 moments


def whole_state(data: Path, state_of: Any) -> dict[str, Any]:
    with Session(Settings(data)) as session:
        found: dict[str, Any] = state_of(session)
        return found


_calm: list[dict[str, Any]] = []


@pytest.fixture
def calm(lab: Any, tmp_path: Path, command: Any, state_of: Any) -> dict[str, Any]:
    """The state after an undisturbed run: the same for every laboratory, as ids depend on no place."""
    if not _calm:
        ran = command("run", lab.pipeline, "--engine", "local", "--data", tmp_path / "calm")
        assert ran.returncode == 0, ran.stderr
        _calm.append(whole_state(tmp_path / "calm", state_of))
    return _calm[0]


def _kill_at_each(
    python: Any, command: Any, state_of: Any, calm: Any, what: list[Any], folder: Path, step: int, die: Any
) -> None:
    """Kill a run at its first request or write, at the `step`th after it, and so on, and run it again each time."""
    code, pipeline = what
    arguments = ["run", str(pipeline), "--engine", "local"]
    for number in itertools.count(1, step):
        data = folder / f"killed-{number}"
        environment = {**os.environ, "DIE": die(number), "DATA": str(data)}
        killed = python.run(["-c", code, *arguments, "--data", str(data)], environment)
        if killed.returncode == 0:
            assert number > step, "so few cannot be all"
            return
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        again = command(*arguments, "--data", data)
        assert again.returncode == 0, again.stderr
        assert whole_state(data, state_of) == calm, f"killed: {die(number)}"


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_request_and_run_again_it_ends_as_undisturbed(
    lab: Any, tmp_path: Path, command: Any, calm: Any, state_of: Any, dying: str, when: str, warm_python: Any
) -> None:
    _kill_at_each(warm_python, command, state_of, calm, [dying, lab.pipeline], tmp_path, STEP, lambda n: f"{when} {n}")


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_killed_at_any_file_write_and_run_again_it_ends_as_undisturbed(
    lab: Any, tmp_path: Path, command: Any, calm: dict[str, Any], state_of: Any, warm_python: Any
) -> None:
    step = 1 if STEP == 1 else 4 * STEP
    _kill_at_each(warm_python, command, state_of, calm, [DYING_AT_WRITES, lab.pipeline], tmp_path, step, str)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_killed_again_and_again_at_random_it_ends_as_undisturbed(
    lab: Any, tmp_path: Path, command: Any, calm: dict[str, Any], state_of: Any, begin: Any
) -> None:
    dice = random.Random(7)
    arguments = ["run", str(lab.pipeline), "--engine", "local", "--data", str(tmp_path / "data")]
    for _ in range(KILLS):
        process = begin(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(dice.uniform(0.02, 0.8))
        process.kill()
        process.wait()
    assert command(*arguments).returncode == 0
    assert whole_state(tmp_path / "data", state_of) == calm


@pytest.mark.skipif(os.name == "nt", reason="SIGINT is POSIX")
def test_ctrl_c_in_mid_run_then_run_again_finishes(
    lab: Any, data: Path, command: Any, state_of: Any, warm_python: Any
) -> None:
    module = f"{lab.module}_slow"
    lab.file(
        f"{module}.py",
        "from pathlib import Path\nimport time\n\n\n"
        "def slow(counts: Path, *, out: Path):\n"
        f"    Path({str(lab.folder / 'began')!r}).touch()\n"
        f"    while not Path({str(lab.folder / 'go')!r}).exists():\n        time.sleep(0.02)\n"
        "    (out / 'x.txt').write_text('1')\n",
    )
    lab.declare(
        lab.pipeline.read_text()
        + f"  slow:\n    uses: {module}:slow\n    inputs: {{counts: total}}\n".replace("total}", "first}")
    )
    arguments = ["run", str(lab.pipeline), "--engine", "local", "--data", str(data)]
    process = warm_python.popen(["-c", ON_TERMINAL, *arguments], os.environ, stderr=subprocess.PIPE)
    while not (lab.folder / "began").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    (lab.folder / "go").touch()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "run the same command again" in said
    again = command(*arguments, "--json")
    assert again.returncode == 0, again.stderr
    assert len(whole_state(data, state_of)) == 5
