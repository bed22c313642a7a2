"""Ingestors of other packages that fail, hang, crash or use all memory do not harm the server."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx
import pytest
from crucible import CrucibleClient
from crucible.models import Dataset

from crucible_lineage.server import start_server

SERVE = """
import sys
from crucible_lineage.server import serve
serve(sys.argv[1], on_ready=lambda url: print(url, flush=True))
"""
PLUGIN = """
import os
import time
from crucible_lineage.server.readers import Found

class Good:
    suffixes = {".spe", ".csv"}
    def read(self, path):
        return Found({"first": path.read_text()[:5]}, None, {"measurement": "photoluminescence", "id": "7"})

class Raising:
    suffixes = {".raise"}
    def read(self, path):
        raise ValueError("the header has no magic number")

class Hanging:
    suffixes = {".hang"}
    def read(self, path):
        open(f"{path}.seen", "w").close()
        while os.environ.get("LAB_HANGS"):
            time.sleep(60)
        return Found({"hung": False})

class Greedy:
    suffixes = {".greedy"}
    def read(self, path):
        return Found({"bytes": len(bytearray(8 << 30))})

class Crashing:
    suffixes = {".crash"}
    def read(self, path):
        os._exit(3)

class Babbling:
    suffixes = {".babble"}
    def read(self, path):
        return Found({"object": float("nan"), "more": {object()}})
"""
NAMES = ("Good", "Raising", "Hanging", "Greedy", "Crashing", "Babbling", "Missing")


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Another package with ingestors, one of which is missing, on the import path."""
    folder = tmp_path / "site"
    info = folder / "lab_ingestors-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "lab_ingestors.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-ingestors\nVersion: 1.0\n")
    lines = [f"Lab{name} = lab_ingestors:{name}" for name in NAMES]
    (info / "entry_points.txt").write_text("\n".join(["[crucible_lineage.ingestors]", *lines]))
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def named(ingested, tmp_path):
    """Ingest a small file of this name; returns the dataset's record and the request."""

    def run(name, ingestor=None):
        path = tmp_path / name
        path.write_text(f"LAB,x\n{name},2\n")
        return ingested(path, ingestor=ingestor)

    return run


def test_class_of_another_package_reads_its_files_before_ours_do(named, plugin):
    record, request = named("pl.csv")
    assert (request["status"], request["ingestion_class"]) == ("complete", "LabGood")
    assert record["scientific_metadata"] == {"first": "LAB,x"}
    assert record["measurement"] == "photoluminescence"
    assert named("pl.csv", "DelimitedTextIngestor")[1]["ingestion_class"] == "DelimitedTextIngestor"


def test_classes_of_other_packages_are_listed_first(api, plugin):
    listed = api.get("/ingestors").json()
    assert listed[0] == "LabBabbling"
    own = [name for name in listed if not name.startswith("Lab")]
    assert listed == [*sorted(set(listed) - set(own)), *own]
    assert own[:2] == ["H5Ingestor", "ImageIngestor"]


def test_class_that_cannot_be_loaded_fails_only_when_named(named, plugin):
    assert named("a.csv")[1]["status"] == "complete"
    request = named("a.csv", "LabMissing")[1]
    assert request["status"] == "failed"
    assert "Missing" in request["error_message"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.raise", "ValueError: the header has no magic number"),
        ("a.crash", "LabCrashing ended its process with exit code 3"),
        ("a.hang", "LabHanging was not done after 2 s and was stopped"),
        ("a.babble", "TypeError: Object of type set is not JSON serializable"),
        pytest.param(
            "a.greedy",
            "MemoryError: reading takes more than 1024 MB of memory",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only there is memory bounded"),
        ),
    ],
)
def test_class_that_does_harm_fails_with_a_message_and_the_next_file_is_ingested(
    named, plugin, monkeypatch, name, message
):
    monkeypatch.setenv("CRUCIBLE_LINEAGE_INGEST_TIMEOUT_S", "2" if name == "a.hang" else "30")
    monkeypatch.setenv("CRUCIBLE_LINEAGE_INGEST_MEMORY_MB", "1024")
    monkeypatch.setenv("LAB_HANGS", "yes")
    record, request = named(name)
    assert request["status"] == "failed"
    assert message in request["error_message"]
    assert record["scientific_metadata"] is None
    assert named("next.spe")[1]["status"] == "complete"


@pytest.fixture
def killed(tmp_path, plugin, monkeypatch):
    """A data folder whose server was killed during an ingestion, and the number of its request."""
    monkeypatch.setenv("LAB_HANGS", "yes")
    environment = {**os.environ, "PYTHONPATH": str(plugin)}
    data = tmp_path / "data"
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(data)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            url = process.stdout.readline().strip()
            client = CrucibleClient(url, (data / "api_key").read_text().strip())
            path = tmp_path / "a.hang"
            path.write_text("content")
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
        assert (request["status"], request["ingestion_class"]) == ("complete", "LabHanging")


def test_closing_server_ends_the_process_in_hand_and_leaves_its_request_to_the_next(tmp_path, plugin, monkeypatch):
    monkeypatch.setattr("crucible_lineage.server.worker.CLOSE_TIMEOUT_S", 0.2)
    monkeypatch.setenv("LAB_HANGS", "yes")
    path = tmp_path / "a.hang"
    path.write_text("content")
    with start_server(tmp_path / "data") as server:
        client = CrucibleClient(server.url, server.api_key)
        added = client.datasets.add_file(client.datasets.create(Dataset(dataset_name="x"))["dsid"], str(path))
        number = added["ingestion_request"]["id"]
        while not list((tmp_path / "data").glob("contents/*/*.seen")):
            httpx.get(server.url + "/health/ready")
    monkeypatch.delenv("LAB_HANGS")
    with start_server(tmp_path / "data") as server:
        assert (
            CrucibleClient(server.url, server.api_key).ingestions.wait(number, sleep_interval=0.05)["status"]
            == "complete"
        )
