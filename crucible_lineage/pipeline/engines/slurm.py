"""A step as a batch job of Slurm: checked, submitted, waited for; cancelled when its run is stopped.

The job and what came of it are files in the data folder, which the nodes share. A job that is requeued, or done twice,
does no harm: the result's id says whether it is there. A job whose run is killed goes on, and the next run finds what
it made.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crucible_lineage.disk import private_folder
from crucible_lineage.errors import InputError, RunError, StepError, StoppedError
from crucible_lineage.local.usage import in_use, is_in_use, remove_folder
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.job.job_json import job_to_json, made_from_json
from crucible_lineage.pipeline.job.materialize import Materialized
from crucible_lineage.session import Session

__all__ = ["BatchJob", "batch_jobs", "cancel_jobs", "materialize_on_slurm"]

JOB, OUTCOME, ID, LOG = "job.json", "outcome.json", "id", "slurm.log"  # files in the folder of a job
LOOK_S = 1.0  # between looks for the outcome, a file
ASK_S = 15.0  # between questions to Slurm, one for all jobs of this process: at most four a minute
SETTLE_S = 5.0  # chosen: a file system shared by nodes may show a file so much later
TAIL_BYTES = 2000

_lock = threading.Lock()
_under_way: dict[str, set[str]] = {}  # ids of jobs, by run
_stopped: set[str] = set()
_tested: set[tuple[str, ...]] = set()  # options that Slurm would take


@dataclass(frozen=True)
class BatchJob:
    """A job that a run of this data folder waits for, and its state as Slurm calls it."""

    id: str
    step: str
    state: str


def materialize_on_slurm(job: Job, session: Session, options: Mapping[str, object]) -> Materialized:
    """The outputs of a step, made by a job. `options` are those of sbatch, without dashes.

    InputError, before anything is submitted, if Slurm would not take it; StepError if it ended without a result;
    StoppedError if its run was stopped.
    """
    work = private_folder(session.settings.data / "work")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir=work))
    with in_use(folder):
        settings = {"data": str(session.settings.data), "api_url": session.settings.api_url}
        (folder / JOB).write_text(json.dumps({"job": job_to_json(job), "run": dict(job.run), "settings": settings}))
        try:
            number = _submit(job, folder, options)
        except InputError:  # there is nothing in it to be looked at
            remove_folder(folder)
            raise
        try:
            outcome = _outcome(job, folder, number)
        finally:
            with _lock:
                _under_way.get(job.run_id, set()).discard(number)
        remove_folder(folder)
    if "error" in outcome:
        raise _error(job, outcome["error"])
    return made_from_json(outcome, session)


def cancel_jobs(run_id: str) -> None:
    """The jobs of the run are being ended, and no more are submitted from this process."""
    with _lock:
        _stopped.add(run_id)
        numbers = sorted(_under_way.get(run_id, ()))
    if numbers:
        subprocess.run(["scancel", *numbers], check=False, capture_output=True)  # noqa: S603, S607 (ids of ours)


def batch_jobs(data: Path) -> list[BatchJob]:
    """The jobs that runs of this data folder wait for now."""
    found = [path for path in sorted((data / "work").glob(f"slurm-*/{ID}")) if is_in_use(path.parent)]
    jobs = []
    states = _queue_states() if found else {}
    for path in found:
        number = path.read_text()
        step = json.loads((path.parent / JOB).read_text())["job"]["name"]
        jobs.append(BatchJob(number, step, "UNKNOWN" if states is None else states.get(number, "ended")))
    return jobs


class _Queue:
    """What Slurm said of this user's jobs: one `squeue` for all of them, and not more often than needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._states: dict[str, str] | None = {}

    def has(self, number: str, since: float, within_s: float) -> bool:
        """Return whether a job that was submitted at `since` is in the queue, as known for at most so many seconds.

        A controller that does not answer says that it goes on.
        """
        with self._lock:
            if time.monotonic() - self._asked_at > within_s:
                self._states, self._asked_at = _queue_states(), time.monotonic()
            return self._states is None or number in self._states or since > self._asked_at


_queue = _Queue()


