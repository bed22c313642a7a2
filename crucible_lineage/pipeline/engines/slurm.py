"""Steps as Slurm jobs: gathered into arrays, submitted, watched together, cancelled when their run is stopped.

Requeued or duplicate jobs are harmless: the result's id shows whether it exists. Jobs of a killed run continue; the
next run waits for those that are queued or running, and reuses their results.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Self

from crucible_lineage.core.journal import DELIVERED, SENDING
from crucible_lineage.errors import InputError, RunError, StepError, StoppedError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.local.usage import claimed, is_in_use, remove_folder
from crucible_lineage.pipeline.engines.local import Running, with_retries
from crucible_lineage.pipeline.engines.slurm_batch import EMPTY, SCRIPT, Batch, Member
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.job.job_json import error_from_json, job_to_json, made_from_json
from crucible_lineage.pipeline.job.materialize import Materialized
from crucible_lineage.pipeline.job.progress import ProgressReader, reading_progress
from crucible_lineage.pipeline.logs import tail_of
from crucible_lineage.pipeline.spec.pipeline import Runner
from crucible_lineage.session import Session

AT_ONCE = 64  # chosen: tasks of one array that run at once, unless declared
MOST_WAITING = 1000  # steps that wait at once; Slurm's own limit of an array's size is 1001
LOOK_S = 1.0  # between checks for outcomes, which are files
ASK_S = 15.0  # between queries to Slurm, one for all jobs of this process: at most four a minute
GATHER_S = 0.5  # without a new step, after which the gathered ones are submitted
FIRST_GAP_S, LAST_GAP_S = 1.0, 30.0  # between submissions; doubled with each, until nothing is under way
SETTLE_S = 5.0  # chosen: a shared file system may show a file that much later

_stopped: set[str] = set()  # runs


@dataclass(frozen=True)
class BatchJob:
    """A step that a Slurm job is to execute, and the job's state in Slurm's words."""

    id: str
    step: str
    state: str


class SlurmEngine:
    """Steps as Slurm jobs, submitted and awaited by threads of this process, without Prefect."""

    def __init__(self, session: Session, runner: Runner) -> None:
        self.session = session
        self.runner = runner
        self._pool = ThreadPoolExecutor(MOST_WAITING, thread_name_prefix="slurm")
        self._stack = ExitStack()
        self._progress: ProgressReader | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def start(self, job: Job) -> Running:
        """Hand the step to a thread, which gathers it with others into a job."""
        if self._progress is None:
            self._progress = self._stack.enter_context(reading_progress(self.session.settings.data, job.run_id))
        return self._pool.submit(self._make, replace(job, run={**job.run, "engine": "slurm"}))

    def result(self, running: Any) -> Materialized:
        """Return the outcome of the step, after publishing the lines that it printed."""
        made: Future[Materialized] = running
        if self._progress:
            self._progress.look()
        return made.result()

    def stop(self, run_id: str) -> bool:
        """Cancel the jobs of the run."""
        cancel_jobs(run_id)
        return True

    def _make(self, job: Job) -> Materialized:
        return with_retries(job, lambda: materialize_on_slurm(job, self.session, self.runner))


def materialize_on_slurm(job: Job, session: Session, runner: Runner) -> Materialized:
    """Return the outputs of a step, executed by a Slurm job; steps requested at the same time share one.

    Raises InputError, before anything is submitted, if Slurm would reject it; StepError if it ended without a result;
    StoppedError if its run was stopped.
    """
    if shutil.which("sbatch") is None:
        raise InputError(f"step {job.name!r} needs Slurm, but there is no sbatch here; run it where Slurm is installed")
    outcome = _cluster.ask(_Request(job, session, _flags(job, runner), runner.workers or AT_ONCE)).result()
    if "error" in outcome:
        raise error_from_json(outcome["error"], job.name)
    made = made_from_json(outcome, session)
    if made.executed and not made.healed:  # nodes do not write the journal, which is SQLite
        outputs = {output: dataset.mfid for output, dataset in made.outputs.items()}
        session.journal.note_made(job.run_id, job.project, job.name, outputs, datetime.now(UTC).isoformat())
        for state in (SENDING, DELIVERED):
            session.journal.move_waiting(min(outputs.values()), state)
    return made


def cancel_jobs(run_id: str) -> None:
    """Cancel the jobs of the run, and submit no more from this process."""
    _stopped.add(run_id)
    if numbers := _cluster.numbers(run_id):
        _call("scancel", *numbers)


def batch_jobs(data: Path) -> list[BatchJob]:
    """List the steps that Slurm jobs are to execute for runs of this data folder, including killed ones."""
    batches = list(Batch.all(data))
    queue = _ask_queue() if batches else {}
    jobs = []
    for batch in batches:
        queued = _Queued() if queue is None else queue.get(str(batch.folder), _Queued())
        if not queued.tasks and not is_in_use(batch.folder):
            continue  # job and run have ended, or Slurm does not answer
        waiting = next((state for state in queued.tasks.values() if state == "PENDING"), "ended")
        for number in sorted(set(range(len(batch.members))) - batch.outcomes()):
            task = batch.task_of(number)
            state = "UNKNOWN" if queue is None else waiting if task is None else queued.tasks.get(task, "ended")
            jobs.append(BatchJob(queued.name(batch, task), batch.members[number].step, state))
    return jobs


@dataclass
class _Queued:
    """A job in the queue: its number, and the states of its tasks; one without an array has the task 0."""

    number: str = ""
    tasks: dict[int, str] = field(default_factory=dict)

    def name(self, batch: Batch, task: int | None) -> str:
        """Return Slurm's name of a task; that of the whole array without one."""
        return self.number if len(batch.members) == 1 or task is None else f"{self.number}_{task}"


