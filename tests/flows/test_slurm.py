"""Steps as jobs of a real Slurm cluster: made once, whatever is cancelled, requeued or killed."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch")
pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)), reason="no Slurm: apt-get install slurmctld slurmd slurm-client munge"
)

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
STEPS = """
import time
from pathlib import Path

def gated(counts: Path, *, out: Path) -> None:
    folder = Path(__file__).parent
    print("at the gate")
    with (folder / "arrived").open("a") as stream:
        stream.write("once ")
    for _ in range(1200):
        if (folder / "open").exists():
            break
        time.sleep(0.05)
    (out / "x.txt").write_text(counts.read_text() + "9")

def failing(counts: Path, *, out: Path) -> None:
    raise ValueError("the lamp was off")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
        """The node is gone from the cluster, with the job that runs there."""
        self.nodes[node].kill()
        self.nodes[node].wait(20)
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
                if f"SLURM_JOB_ID={job}\0".encode() in said or f"slurmstepd: [{job}.".encode() in said:
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
        """No test finds jobs of another one."""
        for job in self("squeue", "-h", "-o", "%i").split():
            self("scancel", job)

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
    found = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        end = time.monotonic() + 60
        while found("sinfo", "-h", "-p", "both", "-o", "%T") != "idle":
            assert time.monotonic() < end, Path(found.log.name).read_text()
            time.sleep(0.2)
        yield found
    finally:
        found.close()


class Run:
    """A run of the pipeline on the cluster, in a process of its own."""

    def __init__(self, path: Path, data: Path, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "crucible_lineage", "run", str(path), "--data", str(data)]
        command += ["--engine", "prefect", "--verbose"]
        self.log = data.parent / f"run-{time.monotonic_ns()}.log"
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)

    def arrived(self, look: Any) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return bool(look())

    def ended(self) -> tuple[int, str]:
        return self.process.wait(180), self.log.read_text()


@pytest.fixture
def start(lab: Any, data: Path, prefect: Any, cluster: Cluster) -> Iterator[Any]:
    """Starts the pipeline, whose step waits for the file `open`."""
    lab.file(f"{lab.module}_gated.py", STEPS)
    runs: list[Run] = []

    def started(
        uses: str = "gated", options: str = "{partition: debug}", resources: str = "{cpus: 2, memory: 1000000, time: 5}"
    ) -> Run:
        path = lab.declare(
            f"""
            pipeline: batch
            project: lab
            runner: {{type: slurm, options: {options}}}
            inputs: {{first: {{file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}}}
            steps:
              gate: {{uses: "{lab.module}_gated:{uses}", inputs: {{counts: first}}, resources: {resources}}}
            """
        )
        environment = {
            **cluster.environment, **prefect.environment, "SLURM_CONF": cluster.environment["SLURM_CONF"]
        }  # fmt: skip
        runs.append(Run(path, data, environment))
        return runs[-1]

    yield started
    for run in runs:
        run.process.kill()
        run.process.wait(60)
    cluster.clear()


def is_made_once(command: Any, data: Path) -> bool:
    found = json.loads(command("list", "--project", "lab", "--all", "--data", data, "--json").stdout)
    verified = command("verify", "--project", "lab", "--data", data)
    return len(found["datasets"]) == 2 and verified.returncode == 0


def running(cluster: Cluster) -> str:
    return cluster("squeue", "-h", "-t", "RUNNING", "-o", "%i")


