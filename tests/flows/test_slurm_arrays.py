"""Many steps on a real Slurm: gathered into few jobs, polled rarely, resumed after their run was killed."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nights import NIGHTLY

INSTANCES = 1000 if NIGHTLY else 24
STEPS = """
import os
from pathlib import Path

def scaled(counts: Path, *, out: Path) -> None:
    with (Path(__file__).parent / "tasks").open("a") as stream:
        stream.write(os.environ.get("SLURM_ARRAY_TASK_ID", "none") + " ")
    (out / "scaled.txt").write_text(str(3 * float(counts.read_text())))
"""
WRAPPER = """#!/bin/sh
echo "$(date +%s) $0 $*" >> {calls}
{refusal}
exec {program} "$@"
"""
REFUSAL = """case "$*" in *--array=0-[4-9]*|*--array=0-[1-9][0-9]*)
  echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1;;
esac"""


class Fleet:
    """A pipeline with many instances of a step, run as a process that calls Slurm through counted commands."""

    def __init__(self, lab: Any, cluster: Any, start_run: Any) -> None:
        self.lab, self.start_run = lab, start_run
        self.calls = lab.folder / "calls"
        lab.file(f"{lab.module}_many.py", STEPS)
        self.environment = {**cluster.environment, "PREFECT_API_URL": ""}
        self.wrap()

    def wrap(self, refusal: str = "") -> None:
        programs = self.lab.folder / "programs"
        programs.mkdir(exist_ok=True)
        for name in ("sbatch", "squeue", "scancel", "sacct"):
            text = WRAPPER.format(calls=self.calls, refusal=refusal if name == "sbatch" else "", program=which(name))
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.environment["PATH"] = f"{programs}:{os.environ['PATH']}"

    def start(self, instances: int, runner: str = "slurm", *options: str, is_patient: bool = False) -> Any:
        for number in range(instances):
            self.lab.file(f"measured-{number:04}.txt", str(number))
        path = self.lab.declare(
            f"""
            pipeline: many
            project: lab
            runner: {runner}
            defaults: {{output: {{ingest: false}}}}
            inputs:
              counts: {{file: "measured-*.txt", each: true, ingest: false, timestamp: "2024-05-01T12:00:00Z"}}
            steps:
              scaled: {{uses: "{self.lab.module}_many:scaled", inputs: {{counts: counts}}}}
            """
        )
        return self.start_run(self.environment, path, *options, is_patient=is_patient)

    def called(self, name: str) -> list[int]:
        """Return when a program of Slurm was called; for sbatch only submissions."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [
            int(line.split()[0]) for line in lines if f"programs/{name} " in f"{line} " and "--test-only" not in line
        ]


def which(name: str) -> str:
    found = shutil.which(name)
    assert found
    return found


@pytest.fixture
def fleet(lab: Any, cluster: Any, start_run: Any) -> Iterator[Fleet]:
    """Provide a fleet and leave no job of it behind."""
    yield Fleet(lab, cluster, start_run)
    cluster("scontrol", "update", "PartitionName=debug", "State=UP")
    cluster.clear()


@pytest.mark.timeout(3600 if INSTANCES > 100 else 240)
def test_many_instances_are_few_submissions_few_questions_and_share_tasks(
    fleet: Fleet, lab: Any, data: Path, command: Any
) -> None:
    run = fleet.start(INSTANCES, is_patient=True)
    code, output = run.ended()
    assert code == 0, output
    assert f"{INSTANCES} executed" in output
    assert len(fleet.called("sbatch")) <= max(2, INSTANCES // 50)
    asked = fleet.called("squeue")
    assert all(later - first >= 59 for first, later in zip(asked, asked[4:], strict=False)), asked
    assert fleet.called("sacct") == []
    tasks = (lab.folder / "tasks").read_text().split()
    assert len(tasks) == INSTANCES
    assert len(set(tasks)) <= INSTANCES / 2, "short steps share tasks"
    assert not list((data / "work").glob("slurm-*")), "no folder is left"
    assert f"{INSTANCES} executed" in command("status", "--data", data).stdout
    assert command("verify", "--project", "lab", "--data", data).returncode == 0
    again = fleet.start(INSTANCES)
    assert "everything is up to date" in again.ended()[1]


def test_what_was_pending_when_its_run_was_killed_is_taken_up_and_not_submitted_again(
    fleet: Fleet, cluster: Any, data: Path, command: Any, eventually: Any
) -> None:
    cluster("scontrol", "update", "PartitionName=debug", "State=DOWN")
    run = fleet.start(3)
    eventually(lambda: run.process.poll() is not None or cluster("squeue", "-h"), 60)
    run.process.send_signal(signal.SIGKILL)
    run.process.wait(60)
    status = command("status", "--data", data, **cluster.environment).stdout
    assert status.count(" PENDING scaled[") == 3, status
    again = fleet.start(3)
    eventually(lambda: again.process.poll() is not None or len(fleet.called("squeue")) >= 2, 60)
    cluster("scontrol", "update", "PartitionName=debug", "State=UP")
    code, output = again.ended()
    assert code == 0, output
    assert "3 executed" in output
    assert len(fleet.called("sbatch")) == 1
    assert not list((data / "work").glob("slurm-*"))
    assert command("verify", "--project", "lab", "--data", data).returncode == 0


def test_a_cancelled_array_is_steps_that_failed(fleet: Fleet, cluster: Any, eventually: Any) -> None:
    cluster("scontrol", "update", "PartitionName=debug", "State=DOWN")
    run = fleet.start(3)
    eventually(lambda: run.process.poll() is not None or len(fleet.called("squeue")) >= 1, 60)
    cluster.clear()
    code, output = run.ended()
    assert code == 1, output
    assert output.count("of Slurm ended without a result: cancelled") == 3


def test_ctrl_c_cancels_the_array(fleet: Fleet, cluster: Any, eventually: Any) -> None:
    cluster("scontrol", "update", "PartitionName=debug", "State=DOWN")
    run = fleet.start(3)
    eventually(lambda: run.process.poll() is not None or cluster("squeue", "-h"), 60)
    run.process.send_signal(signal.SIGINT)
    code, output = run.ended()
    assert code == 130, output
    assert not cluster("squeue", "-h")


def test_a_site_that_takes_few_jobs_at_once_gets_fewer(fleet: Fleet) -> None:
    fleet.wrap(REFUSAL)
    run = fleet.start(8)
    code, output = run.ended()
    assert code == 0, output
    assert "8 executed" in output
    assert len(fleet.called("sbatch")) == 3, "one of 8 was refused, two of 4 were taken"


@pytest.mark.parametrize(
    ("runner", "options", "message"),
    [
        ("slurm", ["--engine", "local"], "runner slurm is not used: steps run in threads of this process\n"),
        ("dask", [], "runner dask is not used: steps run in threads of this process; --engine prefect uses it"),
    ],
)
def test_a_runner_that_is_not_used_is_named(fleet: Fleet, runner: str, options: list[str], message: str) -> None:
    run = fleet.start(1, runner, *options)
    code, output = run.ended()
    assert code == 0, output
    assert message in output
    assert fleet.called("sbatch") == []
