"""Steps as jobs of a real Slurm cluster: made once, whatever is cancelled, requeued or killed."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
    lab.file(f"{lab.module}_gated.py", STEPS)

    def started(
        uses: str = "gated", options: str = "{partition: debug}", resources: str = "{cpus: 2, memory: 1000000, time: 5}"
    ) -> Any:
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
        return start_run(environment, path, "--engine", "prefect", "--verbose")

    yield started
    cluster.clear()


def is_made_once(command: Any, data: Path) -> bool:
    found = json.loads(command("list", "--project", "lab", "--all", "--data", data, "--json").stdout)
    verified = command("verify", "--project", "lab", "--data", data)
    return len(found["datasets"]) == 2 and verified.returncode == 0


def running(cluster: Any) -> str:
    return cluster("squeue", "-h", "-t", "RUNNING", "-o", "%i")


def test_a_step_is_a_job_with_its_resources_and_is_seen_live(
    start: Any, lab: Any, cluster: Any, data: Path, command: Any, eventually: Any
) -> None:
    run = start()
    eventually(lambda: run.arrived(lambda: run.log.exists() and "gate | at the gate" in run.log.read_text()), 90)
    number = running(cluster)
    assert "NumCPUs=2" in cluster("scontrol", "show", "job", number)
    status = command("status", "--data", data, **cluster.environment)
    assert re.search(rf"Slurm: {number} RUNNING gate", status.stdout), status
    lab.file("open", "")
    code, output = run.ended()
    assert code == 0, output
    assert is_made_once(command, data)
    assert not list((data / "work").glob("slurm-*"))


def test_a_requeued_job_makes_its_result_once(
    start: Any, lab: Any, cluster: Any, data: Path, command: Any, eventually: Any
) -> None:
    run = start()
    eventually(lambda: run.arrived((lab.folder / "arrived").exists), 90)
    cluster("scontrol", "requeue", running(cluster))
    eventually(lambda: (lab.folder / "arrived").read_text().count("once") == 2, 90)
    lab.file("open", "")
    code, output = run.ended()
    assert code == 0, output
    assert is_made_once(command, data)


def test_a_job_whose_node_fails_is_made_once_on_another_node(
    start: Any, lab: Any, cluster: Any, data: Path, command: Any, eventually: Any
) -> None:
    run = start(resources="{partition: both}")
    eventually(lambda: run.arrived((lab.folder / "arrived").exists), 90)
    job, node = cluster("squeue", "-h", "-t", "RUNNING", "-o", "%i %N").split()
    cluster.fail(node, job)
    try:
        eventually(lambda: run.arrived(lambda: (lab.folder / "arrived").read_text().count("once") == 2), 120)
        assert cluster("squeue", "-h", "-t", "RUNNING", "-o", "%N") in {"n1", "n2"} - {node}
        lab.file("open", "")
        code, output = run.ended()
    finally:
        cluster.repair(node)
    assert code == 0, output
    assert is_made_once(command, data)


def test_a_cancelled_job_is_a_step_that_failed_and_says_so(start: Any, lab: Any, cluster: Any, eventually: Any) -> None:
    run = start()
    eventually(lambda: run.arrived((lab.folder / "arrived").exists), 90)
    cluster("scancel", running(cluster))
    code, output = run.ended()
    assert code == 1
    assert "of Slurm ended without a result" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_the_signal_of_prefects_cancel_end_the_job(
    start: Any, lab: Any, cluster: Any, eventually: Any, number: int
) -> None:
    run = start()
    eventually(lambda: run.arrived((lab.folder / "arrived").exists), 90)
    run.process.send_signal(number)
    code, output = run.ended()
    assert code == 130, output
    assert "1 stopped" in output
    eventually(lambda: not cluster("squeue", "-h"), 30)


def test_the_job_of_a_killed_run_ends_by_itself_and_the_next_run_takes_its_result(
    start: Any, lab: Any, cluster: Any, data: Path, command: Any, eventually: Any
) -> None:
    run = start()
    eventually(lambda: run.arrived((lab.folder / "arrived").exists), 90)
    run.process.kill()
    run.process.wait()
    lab.file("open", "")
    eventually(lambda: not cluster("squeue", "-h"), 90)
    code, output = start().ended()
    assert code == 0, output
    assert "1 executed" not in output
    assert is_made_once(command, data)


def test_what_slurm_refuses_or_a_step_raises_is_told(start: Any, cluster: Any) -> None:
    code, output = start(options="{partition: nowhere}").ended()
    assert code in (1, 2), output
    assert "Slurm would reject its job" in output
    assert not cluster("squeue", "-h")
    code, output = start(uses="failing", resources="{}").ended()
    assert code == 1
    assert "ValueError: the lamp was off" in output
    code, output = start(resources="{partition: 3}").ended()
    assert "'partition' is the name of a partition of Slurm, not 3.0" in output
    code, output = start(resources="{cpus: many}").ended()
    assert "'cpus' is a number, not 'many'" in output
    code, output = start(resources="{bananas: 1}").ended()
    assert "Slurm has no resource 'bananas'; there are cpus" in output