@dataclass(eq=False)
class _Request:
    """A requested step, and its outcome."""

    job: Job
    session: Session
    flags: tuple[str, ...]
    at_once: int
    future: Future[JsonObject] = field(default_factory=Future)

    @property
    def context(self) -> dict[str, str | None]:
        settings = self.session.settings
        return {"data": str(settings.data), "api_url": settings.api_url, "account": self.session.account}

    @property
    def kind(self) -> tuple[object, ...]:
        """The properties that all steps of one job share."""
        return self.job.run_id, self.flags, self.at_once, tuple(self.context.items())


@dataclass(eq=False)
class _UnderWay:
    """A batch that this process waits for: the request for each member, and when missing tasks were first noticed."""

    batch: Batch
    queued: _Queued  # as last seen
    requests: dict[int, _Request]
    is_own: bool
    marked: ExitStack = field(default_factory=ExitStack)
    since: float = field(default_factory=time.monotonic)
    compared_at: float = 0.0
    missing_since: dict[int, float] = field(default_factory=dict)
    answers: list[tuple[_Request, JsonObject | Exception]] = field(default_factory=list)
    has_failed: bool = False

    def is_of(self, run_id: str) -> bool:
        return any(one.job.run_id == run_id for one in self.requests.values())

    def look(self) -> None:
        """Collect the outcomes that have appeared."""
        for number in sorted(self.batch.outcomes() & self.requests.keys()):
            if (outcome := self.batch.outcome(number)) is not None:
                self.answers.append((self.requests.pop(number), outcome))

    def compare(self, queue: Mapping[str, _Queued], asked_at: float) -> None:
        """Record the tasks that have left the queue, and fail those that have not left an outcome since."""
        if asked_at < self.since or (asked_at == self.compared_at and not self.missing_since):
            return
        self.compared_at = asked_at
        self.look()  # outcomes from before the answer count
        tasks, now = queue.get(str(self.batch.folder), _Queued()).tasks, time.monotonic()
        for number in list(self.requests):
            task = self.batch.task_of(number)
            if tasks if task is None else task in tasks:
                self.missing_since.pop(number, None)
                continue
            missing_s = now - self.missing_since.setdefault(number, now)
            if missing_s > SETTLE_S or self.requests[number].job.run_id in _stopped:
                request = self.requests.pop(number)
                self.answers.append((request, self._failure(request, task)))

    def give_up(self, error: OSError) -> None:
        """Fail all requests, since the folder is gone."""
        self.answers += [(request, error) for request in self.requests.values()]
        self.requests.clear()

    def close(self) -> None:
        """Cancel tasks with nothing to do; remove the folder, unless an error names a log in it."""
        is_done = self.is_own or len(self.batch.outcomes()) == len(self.batch.members)
        if is_done and len(self.batch.members) > 1:
            _call("scancel", self.queued.number)
        self.marked.close()
        if is_done and not self.has_failed:
            remove_folder(self.batch.folder)

    def answer(self) -> None:
        """Pass on the collected outcomes; clean up first if they are the last ones."""
        answers, self.answers = self.answers, []
        if not self.requests:
            with suppress(OSError):
                self.close()
        for request, answer in answers:
            if isinstance(answer, Exception):
                request.future.set_exception(answer)
            else:
                request.future.set_result(answer)

    def _failure(self, request: _Request, task: int | None) -> Exception:
        name = request.job.name
        if request.job.run_id in _stopped:
            return StoppedError(f"step {name!r} was ended, since the run was stopped", step=name)
        self.has_failed = True
        log = self.batch.log(task or 0)
        tail = tail_of(log)
        reason = "ended without a result: cancelled, out of time or memory, or a node failed"
        message = f"step {name!r}: its job {self.queued.name(self.batch, task)} of Slurm {reason}"
        message += f"; Slurm's messages are in {log}" + (f": {tail}" if tail else "")
        return StepError(message, step=name, log=str(log))


