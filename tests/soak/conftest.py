"""The parts of a laboratory that runs day and night, each a process that may die and is started again.

A Crucible service, a Prefect server, two machines with a worker each (sharing nothing but these two), and a watcher of
the folder into which an instrument writes. In the short form they are forked from interpreters with their imports done;
in the long one each is a Python that starts.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from crucible_lineage.client import CrucibleClient
from tests.eventually import eventually
from tests.warm import WarmPython
from tests.warm.programs import Started

KEY = "key-of-the-soak"
POOL = "soak"

STEPS = """
import time
from pathlib import Path
from crucible_lineage import step


@step(measurement="counting", data_type="scaled")
def scaled(counts: Path, *, factor: float = 2.0, out: Path) -> dict:
    time.sleep(0.3)
    value = float(counts.read_text()) * factor
    (out / "scaled.txt").write_text(str(value))
    return {"value": value}


@step(measurement="counting", data_type="half")
def halved(counts: Path, *, out: Path) -> dict:
    value = float(counts.read_text()) / 2
    (out / "half.txt").write_text(str(value))
    (out / "note.txt").write_text("halved")
    return {"value": value}


@step(measurement="counting", data_type="total")
def total(counts: list[Path], *, out: Path) -> dict:
    value = sum(float(path.read_text()) for path in counts)
    (out / "total.txt").write_text(str(value))
    return {"value": value, "of": len(counts)}
"""
NEW = """
pipeline: soak-new
project: lab
inputs:
  counts: {select: {measurement: counting, data_type: raw}, each: true}
steps:
  scaled: {uses: "LABMODULE:scaled", inputs: {counts: counts}}
  halved: {uses: "LABMODULE:halved", inputs: {counts: scaled}}
schedule: 7s
"""
FILES = """
pipeline: soak-files
project: lab
inputs:
  scan: {file: "scans/*.txt", each: true, optional: true, timestamp: "since 2024-05-01T12:00:00Z"}
steps:
  scaled: {uses: "LABMODULE:scaled", inputs: {counts: scan}, params: {factor: 3}}
  total: {uses: "LABMODULE:total", inputs: {counts: {from: scaled, group_by: []}}}