def _submit(job: Job, folder: Path, options: Mapping[str, object]) -> str:
    script = folder / "script.sh"
    command = [sys.executable, "-P", "-m", "crucible_lineage.pipeline.engines.slurm_job", str(folder)]
    script.write_text(f"#!/bin/sh\nexec {shlex.join(command)}\n")
    flags = [f"--{name}={value}" for name, value in {**options, **_resources(job)}.items()]
    what = f"step {job.name!r}"
    if shutil.which("sbatch") is None:
        raise InputError(f"{what} needs Slurm, but there is no sbatch here; run it where Slurm is")
    if tuple(flags) not in _tested:
        tried = _sbatch("--test-only", *flags, str(script))
        if tried.returncode != 0:
            said = tried.stderr.strip()
            raise InputError(f"{what}: Slurm would not take its job: {said}\ncorrect the runner's options")
        _tested.add(tuple(flags))
    flags += [f"--job-name={job.name}", f"--output={folder / LOG}", f"--chdir={folder}", "--requeue"]
    with _lock:
        if job.run_id in _stopped:
            raise StoppedError(f"{what} was not begun, since the run was stopped", step=job.name)
        submitted = _sbatch("--parsable", *flags, str(script))
        number = submitted.stdout.strip().partition(";")[0]
        if submitted.returncode != 0 or not number:
            raise RunError(f"{what}: sbatch failed: {submitted.stderr.strip()}")
        _under_way.setdefault(job.run_id, set()).add(number)
    (folder / ID).write_text(number)
    return number


def _resources(job: Job) -> dict[str, object]:
    """Return the step's `resources:` as options: memory in bytes, time in minutes."""
    known = {"cpus": "cpus-per-task", "gpus": "gpus", "time": "time", "memory": "mem", "partition": "partition"}
    if unknown := sorted(job.spec.resources.keys() - known.keys()):
        raise InputError(f"step {job.name!r}: Slurm has no resource {unknown[0]!r}; there are {', '.join(known)}")
    options: dict[str, Any] = {known[name]: int(amount) for name, amount in job.spec.amounts.items()}
    if partition := job.spec.resources.get("partition"):
        options["partition"] = partition
    if "mem" in options:
        options["mem"] = f"{-(-options['mem'] // 1024)}K"
    return options


def _sbatch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 (what the declaration asks for)
        ["sbatch", *arguments],  # noqa: S607 (of the system)
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def _outcome(job: Job, folder: Path, number: str) -> dict[str, Any]:
    """Return the outcome that the job left, once it is there."""
    submitted = time.monotonic()
    gone_at: float | None = None
    while not (folder / OUTCOME).exists():
        is_stopped = job.run_id in _stopped
        if _queue.has(number, submitted, LOOK_S if is_stopped else ASK_S):
            gone_at = None
        elif gone_at is None:
            gone_at = time.monotonic()
        if is_stopped and gone_at is not None:
            raise StoppedError(f"step {job.name!r} was ended, since the run was stopped", step=job.name)
        if gone_at is not None and time.monotonic() - gone_at > SETTLE_S:
            log = folder / LOG
            said = log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip() if log.exists() else ""
            what = (
                f"its job {number} of Slurm ended without a result: cancelled, out of time or memory, or a node failed"
            )
            message = f"step {job.name!r}: {what}; what Slurm says is in {log}" + (f": {said}" if said else "")
            raise StepError(message, step=job.name, log=str(log))
        time.sleep(LOOK_S)
    outcome: dict[str, Any] = json.loads((folder / OUTCOME).read_text())
    return outcome


def _queue_states() -> dict[str, str] | None:
    """Ask Slurm once for the states of all jobs of this user; None if it does not answer."""
    asked = subprocess.run(
        ["squeue", "--noheader", "--me", "--format=%i %T"],  # noqa: S607 (of the system)
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if asked.returncode != 0:
        return None
    lines = (line.partition(" ") for line in asked.stdout.splitlines())
    return {number: state.strip() for number, _, state in lines}


def _error(job: Job, told: Mapping[str, Any]) -> Exception:
    if told["kind"] == "InputError":
        return InputError(told["message"])
    return StepError(told["message"], step=job.name, log=told["log"], trace=told["trace"])


def _forget_after_fork() -> None:
    global _lock, _queue
    _lock, _queue = threading.Lock(), _Queue()
    _under_way.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
