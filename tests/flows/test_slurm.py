"""Steps as jobs of a real Slurm cluster: made once, whatever is cancelled, requeued or killed."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nights import by_night, share

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


@pytest.fixture
def start(lab: Any, prefect: Any, cluster: Any, start_run: Any) -> Iterator[Any]:
    """Start the pipeline, whose step waits for the file `open`."""
    pytest.importorskip("dask_jobqueue")
    lab.file(f"{lab.module}_gated.py", STEPS)

    def started(uses: str = "gated", queue: str = "debug") -> Any:
        path = lab.declare(
            f"""
            pipeline: batch
            project: lab
            runner: {{type: slurm, options: {{queue: {queue}, memory: 1GB, job_mem: 1M, death_timeout: 10}}}}
            inputs: {{first: {{file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}}}
            steps:
              gate: {{uses: "{lab.module}_gated:{uses}", inputs: {{counts: first}}}}
            """
        )
        environment = {**prefect.environment, "SLURM_CONF": cluster.environment["SLURM_CONF"]}
        return start_run(environment, path, "--engine", "prefect", "--verbose")

    yield started
    cluster.clear()


def is_made_once(command: Any, data: Path) -> bool:
    found = json.loads(command("list", "--project", "lab", "--all", "--data", data, "--json").stdout)
    verified = command("verify", "--project", "lab", "--data", data)
    return len(found["datasets"]) == 2 and verified.returncode == 0


def running(cluster: Any) -> str:
    return str(cluster("squeue", "-h", "-t", "RUNNING", "-o", "%i"))


def is_begun(lab: Any, times: int = 1) -> bool:
    path = lab.folder / "arrived"
    return path.exists() and path.read_text().count("once") == times


def test_a_step_is_made_by_a_job_and_is_seen_live(
    start: Any, lab: Any, cluster: Any, data: Path, command: Any, eventually: Any
) -> None:
    run = start()
    eventually(lambda: run.arrived(lambda: run.log.exists() and "gate | at the gate" in run.log.read_text()), 90)
    assert "Partition=debug" in cluster("scontrol", "show", "job", running(cluster))
    lab.file("open", "")
    code, output = run.ended()
    assert code == 0, output
    assert is_made_once(command, data)
    eventually(lambda: not cluster("squeue", "-h"), 30)


@pytest.mark.parametrize("trouble", share(["requeued", "cancelled", "the node fails"], 3))
def test_the_step_of_a_job_that_ends_early_is_begun_again_and_made_once(
    start: Any, lab: Any, cluster: Any, data: Path, command: Any, eventually: Any, trouble: str
) -> None:
    run = start(queue="both")
    eventually(lambda: run.arrived(lambda: is_begun(lab)), 90)
    job, node = cluster("squeue", "-h", "-t", "RUNNING", "-o", "%i %N").split()
    if trouble == "requeued":
        cluster("scontrol", "requeue", job)
    elif trouble == "cancelled":
        cluster("scancel", job)
    else:
        cluster.fail(node, job)
    try:
        eventually(lambda: run.arrived(lambda: is_begun(lab, 2)), 120)
        lab.file("open", "")
        code, output = run.ended()
    finally:
        if trouble == "the node fails":
            cluster.repair(node)
    assert code == 0, output
    assert is_made_once(command, data)


@pytest.mark.parametrize("number", share([signal.SIGINT, signal.SIGTERM], 2))
def test_ctrl_c_and_the_signal_of_prefects_cancel_end_the_jobs(
    start: Any, lab: Any, cluster: Any, eventually: Any, number: int
) -> None:
    run = start()
    eventually(lambda: run.arrived(lambda: is_begun(lab)), 90)
    run.process.send_signal(number)
    code, output = run.ended()
    assert code == 130, output
    assert "1 stopped" in output
    eventually(lambda: not cluster("squeue", "-h"), 30)


@by_night("a worker without a run waits a minute")
def test_the_jobs_of_a_killed_run_end_by_themselves_and_the_next_run_makes_its_result_once(
    start: Any, lab: Any, cluster: Any, data: Path, command: Any, eventually: Any
) -> None:
    run = start()
    eventually(lambda: run.arrived(lambda: is_begun(lab)), 90)
    run.process.kill()
    run.process.wait()
    again = start()
    lab.file("open", "")
    code, output = again.ended()
    assert code == 0, output
    assert is_made_once(command, data)
    eventually(lambda: not cluster("squeue", "-h"), 90)


def test_what_slurm_refuses_or_a_step_raises_is_told(start: Any, cluster: Any) -> None:
    code, output = start(queue="nowhere").ended()
    assert code in (1, 2), output
    assert "Slurm would reject the runner's jobs" in output
    assert not cluster("squeue", "-h")
    code, output = start(uses="failing").ended()
    assert code == 1
    assert "ValueError: the lamp was off" in output
