"""Steps on clusters that were there before: Dask's, by night Ray's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.nights import by_night

pytestmark = pytest.mark.skipif(os.name == "nt", reason="ends process groups")


class Cluster:
    """Processes that make up a cluster, ended together. `runner` names it, as a declaration does."""

    def __init__(self, folder: Path, stack: ExitStack, python: Any, environment: dict[str, str]) -> None:
        self.folder = folder
        self._python, self._environment = python, environment
        self.runner = ""
        self._stack = stack

    def start(self, *command: object, **environment: str) -> None:
        """Start a program that itself starts others."""
        process = subprocess.Popen(
            [*map(str, command)],
            env=self._surroundings(os.environ, environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._stack.callback(ended, process)

    def start_python(self, *arguments: object, **environment: str) -> None:
        """Start a program that begins with Prefect imported, as what it is sent needs it."""
        nothing = Path(os.devnull)
        words, surroundings = (
            [str(argument) for argument in arguments],
            self._surroundings(self._environment, environment),
        )
        process = self._python.start(words, surroundings, nothing, nothing)
        self._stack.callback(process.kill)

    def _surroundings(self, environment: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
        return {**environment, "LAB_MEETS": str(self.folder / "workers"), **more}


def ended(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started, and without goodbye: workers would wait for their scheduler."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(happened: Callable[[], Any], seconds: float = 240) -> Any:
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def start_dask(cluster: Cluster) -> str:
    """The address of the scheduler."""
    dask, file = ("-m", "dask"), cluster.folder / "scheduler.json"
    cluster.start_python(*dask, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", file)

    def address() -> str:
        with suppress(OSError, ValueError):  # the file is there before its content is
            return str(json.loads(file.read_text())["address"])
        return ""

    found = wait_for(address)
    for name in ("a", "b"):
        worker = (*dask, "worker", found, "--nthreads", "1", "--no-dashboard", "--no-nanny")
        cluster.start_python(*worker, "--local-directory", cluster.folder, LAB_WORKER=name)
    return str(found)


def start_ray(cluster: Cluster) -> str:
    """The address of the head, which is a worker, too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray, address = Path(sys.executable).with_name("ray"), f"127.0.0.1:{port}"
    common = (ray, "start", "--block", "--num-cpus", 1, "--disable-usage-stats", "--node-ip-address", "127.0.0.1")
    common = (*common, "--include-log-monitor", "false")
    folder = ("--temp-dir", cluster.folder / "ray")
    head = ("--head", "--port", port, "--include-dashboard", "false", "--no-monitor", *folder)
    cluster.start(*common, *head, LAB_WORKER="a")

    def answers() -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", port)) == 0

    wait_for(answers)
    cluster.start(*common, "--address", address, LAB_WORKER="b")
    return address


@pytest.fixture(params=[pytest.param(kind, marks=by_night("a cluster of its own")) for kind in ("dask", "ray")])
def cluster(request: pytest.FixtureRequest, warm_python: Any, prefect_server: Any) -> Iterator[Cluster]:
    # A short path: Ray has sockets in it, whose names may have a hundred letters.
    folder = Path(tempfile.mkdtemp(prefix="lab-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        cluster = Cluster(folder, stack, warm_python, prefect_server.environment)
        start = {"dask": start_dask, "ray": start_ray}[request.param]
        cluster.runner = f"{request.param}={start(cluster)}"
        yield cluster


def test_steps_are_made_by_both_workers_and_a_failure_comes_back(
    many: Any, data: Path, tmp_path: Path, command: Any, metadata_of: Any, cluster: Cluster, prefect_server: Any
) -> None:
    path = many.declare(f"{many.pipeline.read_text()}runner: {cluster.runner}\n")
    ran = command("run", path, "--data", data, "--json", **prefect_server.environment)
    assert (ran.returncode, bool(ran.stdout)) == (1, True), ran.stderr
    result = json.loads(ran.stdout)
    assert list(result["errors"]) == ["broken"]
    assert result["errors"]["broken"]["message"].startswith("step 'broken' failed: RuntimeError: the lamp was off, at ")
    assert {made["worker"] for made in metadata_of(data, result["datasets"]).values()} == {"a", "b"}
