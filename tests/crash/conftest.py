"""What the crash tests share: the state that Crucible shows of a project, and a proxy that misbehaves."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.statements.statements import FAIL, MEASUREMENT
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


class Misbehaving(ThreadingHTTPServer):
    """A proxy that loses answers after the server acted, delays, duplicates, and itself answers errors or a page."""

    daemon_threads = True

    def __init__(self, target: str, seed: int, share: float, kinds: Sequence[str] = KINDS) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kinds = kinds
        self.target = target
        self.dice = random.Random(seed)
        self.share = share
        self.lock = threading.Lock()
        self.faults = 0
        self._trigger: tuple[str, str] | None = None
        self._instead: int | None = None  # None while it passes on; 0 gives no answer, else the status
        self._then = 0
        self._back = threading.Event()
        self._left = -1
        every_s = 0.02  # it looks whether it is to end
        self.thread = threading.Thread(target=self.serve_forever, args=(every_s,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/api/v3"

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

    def wait_until_back(self) -> None:
        """Keep a call waiting."""
        self._back.wait()

    def close(self) -> None:
        self._back.set()
        self.shutdown()
        self.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Misbehaving

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        return

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        instead = self.server.instead(self.command, self.path)
        if instead == HANGS:
            self.server.wait_until_back()
            instead = 0
        if instead == 0:
            self.close_connection = True
            self.connection.close()
            return
        if instead is not None:
            self._answer(instead, {"Content-Type": "application/json"}, b'{"detail":"no, for good"}')
            return
        fault = self.server.fault()
        if fault in ("500", "503", "429"):
            self._answer(
                int(fault), {"Content-Type": "application/json", "Retry-After": "0"}, b'{"detail":"a bad day"}'
            )
            return
        if fault == "twice":
            self._forward(body)
        status, headers, content = self._forward(body)
        if fault == "lose":
            self.close_connection = True
            self.connection.close()
            return
        if fault == "late":
            threading.Event().wait(0.2)
        if fault == "page":
            status, headers, content = 200, {"Content-Type": "text/html"}, PAGE
        self._answer(status, headers, content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(self.server.target, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "content-length"):
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        lines = [f"HTTP/1.1 {status} Said"]
        kept = {
            k: v for k, v in headers.items() if k.lower() not in ("content-length", "connection", "transfer-encoding")
        }
        lines += [f"{name}: {value}" for name, value in {**kept, "Content-Length": str(len(content))}.items()]
        try:
            self.wfile.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        except OSError:
            self.close_connection = True


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