class _Cluster:
    """All calls of Slurm by this process, in one thread: submissions, and one `squeue` for all jobs."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[_Request] = deque()
        self._under_way: list[_UnderWay] = []
        self._thread: threading.Thread | None = None
        self._gathered_at = self._submitted_at = self._asked_at = float("-inf")
        self._gap_s = FIRST_GAP_S
        self._most = MOST_WAITING  # in one submission
        self._queue: dict[str, _Queued] | None = {}
        self._tested: set[tuple[str, ...]] = set()  # options that Slurm accepts

    def ask(self, request: _Request) -> Future[JsonObject]:
        """Queue a step for submission; the future gets its outcome."""
        with self._changed:
            self._waiting.append(request)
            self._gathered_at = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="slurm", daemon=True)
                self._thread.start()
            self._changed.notify()
        return request.future

    def numbers(self, run_id: str) -> list[str]:
        """Return the numbers of jobs under way of a run."""
        with self._changed:
            return sorted(one.queued.number for one in self._under_way if one.is_of(run_id))

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._under_way:
                    self._gap_s = FIRST_GAP_S
                    self._changed.wait()
            try:
                for group in self._gathered():
                    self._submit(group)
                self._look()
            except Exception as error:  # an unexpected error must not leave anybody waiting
                self._fail(error)
            time.sleep(GATHER_S if self._waiting else LOOK_S)

    def _fail(self, error: Exception) -> None:
        with self._changed:
            waiting, under_way = list(self._waiting), self._under_way
            self._waiting.clear()
            self._under_way = []
        for request in (*waiting, *(request for one in under_way for request in one.requests.values())):
            request.future.set_exception(error)

    def _gathered(self) -> list[list[_Request]]:
        """Return the steps to be submitted now, grouped by job; end those of stopped runs."""
        with self._changed:
            stopped = [one for one in self._waiting if one.job.run_id in _stopped]
            self._waiting = deque(one for one in self._waiting if one not in stopped)
            now, gap_s = time.monotonic(), self._gap_s if self._under_way else 0.0
            is_time = now - self._gathered_at >= GATHER_S and now - self._submitted_at >= gap_s
            found: dict[tuple[object, ...], list[_Request]] = {}
            if is_time or len(self._waiting) >= MOST_WAITING:
                while self._waiting:
                    request = self._waiting.popleft()
                    found.setdefault(request.kind, []).append(request)
        for one in stopped:
            message = f"step {one.job.name!r} was not begun, since the run was stopped"
            one.future.set_exception(StoppedError(message, step=one.job.name))
        most = min(self._most, _most_tasks())
        return [group[start : start + most] for group in found.values() for start in range(0, len(group), most)]

    def _submit(self, group: list[_Request]) -> None:
        try:
            left = self._take_up(group)
            if left:
                self._start(left)
        except BaseException as error:
            for request in group:
                if not request.future.done():
                    request.future.set_exception(error)

    def _take_up(self, group: list[_Request]) -> list[_Request]:
        """Wait for steps that a job of a killed run will execute; return the others."""
        left, context = {one.job.mfid: one for one in group}, group[0].context
        for batch in Batch.all(group[0].session.settings.data):
            shared = {number for number, one in enumerate(batch.members) if one.mfid in left}
            if not shared or batch.context != context or is_in_use(batch.folder):
                continue
            self._ask_slurm(0.0)
            if (queued := (self._queue or {}).get(str(batch.folder))) is None:
                continue
            tasks = queued.tasks
            matches: dict[int, _Request] = {}
            for number in sorted(shared - batch.outcomes()):
                task = batch.task_of(number)
                if tasks if task is None else task in tasks:
                    matches[number] = left[batch.members[number].mfid]
            if matches and self._add(_UnderWay(batch, queued, matches, is_own=False)):
                for one in matches.values():
                    del left[one.job.mfid]
        return list(left.values())

    def _start(self, group: list[_Request]) -> None:
        first = group[0]
        jobs = [{"job": job_to_json(one.job), "run": dict(one.job.run)} for one in group]
        members = [Member(one.job.mfid, one.job.name) for one in group]
        batch = Batch.create(jobs, members, first.context)
        with ExitStack() as unsubmitted:
            unsubmitted.callback(remove_folder, batch.folder)
            script = _script(batch)
            self._test(first.flags, script)
            submitted = _call("sbatch", "--parsable", *first.flags, *_own_flags(batch, first.at_once), str(script))
            number = submitted.stdout.strip().partition(";")[0]
            self._submitted_at, self._gap_s = time.monotonic(), min(2 * self._gap_s, LAST_GAP_S)
            if submitted.returncode != 0 or not number:
                self._refused(group, submitted.stderr.strip())
                return
            unsubmitted.pop_all()
        self._add(_UnderWay(batch, _Queued(number), dict(enumerate(group)), is_own=True))
        if first.job.run_id in _stopped:  # meanwhile
            _call("scancel", number)

    def _test(self, flags: tuple[str, ...], script: Path) -> None:
        if flags in self._tested:
            return
        tested = _call("sbatch", "--test-only", *flags, str(script))
        if tested.returncode != 0:
            reason = tested.stderr.strip()
            raise InputError(f"Slurm would reject its job: {reason}\ncorrect the runner's options, {' '.join(flags)}")
        self._tested.add(flags)

    def _refused(self, group: list[_Request], reason: str) -> None:
        """Submit fewer at once, since sites limit the jobs of an account. Raises RunError if one is too many."""
        if len(group) == 1 and not self._under_way:
            raise RunError(f"sbatch failed: {reason}")
        self._most = max(1, len(group) // 2)
        with self._changed:
            self._waiting.extendleft(reversed(group))

    def _add(self, under_way: _UnderWay) -> bool:
        """Add a batch to wait for. Return False if another process waits for it."""
        if not under_way.marked.enter_context(claimed(under_way.batch.folder)):
            return False
        with self._changed:
            self._under_way.append(under_way)
        return True

    def _look(self) -> None:
        stopped = any(one.is_of(run_id) for one in self._under_way for run_id in list(_stopped))
        if self._under_way:
            self._ask_slurm(LOOK_S if stopped else ASK_S)
        for one in list(self._under_way):
            try:
                one.look()
                if self._queue is not None:
                    one.compare(self._queue, self._asked_at)
            except OSError as error:
                if not one.batch.folder.exists():  # else the file system is briefly unavailable
                    one.give_up(error)
            if not one.requests:
                with self._changed:
                    self._under_way.remove(one)
            one.answer()

    def _ask_slurm(self, within_s: float) -> None:
        """Ask for the states of all jobs, unless they are that recent; the queue is None if Slurm does not answer."""
        if time.monotonic() - self._asked_at > within_s:
            asked_at = time.monotonic()
            self._queue, self._asked_at = _ask_queue(), asked_at


_cluster = _Cluster()


def _forget_after_fork() -> None:
    global _cluster
    _cluster = _Cluster()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def _flags(job: Job, runner: Runner) -> tuple[str, ...]:
    """Return the sbatch options that a step and its runner declare, from memory in bytes and time in minutes."""
    known = {"cpus": "cpus-per-task", "gpus": "gpus", "time": "time", "memory": "mem", "partition": "partition"}
    if unknown := sorted(job.spec.resources.keys() - known.keys()):
        raise InputError(f"step {job.name!r}: Slurm has no resource {unknown[0]!r}; there are {', '.join(known)}")
    own: JsonObject = {known[name]: int(amount) for name, amount in job.spec.amounts.items()}
    if partition := job.spec.resources.get("partition"):
        own["partition"] = partition
    if "mem" in own:
        own["mem"] = f"{-(-own['mem'] // 1024)}K"
    return tuple(f"--{name}={value}" for name, value in {**runner.options, **own}.items())


def _own_flags(batch: Batch, at_once: int) -> list[str]:
    count, name = len(batch.members), batch.members[0].step
    log = batch.log(0) if count == 1 else batch.folder / "task-%a.log"
    flags = [f"--job-name={name if count == 1 else name.partition('[')[0]}", f"--output={log}"]
    flags += [f"--chdir={batch.folder}", "--requeue"]
    return [*flags, *([f"--array=0-{count - 1}%{at_once}"] if count > 1 else [])]


def _script(batch: Batch) -> Path:
    """Write the script of the tasks; if no members are left, it does not start Python."""
    script, empty = batch.folder / SCRIPT, shlex.quote(str(batch.folder / EMPTY))
    command = [sys.executable, "-P", "-m", "crucible_lineage.pipeline.engines.slurm_job", str(batch.folder)]
    script.write_text(
        f"""#!/bin/sh
[ "${{SLURM_RESTART_COUNT:-0}}" = 0 ] && [ -e {empty} ] && exit 0
exec {shlex.join(command)} "${{SLURM_ARRAY_TASK_ID:-0}}"
"""
    )
    return script


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (what is declared)


@cache
def _most_tasks() -> int:
    """Return the largest number of tasks in an array here."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _call("scontrol", "show", "config").stdout, re.MULTILINE)
    return max(1, min(int(found[1]), MOST_WAITING)) if found else MOST_WAITING


def _ask_queue() -> dict[str, _Queued] | None:
    """Ask Slurm for all jobs of this user, by working folder; None if it does not answer."""
    listing = _call("squeue", "--noheader", "--me", "--array", "--format=%i %T %Z")
    if listing.returncode != 0:
        return None
    jobs: dict[str, _Queued] = {}
    for line in listing.stdout.splitlines():
        name, state, folder = line.split(" ", 2)
        number, _, task = name.partition("_")
        jobs.setdefault(folder, _Queued(number)).tasks[int(task or 0)] = state
    return jobs
