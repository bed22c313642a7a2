"""What the crash tests share: the state that Crucible shows of a project, and a proxy that misbehaves."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.statements.statements import FAIL, MEASUREMENT
from tests.proxy import Call, Proxy
from tests.serving import RunningServer, start_server


def project_state(session: Session) -> dict[str, Any]:
    """Everything Crucible says of project `lab`, without what differs from run to run (times, run ids, failed runs)."""
    state = {}
    for dataset in session.client.datasets.list(project_id="lab", include_metadata=True, limit=None):
        if (dataset.measurement, dataset.data_type) == (MEASUREMENT, FAIL):  # of a data folder that is not used again
            continue
        mfid = dataset.unique_id
        record = (dataset.scientific_metadata or {}).get("crucible_lineage", {})
        files = session.client.datasets.list_files(mfid)
        state[mfid] = {
            "name": dataset.dataset_name,
            "status": record.get("status"),
            "recipe": record.get("recipe"),
            "generated": record.get("generated"),
            "supersedes": record.get("supersedes"),
            "metadata": {
                k: v for k, v in (dataset.scientific_metadata or {}).items() if not k.startswith("crucible_lineage")
            },
            "places": sorted((dataset.scientific_metadata or {}).get("crucible_lineage_places", {})),
            "files": sorted((file.filename, file.sha256_hash, file.size) for file in files),
            "bytes": sorted(session.client.files.download_bytes(file) for file in files),
            "parents": sorted(parent.unique_id for parent in session.client.datasets.list_parents(mfid)),
            "keywords": sorted(word.keyword for word in session.client.datasets.get_keywords(mfid)),
            "thumbnails": sorted(p.thumbnail_name for p in session.client.datasets.get_thumbnails(mfid)),
        }
    return state


# Steps that note their calls in a file.
COUNT = """
from pathlib import Path

from crucible_lineage import step

CALLS = Path({calls!r})


@step
def count(counts: Path, *, number: int, out: Path) -> dict:
    with CALLS.open("a") as calls:
        calls.write(f"{{number}}\\n")
    (out / "out.txt").write_text(counts.read_text() + str(number))
    return {{"number": number}}
"""

# A process that dies, as by SIGKILL, just before or just after its Nth request to Crucible. What the last one has begun
# it takes for deserted sooner than after four seconds, which the commands that run again in test_interrupted.py wait.
DYING = """
import itertools, os, signal, sys
import crucible_lineage.client
import httpx
calls = itertools.count(1)
send = httpx.Client.send
when, number = os.environ["DIE"].split()
def dying(self, request, **options):
    mine = next(calls) == int(number)
    if mine and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    answer = send(self, request, **options)
    if mine:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
httpx.Client.send = dying
from crucible_lineage.registration import register
register.PATIENCE_S = 0.3
from crucible_lineage.cli import main
main(sys.argv[1:])
"""


@pytest.fixture
def dying() -> str:
    """A command line that dies just before or after its Nth request: DIE is `before N` or `after N`."""
    return DYING


@pytest.fixture
def state_of() -> Callable[[Session], dict[str, Any]]:
    """The function that tells the state of project `lab`."""
    return project_state


HANGS = -1
KINDS = ("lose", "lose", "twice", "500", "503", "429", "late")  # faults of calls
PAGE = b"<!doctype html><title>Please sign in</title>"


class Misbehaving(Proxy):
    """A proxy that loses answers after the server acted, delays, duplicates, and itself answers errors or a page."""

    def __init__(self, target: str, seed: int, share: float, kinds: Sequence[str] = KINDS) -> None:
        self.kinds = kinds
        self.dice = random.Random(seed)
        self.share = share
        self.faults = 0
        self._trigger: tuple[str, str] | None = None
        self._instead: int | None = None  # None while it passes on; 0 gives no answer, else the status
        self._then = 0
        self._back = threading.Event()
        self._left = -1
        super().__init__(target)
        self.url += "/api/v3"

    def fault(self) -> str | None:
        with self.lock:
            if self.dice.random() >= self.share:
                return None
            self.faults += 1
            return self.dice.choice(self.kinds)

    def away_after(self, method: str, part: str, back_after: int = -1) -> None:
        """From the first such call on nobody answers, so many calls long or for good."""
        self._trigger, self._then, self._left = (method, part), 0, back_after

    def refuse_after(self, method: str, part: str, status: int) -> None:
        """From the first call with this method and part of the path on all calls are answered with this status."""
        self._trigger, self._then, self._left = (method, part), status, -1

    def hang_after(self, method: str, part: str) -> None:
        """From the first such call on no call is answered until `back`."""
        self._back.clear()
        self._trigger, self._then, self._left = (method, part), HANGS, -1

    def back(self) -> None:
        """All is passed on again."""
        self._trigger = self._instead = None
        self._back.set()

    def instead(self, method: str, path: str) -> int | None:
        """What becomes of the call: 0 for no answer, a status, or None if it is passed on."""
        with self.lock:
            if self._trigger and self._trigger[0] == method and self._trigger[1] in path:
                self._trigger, self._instead = None, self._then
            if self._instead is not None and self._left == 0:
                self._instead = None
            elif self._instead is not None:
                self._left -= 1
            return self._instead

    def close(self) -> None:
        self._back.set()
        super().close()

    def handle(self, call: Call) -> None:
        instead = self.instead(call.command, call.path)
        if instead == HANGS:
            self._back.wait()
            instead = 0
        json = {"Content-Type": "application/json"}
        if instead is not None:
            call.answer(instead, json, b'{"detail":"no, for good"}') if instead else call.drop()
            return
        fault = self.fault()
        if fault in ("500", "503", "429"):
            call.answer(int(fault), {**json, "Retry-After": "0"}, b'{"detail":"a bad day"}')
            return
        if fault == "twice":
            call.forward()
        answer = call.forward()
        if fault == "lose":
            call.drop()
            return
        if fault == "late":
            threading.Event().wait(0.2)
        call.answer(*((200, {"Content-Type": "text/html"}, PAGE) if fault == "page" else answer))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningServer]:
    """A Crucible as a service of its own, with the project `lab`."""
    with start_server(tmp_path / "service") as server:
        with Session(Settings(tmp_path / "direct", server.url, server.api_key)) as session:
            session.client.projects.create(project_id="lab", organization="x", project_lead="local")
        yield server


@pytest.fixture
def misbehaving() -> Iterator[Callable[..., Misbehaving]]:
    """Starts proxies in front of a server's address."""
    started: list[Misbehaving] = []

    def start(url: str, seed: int, share: float = 0.1, kinds: Sequence[str] = KINDS) -> Misbehaving:
        proxy = Misbehaving(url.removeprefix("http://").partition("/")[0], seed, share, kinds)
        started.append(proxy)
        return proxy

    yield start
    for proxy in started:
        proxy.close()