def test_a_step_is_a_job_with_its_resources_and_is_seen_live(
    start: Any, lab: Any, cluster: Cluster, data: Path, command: Any, eventually: Any
) -> None:
    run = start()
    eventually(lambda: run.arrived(lambda: "gate | at the gate" in run.log.read_text()), 90)
    number = running(cluster)
    assert "NumCPUs=2" in cluster("scontrol", "show", "job", number)
    status = subprocess.run(
        [sys.executable, "-m", "crucible_lineage", "status", "--data", str(data)],
        env=cluster.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert re.search(rf"Slurm: {number} RUNNING gate", status.stdout), status
    lab.file("open", "")
    code, said = run.ended()
    assert code == 0, said
    assert is_made_once(command, data)
    assert not list((data / "work").glob("slurm-*"))


def test_a_requeued_job_makes_its_result_once(
    start: Any, lab: Any, cluster: Cluster, data: Path, command: Any, eventually: Any
) -> None:
    run = start()
    eventually(lambda: run.arrived((lab.folder / "arrived").exists), 90)
    cluster("scontrol", "requeue", running(cluster))
    eventually(lambda: (lab.folder / "arrived").read_text().count("once") == 2, 90)
    lab.file("open", "")
    code, said = run.ended()
    assert code == 0, said
    assert is_made_once(command, data)


def test_a_job_whose_node_fails_is_made_once_on_another_node(
    start: Any, lab: Any, cluster: Cluster, data: Path, command: Any, eventually: Any
) -> None:
    run = start(resources="{partition: both}")
    eventually(lambda: run.arrived((lab.folder / "arrived").exists), 90)
    job, node = cluster("squeue", "-h", "-t", "RUNNING", "-o", "%i %N").split()
    cluster.fail(node, job)
    try:
        eventually(lambda: run.arrived(lambda: (lab.folder / "arrived").read_text().count("once") == 2), 120)
        assert cluster("squeue", "-h", "-t", "RUNNING", "-o", "%N") in {"n1", "n2"} - {node}
        lab.file("open", "")
        code, said = run.ended()
    finally:
        cluster.repair(node)
    assert code == 0, said
    assert is_made_once(command, data)


def test_a_cancelled_job_is_a_step_that_failed_and_says_so(
    start: Any, lab: Any, cluster: Cluster, eventually: Any
) -> None:
    run = start()
    eventually(lambda: run.arrived((lab.folder / "arrived").exists), 90)
    cluster("scancel", running(cluster))
    code, said = run.ended()
    assert code == 1
    assert "of Slurm ended without a result" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_the_signal_of_prefects_cancel_end_the_job(
    start: Any, lab: Any, cluster: Cluster, eventually: Any, number: int
) -> None:
    run = start()
    eventually(lambda: run.arrived((lab.folder / "arrived").exists), 90)
    run.process.send_signal(number)
    code, said = run.ended()
    assert code == 130, said
    assert "1 stopped" in said
    eventually(lambda: not cluster("squeue", "-h"), 30)


def test_the_job_of_a_killed_run_ends_by_itself_and_the_next_run_takes_its_result(
    start: Any, lab: Any, cluster: Cluster, data: Path, command: Any, eventually: Any
) -> None:
    run = start()
    eventually(lambda: run.arrived((lab.folder / "arrived").exists), 90)
    run.process.kill()
    run.process.wait()
    lab.file("open", "")
    eventually(lambda: not cluster("squeue", "-h"), 90)
    code, said = start().ended()
    assert code == 0, said
    assert "1 executed" not in said
    assert is_made_once(command, data)


def test_what_slurm_refuses_or_a_step_raises_is_told(start: Any, cluster: Cluster) -> None:
    code, said = start(options="{partition: nowhere}").ended()
    assert code in (1, 2), said
    assert "Slurm would not take its job" in said
    assert not cluster("squeue", "-h")
    code, said = start(uses="failing", resources="{}").ended()
    assert code == 1
    assert "ValueError: the lamp was off" in said
    code, said = start(resources="{partition: 3}").ended()
    assert "'partition' is the name of a partition of Slurm, not 3.0" in said
    code, said = start(resources="{cpus: many}").ended()
    assert "'cpus' is a number, not 'many'" in said
    code, said = start(resources="{bananas: 1}").ended()
    assert "Slurm has no resource 'bananas'; there are cpus" in said
