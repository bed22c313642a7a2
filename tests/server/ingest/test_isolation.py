"""Readers that fail, hang, crash or use all memory do not harm the server."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx
import pytest
from crucible import CrucibleClient
from crucible.models import Dataset

from tests.serving import start_server

SERVE = """
import sys
from crucible_lineage.server.running import serve
serve(sys.argv[1], on_ready=lambda url: print(url, flush=True))
"""
READER = """
import os
import sys
import time

if "crucible_lineage.server.ingest" in sys.orig_argv:
    from crucible_lineage.server import readers

    def read(path):
        match path.read_text():
            case "raise":
                raise ValueError("the header has no magic number")
            case "hang":
                open(f"{path}.seen", "w").close()
                while os.environ.get("LAB_HANGS"):
                    time.sleep(60)
            case "greedy":
                bytearray(8 << 30)
            case "crash":
                os._exit(3)
            case "babble":
                return readers.Found({"object": float("nan"), "more": {object()}})
        return readers.Found({"process": os.getpid()})

    readers.read_image = read
"""


@pytest.fixture
def harm(tmp_path, monkeypatch):
    """A reader of pictures that does what the file says; returns the folder to import it from."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(READER)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


@pytest.fixture
def said(harm, tmp_path):
    """Ingest a file with this text, by a server of its own; returns the dataset's record and the request."""
    with start_server(tmp_path / "own") as server:
        client = CrucibleClient(server.url, server.api_key)

        def run(text):
            path = tmp_path / f"{text}.png"
            path.write_text(text)
            mfid = client.datasets.create(Dataset(dataset_name="x"))["dsid"]
            request = client.datasets.add_file(mfid, str(path))["ingestion_request"]
            request = client.ingestions.wait(request["id"], sleep_interval=0.05)
            return client.datasets.get(mfid, include_metadata=True), request

        yield run


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise", "ValueError: the header has no magic number"),
        ("crash", "ImageIngestor ended its process with exit code 3"),
        ("hang", "ImageIngestor was not done after 2 s and was stopped"),
        ("babble", "TypeError: Object of type set is not JSON serializable"),
        pytest.param(
            "greedy",
            "MemoryError: reading takes more than 1024 MB of memory",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only there is memory bounded"),
        ),
    ],
)
def test_reader_that_does_harm_fails_with_a_message_and_the_next_file_is_ingested(said, monkeypatch, text, message):
    monkeypatch.setenv("CRUCIBLE_LINEAGE_INGEST_TIMEOUT_S", "2" if text == "hang" else "30")
    monkeypatch.setenv("CRUCIBLE_LINEAGE_INGEST_MEMORY_MB", "1024")
    monkeypatch.setenv("LAB_HANGS", "yes")
    record, request = said(text)
    assert request["status"] == "failed"
    assert message in request["error_message"]
    assert record["scientific_metadata"] is None
    first, second = (said(name)[0]["scientific_metadata"]["process"] for name in ("next", "last"))
    assert first == second, "a process is started for each file, which costs 0.2 s of CPU"


@pytest.fixture
def killed(tmp_path, harm, monkeypatch):
    """A data folder whose server was killed during an ingestion, and the number of its request."""
    monkeypatch.setenv("LAB_HANGS", "yes")
    environment = {**os.environ, "PYTHONPATH": str(harm)}
    data = tmp_path / "data"
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(data)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            url = process.stdout.readline().strip()
            client = CrucibleClient(url, (data / "api_key").read_text().strip())
            path = tmp_path / "a.png"
            path.write_text("hang")
            added = client.datasets.add_file(client.datasets.create(Dataset(dataset_name="x"))["dsid"], str(path))
            number = added["ingestion_request"]["id"]
            while not list(data.glob("contents/*/*.seen")):
                httpx.get(url + "/health/ready")
        finally:
            process.kill()
    monkeypatch.delenv("LAB_HANGS")
    return data, number


def test_request_of_a_killed_server_is_processed_by_the_next(killed):
    data, number = killed
    with start_server(data) as server:
        client = CrucibleClient(server.url, server.api_key)
        request = client.ingestions.wait(number, sleep_interval=0.05)
        assert (request["status"], request["ingestion_class"]) == ("complete", "ImageIngestor")