schedule: 11s
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Part:
    """A process under supervision: when it has died it is started again, but not before it may be back."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    folder: Path
    back_at: float = 0.0
    python: WarmPython | None = None  # forks it
    deaths: int = 0  # of its own accord
    process: Started | subprocess.Popen[bytes] | None = None
    below: dict[int, psutil.Process] = field(default_factory=dict)  # all that it was seen to have started

    def look_after(self) -> None:
        """It runs, unless it has to be down for a while yet."""
        if self.process is not None and self.process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                self.below |= {one.pid: one for one in psutil.Process(self.process.pid).children(recursive=True)}
            return
        if self.process is not None and time.monotonic() >= self.back_at > 0:
            self.back_at = 0.0
        elif self.process is not None and self.back_at == 0:
            self.deaths += 1
            print(f"{self.name} ended by itself with {self.process.returncode}", flush=True)
        if self.back_at == 0:
            self._start()

    def kill(self, down_s: float, *, alone: bool = False) -> None:
        """Killed as by a power cut: with all that it has started, or `alone`, so that they go on as orphans."""
        self.look_after()
        if self.process is None or self.process.poll() is not None:
            return
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            below = [] if alone else psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            for one in below:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        self.process.wait()
        self.back_at = time.monotonic() + down_s

    def close(self) -> None:
        """It is gone, and so is all that it ever started."""
        self.look_after()
        self.kill(1e9)
        for one in self.below.values():
            with suppress(psutil.NoSuchProcess):
                one.kill()

    @property
    def running_below(self) -> list[psutil.Process]:
        """The processes that it has started and that are still there."""
        return [one for one in self.below.values() if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]

    def _start(self) -> None:
        words, log = ["-m", *self.command], self.folder / f"{self.name}.log"
        if self.python is not None:
            self.process = self.python.start(words, self.environment, log, log, self.folder)
            return
        with log.open("ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, *words], env=self.environment, stdout=said, stderr=subprocess.STDOUT, cwd=self.folder
            )


class Site:
    """The laboratory, and what has been measured in it."""

    def __init__(self, folder: Path, lab: Any, python: WarmPython | None) -> None:
        self.folder, self.lab, self.python = folder, lab, python
        self.inbox, self.scans = folder / "inbox", lab.folder / "scans"
        for place in (self.inbox, self.scans):
            place.mkdir(exist_ok=True)
        lab.file(f"{lab.module}.py", STEPS)
        self.declared = {"new": lab.declare(NEW, "new.yaml"), "files": lab.declare(FILES, "files.yaml")}
        ports = free_port(), free_port()
        self.url, self.prefect_url = f"http://127.0.0.1:{ports[0]}/api/v3", f"http://127.0.0.1:{ports[1]}/api"
        self.common = {
            **os.environ,
            "PREFECT_API_URL": self.prefect_url,
            "PREFECT_SERVER_API_PORT": str(ports[1]),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "CRUCIBLE_API_URL": self.url,
            "CRUCIBLE_API_KEY": KEY,
        }
        serve = ["crucible_lineage", "serve", "--data", str(folder / "service"), "--port", str(ports[0])]
        self.service = self._part("service", *serve, "--api-key", KEY)
        self.server = self._part("prefect", "prefect", "server", "start", "--host", "127.0.0.1")
        self.watcher = self._part(
            "watcher", "crucible_lineage", "watch", "--project", "lab", "--folder", str(self.inbox), "--every", "1",
            "--settle", "0.7", "--pattern", "*.txt", "--measurement", "counting", "--data-type", "raw",
        )  # fmt: skip
        work = ["prefect", "worker", "start", "--pool", POOL, "--limit", "1"]
        self.workers = [self._part(name, *work) for name in ("east", "west")]
        self.parts = [self.service, self.server]  # the others once these answer

    def _part(self, name: str, *command: str) -> Part:
        """Each with a home of its own."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        own = {"HOME": str(home), "PREFECT_HOME": str(home / "prefect"), "CRUCIBLE_LINEAGE_DATA": str(home / "data")}
        return Part(name, command, {**self.common, **own}, home, python=self.python)

    def look_after(self) -> None:
        for part in self.parts:
            part.look_after()

    def wait(self) -> None:
        """Service and server answer."""
        for part, url in ((self.service, f"{self.url}/health/ready"), (self.server, f"{self.prefect_url}/health")):
            eventually(lambda url=url: self.look_after() or answers(url), 180, f"{part.name} answers")

    def command(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """What `crucible-lineage` says to an operator, whose home is that of the first worker."""
        environment, words = self.workers[0].environment, ["-m", "crucible_lineage", *map(str, arguments)]
        if self.python is not None:
            return self.python.run(words, environment)
        return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, timeout=300)

    def client(self) -> CrucibleClient:
        """Of the service, with the key that everything here has."""
        return CrucibleClient(self.url, KEY)

    def prefect(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of Prefect, which on SQLite may be too busy at first; its own client asks again, too."""
        for _ in range(60):
            answer = httpx.request(method, f"{self.prefect_url}/{path}", json=body, timeout=60)
            if answer.status_code != 503:
                break
            time.sleep(1)
        is_gone = method == "DELETE" and answer.status_code == 404  # it was busy, and did it all the same
        assert answer.is_success or is_gone, answer.text
        return answer.json() if answer.content else None

    def runs(self) -> list[Any]:
        """All flow runs that Prefect knows."""
        found: list[Any] = []
        while page := self.prefect("POST", "flow_runs/filter", {"limit": 200, "offset": len(found)}):
            found += page
        return found

    def close(self) -> None:
        for part in reversed(self.parts):
            part.close()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def site(tmp_path: Path, lab: Any, warm_python: WarmPython, prefect_database: Path) -> Iterator[Site]:
    """The laboratory, running, with its two pipelines deployed."""
    site = Site(tmp_path, lab, None if "SOAK_SECONDS" in os.environ else warm_python)
    if site.python is not None and prefect_database.exists():
        home = Path(site.server.environment["PREFECT_HOME"])
        home.mkdir()
        shutil.copy(prefect_database, home / "prefect.db")
    try:
        site.look_after()
        site.wait()
        with site.client() as client:
            lead = client.account.whoami().user_unique_id
            client.projects.create(project_id="lab", organization="local", project_lead=lead)
        site.prefect("POST", "work_pools/", {"name": POOL, "type": "process"})
        deployed = site.command("deploy", *site.declared.values(), "--pool", POOL)
        assert deployed.returncode == 0, deployed.stderr
        site.parts += [site.watcher, *site.workers]
        site.look_after()
        yield site
    finally:
        site.close()
