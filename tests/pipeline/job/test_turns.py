"""Two processes with one data folder and the same step at the same time: one executes it, the other reuses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.eventually import eventually

SLOW = """
import time
from pathlib import Path


def slow(counts: Path, *, out: Path):
    began = Path(FOLDER) / f"began-{time.time_ns()}"
    began.touch()
    end = time.monotonic() + 60
    while not (Path(FOLDER) / "go").exists() and time.monotonic() < end:
        time.sleep(0.01)
    (out / "x.txt").write_text(counts.read_text())
"""
# Says that it is about to wait for its turn, if it does wait for one.
WAITING = """
import sys
from pathlib import Path

import filelock
from crucible_lineage.cli import main

acquire = filelock.FileLock.acquire
def tell(self, *given, **options):
    if Path(self.lock_file).parent.name == "locks":
        Path(sys.argv[1], "waits").touch()
    return acquire(self, *given, **options)
filelock.FileLock.acquire = tell
main(sys.argv[2:])
"""


def test_one_of_two_processes_with_one_data_folder_executes_a_step(lab: Any, data: Path, command: Any) -> None:
    signs = lab.folder / "signs"
    signs.mkdir()
    lab.file(f"{lab.module}_slow.py", SLOW.replace("FOLDER", repr(str(signs))))
    path = lab.declare(
        'pipeline: p\nproject: lab\ninputs: {first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}\n'
        "steps: {slow: {uses: 'LABMODULE_slow:slow', inputs: {counts: first}}}\n"
    )
    arguments = ["run", str(path), "--engine", "local", "--data", str(data), "--json"]
    first = start(["-m", "crucible_lineage", *arguments])
    wait_for(lambda: began(signs) == 1, first)
    second = start(["-c", WAITING, str(signs), *arguments])
    wait_for(lambda: (signs / "waits").exists() or began(signs) == 2, second)
    (signs / "go").touch()
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in (first, second)]
    assert began(signs) == 1, "both made the same at the same time"
    assert [answer["outcomes"]["slow"] for answer in answers] == ["executed", "reused"]
    assert answers[0]["datasets"] == answers[1]["datasets"]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ}
    )


def began(signs: Path) -> int:
    return len(list(signs.glob("began-*")))


def wait_for(happened: Any, process: subprocess.Popen[str]) -> None:
    eventually(lambda: happened() or process.poll() is not None, 60)
    assert process.poll() is None, "it ended without having begun"
