"""What measurements of all rooms need: a Crucible to measure against, the numbers asked for, and a heading."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crucible_lineage.client import CrucibleClient

OURS, OFFICIAL = "crucible-lineage", "nano-crucible"
PROJECT = {"project_id": "benchmark", "organization": "MF", "project_lead": "local"}


@dataclass(frozen=True)
class Place:
    """A server and the key for it."""

    url: str
    api_key: str


@contextmanager
def embedded_crucible(folder: Path) -> Iterator[Place]:
    """The embedded Crucible in a process of its own, with a project."""
    command = [sys.executable, "-m", "crucible_lineage", "serve", "--data", str(folder), "--json"]
    with serving([*command, "--api-key", "benchmark"]) as url:
        with CrucibleClient(url, "benchmark") as client:
            client.projects.create(PROJECT)
        yield Place(url, "benchmark")


def heading() -> str:
    """What was measured with what."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in (OURS, OFFICIAL, "httpx", "requests"))
    return f"{versions}, Python {platform.python_version()} on {platform.system()} {platform.machine()}"


def arguments(**defaults: int) -> argparse.Namespace:
    """The numbers that the command line sets, else `defaults`."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"default: {default}")
    return parser.parse_args()


@contextmanager
def serving(command: Sequence[str]) -> Iterator[str]:
    """The address that the process tells in its first line."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield str(json.loads(process.stdout.readline())["url"])
        finally:
            process.terminate()
