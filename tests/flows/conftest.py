"""Shared parts of tests of scheduled and triggered runs: a work pool with a worker, a Slurm cluster, Prefect's API."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.plan.files import hash_files, register_raw
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.warm import WarmPython

POOL = "lab-pool"

SELECTED = """
pipeline: selected
project: lab
inputs:
  counts: {select: {measurement: counting, data_type: raw}, each: true}
steps:
  scaled:
    uses: LABMODULE:scale
    inputs: {counts: counts}
    params: {factor: 3}
"""


@pytest.fixture(scope="session")
def pool(prefect_server: Any, prefect_program: Any) -> str:
    """Create a work pool for processes."""
    prefect_program.post("work_pools/", {"name": POOL, "type": "process"})
    return POOL


@pytest.fixture(scope="session")
def worker(
    prefect_server: Any, warm_python: WarmPython, pool: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Start a worker of the pool, in a separate folder."""
    folder = tmp_path_factory.mktemp("worker")
    words, log = ["-m", "prefect", "worker", "start", "--pool", pool], folder / "log"
    process = warm_python.start(words, prefect_server.environment, log, log, folder)
    yield
    process.send_signal(signal.SIGTERM)
    process.wait(60)


@pytest.fixture
def registered(data: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Provide a function that registers texts as raw datasets of the project lab and returns their ids."""

    def register(*texts: str) -> list[str]:
        folder = tmp_path / "measured"
        folder.mkdir(exist_ok=True)
        mfids = []
        with Session(Settings(data)) as session:
            session.ensure_project("lab")
            for text in texts:
                path = folder / f"{len(list(folder.iterdir()))}.txt"
                path.write_text(text)
                declared = FileInput(file=(str(path),), measurement="counting", data_type="raw", ingest=False)
                raw = hash_files("lab", [path], None, session)
                mfids.append(register_raw(raw, declared, path.name, session).mfid)
        return mfids

    return register


@pytest.fixture
def results(data: Path) -> Callable[[], dict[str, list[float]]]:
    """Provide a function that lists the results of the step `scale` by parent, one entry for each dataset."""

    def read() -> dict[str, list[float]]:
        made: dict[str, list[float]] = {}
        with Session(Settings(data)) as session:
            if session.client.projects.find("lab") is None:
                return {}
            found = session.client.datasets.list(
                project_id="lab", data_type="scaled", include_metadata=True, include_links=True, limit=None
            )
            for dataset in found:
                metadata = dataset.scientific_metadata or {}
                if metadata.get("crucible_lineage", {}).get("status") != "complete":
                    continue
                (parent,) = [link.unique_id for link in dataset.links or () if link.direction == "source"]
                made.setdefault(parent, []).append(metadata["factor"])
        return made

    return read


@pytest.fixture
def selected(lab: Any) -> Path:
    """Provide a pipeline that scales each raw dataset of the project."""
    path: Path = lab.declare(SELECTED, "selected.yaml")
    return path


SLURM = ("slurmctld", "slurmd", "munged", "sbatch")
CONF = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=0
MpiDefault=none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} CPUs=4 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={other_port} CPUs=4 State=UNKNOWN
PartitionName=debug Nodes=n1 Default=YES MaxTime=INFINITE State=UP
PartitionName=both Nodes=n1,n2 MaxTime=INFINITE State=UP
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Run:
    """A command `run` in a separate process, whose output can be read while it runs."""

    def __init__(self, process: Any, log: Path) -> None:
        self.process, self.log = process, log

    def arrived(self, look: Callable[[], Any]) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return bool(look())

    def ended(self) -> tuple[int, str]:
        return self.process.wait(180), self.log.read_text()


@pytest.fixture
def start_run(data: Path, warm_python: WarmPython) -> Iterator[Callable[..., Run]]:
    """Start `crucible-lineage run ...`."""
    runs: list[Run] = []

    def started(environment: dict[str, str], *words: object) -> Run:
        log = data.parent / f"run-{len(runs)}.log"
        arguments = ["-m", "crucible_lineage", "run", "--data", str(data), *map(str, words)]
        runs.append(Run(warm_python.start(arguments, environment, log, log), log))
        return runs[-1]

    yield started
    for run in runs:
        run.process.kill()
        run.process.wait(60)


class Cluster:
    """A cluster of two nodes in a folder, without root and systemd."""

    def __init__(self, folder: Path) -> None:
        for name in ("state", "spool-n1", "spool-n2"):
            (folder / name).mkdir()
        host, user = socket.gethostname().partition(".")[0], getpass.getuser()
        ports = {name: free_port() for name in ("port", "node_port", "other_port")}
        text = CONF.format(folder=folder, host=host, user=user, **ports)
        (folder / "slurm.conf").write_text(text)
        (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o400)
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.log = (folder / "log").open("wb")
        munge = ["--key-file", f"{folder}/key", "--socket", f"{folder}/munge.socket"]
        files = ["--pid-file", f"{folder}/munge.pid", "--log-file", f"{folder}/munge.log", "--seed-file"]
        self.daemons = [
            self._start("munged", "-F", "--force", *munge, *files, f"{folder}/seed"),
            self._start("slurmctld", "-D"),
        ]
        self.nodes = {name: self._start("slurmd", "-D", "-N", name) for name in ("n1", "n2")}

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=self.environment, stdout=self.log, stderr=self.log)

    def __call__(self, *command: str) -> str:
        ran = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        return ran.stdout.strip()

    def fail(self, node: str, job: str) -> None:
        """Remove a node from the cluster, with the job that runs there."""
        self.nodes[node].kill()
        self.nodes[node].wait(20)
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                process_text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
                if f"SLURM_JOB_ID={job}\0".encode() in process_text or f"slurmstepd: [{job}.".encode() in process_text:
                    os.kill(int(process.name), signal.SIGKILL)
        self("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=power")

    def repair(self, node: str) -> None:
        self.nodes[node] = self._start("slurmd", "-D", "-N", node)
        self("scontrol", "update", f"NodeName={node}", "State=RESUME")
        end = time.monotonic() + 60
        while self("sinfo", "-h", "-n", node, "-p", "both", "-o", "%T") not in ("idle", "mixed", "allocated"):
            assert time.monotonic() < end, self("sinfo", "-N", "-l")
            time.sleep(0.2)

    def clear(self) -> None:
        """Remove jobs of other tests."""
        self("scancel", "--me")

    def close(self) -> None:
        self.clear()
        daemons = [*self.daemons, *self.nodes.values()]
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(20)
        self.log.close()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if not all(map(shutil.which, SLURM)):
        pytest.skip("no Slurm: apt-get install slurmctld slurmd slurm-client munge")
    found = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        end = time.monotonic() + 60
        while found("sinfo", "-h", "-p", "both", "-o", "%T") != "idle":
            assert time.monotonic() < end, Path(found.log.name).read_text()
            time.sleep(0.2)
        yield found
    finally:
        found.close()
