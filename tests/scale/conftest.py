"""A laboratory with many scans, whose steps say which process they ran in."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

TOKEN = secrets.token_hex(32)
STEPS = """
import os, psutil, time
from pathlib import Path
from crucible_lineage import step


def runner() -> int:
    # The process that runs the step: two others stand between it and the function.
    return psutil.Process().parents()[2].pid


def meet() -> None:
    # Until two workers, or two machines, have begun: neither does all the work because the other one starts slowly.
    if folder := os.environ.get("LAB_MEETS"):
        here = Path(folder, f"{os.getppid()}-{os.getpid()}")
        here.parent.mkdir(exist_ok=True)
        here.touch()
        end = time.monotonic() + 120
        while len(list(here.parent.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.02)


@step
def scaled(scan: Path, *, pause: float = 0.1, out: Path) -> dict:
    meet()
    print("what a step prints is no part of --json")
    time.sleep(pause)
    (out / "scaled.txt").write_text(str(2 * float(scan.read_text())))
    return {"runner": runner(), "worker": os.environ.get("LAB_WORKER", "")}


@step
def summed(scans: list[Path], *, out: Path) -> dict:
    total = sum(float(path.read_text()) for path in scans)
    (out / "sum.txt").write_text(str(total))
    return {"runner": runner(), "worker": os.environ.get("LAB_WORKER", "")}


@step
def broken(scans: list[Path], *, out: Path) -> dict:
    raise RuntimeError("the lamp was off")
"""
MANY = """
pipeline: many
project: lab
inputs:
  scan: {file: "scan-*.txt", each: true, known_since: "2024-05-01T12:00:00Z"}
steps:
  scaled: {uses: "LABMODULE:scaled", inputs: {scan: scan}}
  summed: {uses: "LABMODULE:summed", inputs: {scans: scaled}}
  broken: {uses: "LABMODULE:broken", inputs: {scans: scaled}}
"""


@pytest.fixture
def many(lab: Any) -> Any:
    """Six scans, each doubled, and the sum of all."""
    lab.file(f"{lab.module}.py", STEPS)
    for number in range(1, 7):
        lab.file(f"scan-{number}.txt", str(number))
    lab.declare(MANY)
    return lab


@pytest.fixture
def metadata_of() -> Callable[[Path, dict[str, dict[str, str]]], dict[str, dict[str, Any]]]:
    """What the steps returned, by instance, as it is in the Crucible of a data folder."""

    def read(data: Path, datasets: dict[str, dict[str, str]]) -> dict[str, dict[str, Any]]:
        with Session(Settings(data)) as session:
            return {name: session.client.metadata.get(made["out"]) or {} for name, made in datasets.items()}

    return read


InPrefect = Callable[..., Any]


@pytest.fixture(autouse=True)
def ray_access(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The token of Ray's clusters. Without one, Ray takes that of this user's home, or leaves a new one there."""
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    for name, value in access.items():
        monkeypatch.setenv(name, value)
    return access


@pytest.fixture
def in_prefect(prefect_program: Any, ray_access: dict[str, str]) -> InPrefect:
    """Runs code in a process of its own on the Prefect server, and gives the JSON that it prints last."""

    def run(code: str, *arguments: object, **environment: str) -> Any:
        ran = prefect_program.python("-c", code, *arguments, **ray_access, **environment)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout.splitlines()[-1])

    return run
