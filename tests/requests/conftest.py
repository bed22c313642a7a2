"""A facility: a served Crucible with two projects, a pipeline that answers requests, and a real RabbitMQ."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.client import CrucibleClient
from tests.serving import RunningServer, start_server

PROGRAM = shutil.which("rabbitmq-server", path="/usr/lib/rabbitmq/bin")
STEPS = """
from pathlib import Path
from crucible_lineage import step

@step(measurement="stitched_mosaic", data_type="stitched_mosaic")
def stitch(scan: Path, *, gain: float = 1.0, out: Path) -> dict:
    with (Path(__file__).parent / "calls.txt").open("a") as calls:
        calls.write("stitch\\n")
    tiles = scan.read_text()
    if "torn" in tiles:
        raise ValueError("the tiles do not overlap")
    (out / "stitched.txt").write_text(tiles * int(gain))
    return {"tiles": len(tiles)}
"""
PIPELINE = """
pipeline: mosaic
project: inherit
request: {name: mosaic_stitch, input: scan}
inputs:
  scan: {select: {measurement: tiles}, each: true}
steps:
  stitch:
    uses: mosaic_steps:stitch
    inputs: {scan: scan}
    output: {dataset_name: "stitched_{scan.dataset_name}"}
"""
KINDS = ("mosaic_stitch", "rga_analysis", "insitu_spec_aggregation", "carrier_segmentation")


@dataclass
class Facility:
    """A served Crucible, the folder of its pipelines, and a client of it."""

    server: RunningServer
    folder: Path
    client: CrucibleClient
    command: Callable[..., subprocess.CompletedProcess[str]]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "CRUCIBLE_API_URL": self.server.url, "CRUCIBLE_API_KEY": self.server.api_key,
            "CRUCIBLE_LINEAGE_DATA": str(self.folder / "data"),
        }  # fmt: skip

    @property
    def pipeline(self) -> Path:
        return self.folder / "mosaic.yaml"

    def measure(self, name: str, project: str = "proj1", measurement: str = "tiles") -> str:
        (self.folder / name).write_text(f"tiles of {name}\n")
        dataset = self.client.datasets.create(
            {"dataset_name": name, "project_id": project, "measurement": measurement}, files=[self.folder / name]
        )
        return dataset.dsid

    def children(self, mfid: str) -> list[str]:
        found = self.client.datasets.list(measurement="stitched_mosaic")
        return [child.unique_id for child in found
                if mfid in str(self.client.datasets.get(child.unique_id, include_links=True).links)]  # fmt: skip

    def calls(self) -> int:
        calls = self.folder / "calls.txt"
        return calls.read_text().count("stitch") if calls.exists() else 0

    def answer(self, *options: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.command("answer", self.pipeline, "--once", *options, **{**self.environment, **environment})


@pytest.fixture
def facility(tmp_path: Path, command: Any) -> Iterator[Facility]:
    folder = tmp_path / "facility"
    folder.mkdir()
    (folder / "mosaic_steps.py").write_text(STEPS)
    (folder / "mosaic.yaml").write_text(PIPELINE)
    with start_server(tmp_path / "served") as server, CrucibleClient(server.url, server.api_key) as client:
        for project in ("proj1", "proj2"):
            client.projects.create({"project_id": project, "organization": "Foundry", "project_lead": "local"})
        yield Facility(server, folder, client, command)


class Broker:
    """A RabbitMQ as a process of its own, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = [_free_port() for _ in range(3)]
        self.url = f"amqp://guest:guest@127.0.0.1:{self.ports[0]}/"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        names = {"MNESIA_BASE": "db", "LOG_BASE": "log", "ENABLED_PLUGINS_FILE": "plugins", "CONFIG_FILE": "none"}
        environment = {
            **os.environ, "HOME": str(self.folder), "ERL_EPMD_PORT": str(self.ports[2]),
            "RABBITMQ_NODENAME": "tests@localhost", "RABBITMQ_NODE_PORT": str(self.ports[0]),
            "RABBITMQ_DIST_PORT": str(self.ports[1]),
            **{f"RABBITMQ_{name}": str(self.folder / path) for name, path in names.items()},
        }  # fmt: skip
        assert PROGRAM is not None
        with (self.folder / "output.txt").open("ab") as log:
            self.process = subprocess.Popen([PROGRAM], env=environment, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                self.channel().connection.close()
            except Exception:
                assert self.process.poll() is None, (self.folder / "output.txt").read_text()
                time.sleep(0.3)
            else:
                return
        raise AssertionError("RabbitMQ does not answer")

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()

    def channel(self) -> Any:
        import pika

        return pika.BlockingConnection(pika.URLParameters(self.url)).channel()

    def send(self, *messages: str) -> None:
        channel = self.channel()
        channel.queue_declare("mosaic_stitch")
        for message in messages:
            channel.basic_publish("", "mosaic_stitch", message.encode())
        channel.connection.close()

    def messages(self, queue: str) -> list[tuple[str, dict[str, str]]]:
        channel = self.channel()
        found = []
        while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
            found.append((got[2].decode(), dict(got[1].headers or {})))
        channel.connection.close()
        return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    if PROGRAM is None:
        pytest.skip("needs rabbitmq-server")
    broker = Broker(tmp_path_factory.mktemp("rabbitmq"))
    broker.start()
    yield broker
    broker.stop()
