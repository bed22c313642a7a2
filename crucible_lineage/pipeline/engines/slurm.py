"""Steps as jobs of Slurm: gathered into arrays, submitted, watched all at once, cancelled when their run is stopped.

A job that is requeued, or done twice, does no harm: the result's id says whether it is there. A job whose run is killed
goes on; the next run takes up what still waits or runs, and finds what was made.
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
from crucible_lineage.local.usage import claimed, is_in_use, remove_folder
from crucible_lineage.pipeline.engines.local import Running, trying_again
from crucible_lineage.pipeline.engines.slurm_batch import EMPTY, SCRIPT, Batch, Member
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.job.job_json import job_to_json, made_from_json
from crucible_lineage.pipeline.job.materialize import Materialized
from crucible_lineage.pipeline.job.progress import ProgressReader, reading_progress
from crucible_lineage.pipeline.spec.pipeline import Runner
from crucible_lineage.session import Session

AT_ONCE = 64  # chosen: tasks of one array that run at once, if the declaration does not say
MOST_WAITING = 1000  # steps that wait at once; Slurm's own limit of an array's size is 1001
LOOK_S = 1.0  # between looks for outcomes, which are files
ASK_S = 15.0  # between questions to Slurm, one for all jobs of this process: at most four a minute
GATHER_S = 0.5  # without another step, after which those that have gathered are submitted
FIRST_GAP_S, LAST_GAP_S = 1.0, 30.0  # between submissions; doubled with each, until nothing is under way
SETTLE_S = 5.0  # chosen: a file system shared by nodes may show a file so much later
TAIL_BYTES = 2000

_stopped: set[str] = set()  # runs


@dataclass(frozen=True)
class BatchJob:
    """A step that a job of Slurm is to make, and the job's state as Slurm calls it."""

    id: str
    step: str
    state: str


class SlurmEngine:
    """Steps as jobs of Slurm, submitted by threads of this process, which wait for them. Without Prefect."""

    def __init__(self, session: Session, runner: Runner) -> None:
        self.session = session
        self.runner = runner
        self._pool = ThreadPoolExecutor(MOST_WAITING, thread_name_prefix="slurm")
        self._stack = ExitStack()
        self._news: ProgressReader | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def start(self, job: Job) -> Running:
        """Hand the step to a thread, which gathers it with others into a job."""
        if self._news is None:
            self._news = self._stack.enter_context(reading_progress(self.session.settings.data, job.run_id))
        return self._pool.submit(self._make, replace(job, run={**job.run, "engine": "slurm"}))

    def result(self, running: Any) -> Materialized:
        """Return the outcome of the step, after what it printed."""
        made: Future[Materialized] = running
        if self._news:
            self._news.look()
        return made.result()

    def stop(self, run_id: str) -> bool:
        """Cancel the jobs of the run."""
        cancel_jobs(run_id)
        return True

    def _make(self, job: Job) -> Materialized:
        return trying_again(job, lambda: materialize_on_slurm(job, self.session, self.runner))


def materialize_on_slurm(job: Job, session: Session, runner: Runner) -> Materialized:
    """Return the outputs of a step, made by a job; steps that are asked for at the same time share one.

    Raises InputError, before anything is submitted, if Slurm would not take it; StepError if it ended without a result;
    StoppedError if its run was stopped.
    """
    what = f"step {job.name!r}"
    if shutil.which("sbatch") is None:
        raise InputError(f"{what} needs Slurm, but there is no sbatch here; run it where Slurm is")
    outcome = _cluster.ask(_Asked(job, session, _flags(job, runner), runner.workers or AT_ONCE)).result()
    if "error" in outcome:
        raise _error(job, outcome["error"])
    made = made_from_json(outcome, session)
    if made.executed and not made.healed:  # a node leaves the journal, which is SQLite, to the run
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
    """List the steps that jobs of Slurm are to make for runs of this data folder, also for one that was killed."""
    batches = list(Batch.all(data))
    queue = _ask_queue() if batches else {}
    found = []
    for batch in batches:
        queued = _Queued() if queue is None else queue.get(str(batch.folder), _Queued())
        if not queued.tasks and not is_in_use(batch.folder):
            continue  # it has ended, and so has its run; or nobody knows
        waiting = next((state for state in queued.tasks.values() if state == "PENDING"), "ended")
        for number in sorted(set(range(len(batch.members))) - batch.outcomes()):
            taken = batch.taken(number)
            state = "UNKNOWN" if queue is None else waiting if taken is None else queued.tasks.get(taken, "ended")
            found.append(BatchJob(queued.name(batch, taken), batch.members[number].step, state))
    return found


@dataclass
class _Queued:
    """A job in the queue: its number, and the states of its tasks; one without an array has the task 0."""

    number: str = ""
    tasks: dict[int, str] = field(default_factory=dict)

    def name(self, batch: Batch, task: int | None) -> str:
        """Return a task as Slurm names it; that of the whole array if none is given."""
        return self.number if len(batch.members) == 1 or task is None else f"{self.number}_{task}"


@dataclass(eq=False)
class _Asked:
    """A step that is asked for, and its outcome."""

    job: Job
    session: Session
    flags: tuple[str, ...]
    at_once: int
    future: Future[dict[str, Any]] = field(default_factory=Future)

    @property
    def mfid(self) -> str:
        return min(planned.mfid for planned in self.job.outputs)

    @property
    def context(self) -> dict[str, str | None]:
        settings = self.session.settings
        return {"data": str(settings.data), "api_url": settings.api_url, "account": self.session.account}

    @property
    def kind(self) -> tuple[object, ...]:
        """Return what all steps of one job share."""
        return self.job.run_id, self.flags, self.at_once, tuple(self.context.items())


@dataclass(eq=False)
class _UnderWay:
    """A batch that this process waits for: who asked for which of its members, and since when their tasks are gone."""

    batch: Batch
    queued: _Queued  # as it was last seen
    asked: dict[int, _Asked]
    is_own: bool
    marked: ExitStack = field(default_factory=ExitStack)
    since: float = field(default_factory=time.monotonic)
    compared_at: float = 0.0
    gone: dict[int, float] = field(default_factory=dict)
    answers: list[tuple[_Asked, dict[str, Any] | Exception]] = field(default_factory=list)
    has_failed: bool = False

    def is_of(self, run_id: str) -> bool:
        return any(one.job.run_id == run_id for one in self.asked.values())

    def look(self) -> None:
        """Take the outcomes that have appeared."""
        for number in sorted(self.batch.outcomes() & self.asked.keys()):
            if (outcome := self.batch.outcome(number)) is not None:
                self.answers.append((self.asked.pop(number), outcome))

    def compare(self, queue: Mapping[str, _Queued], asked_at: float) -> None:
        """Note whose tasks are in the queue no more, and fail those that have left no outcome since."""
        if asked_at < self.since or (asked_at == self.compared_at and not self.gone):
            return
        self.compared_at = asked_at
        self.look()  # what came before the answer counts
        tasks, now = queue.get(str(self.batch.folder), _Queued()).tasks, time.monotonic()
        for number in list(self.asked):
            taken = self.batch.taken(number)
            if tasks if taken is None else taken in tasks:
                self.gone.pop(number, None)
            elif now - self.gone.setdefault(number, now) > SETTLE_S or self.asked[number].job.run_id in _stopped:
                asked = self.asked.pop(number)
                self.answers.append((asked, self._failure(asked, taken)))

    def give_up(self, error: OSError) -> None:
        """Fail whoever waits, since the folder is gone."""
        self.answers += [(asked, error) for asked in self.asked.values()]
        self.asked.clear()

    def close(self) -> None:
        """Cancel tasks that would find nothing to do; remove the folder unless a log in it is named by an error."""
        is_done = self.is_own or len(self.batch.outcomes()) == len(self.batch.members)
        if is_done and len(self.batch.members) > 1:
            _call("scancel", self.queued.number)
        self.marked.close()
        if is_done and not self.has_failed:
            remove_folder(self.batch.folder)

    def answer(self) -> None:
        """Hand on what has come, after the last of it without leaving anything behind."""
        answers, self.answers = self.answers, []
        if not self.asked:
            with suppress(OSError):
                self.close()
        for asked, answer in answers:
            if isinstance(answer, Exception):
                asked.future.set_exception(answer)
            else:
                asked.future.set_result(answer)

    def _failure(self, asked: _Asked, taken: int | None) -> Exception:
        name = asked.job.name
        if asked.job.run_id in _stopped:
            return StoppedError(f"step {name!r} was ended, since the run was stopped", step=name)
        self.has_failed = True
        log = self.batch.log(taken or 0)
        said = log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip() if log.exists() else ""
        what = "ended without a result: cancelled, out of time or memory, or a node failed"
        message = f"step {name!r}: its job {self.queued.name(self.batch, taken)} of Slurm {what}"
        message += f"; what Slurm says is in {log}" + (f": {said}" if said else "")
        return StepError(message, step=name, log=str(log))


class _Cluster:
    """All that this process asks of Slurm, in one thread: submissions, and one `squeue` for all jobs."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[_Asked] = deque()
        self._under_way: list[_UnderWay] = []
        self._thread: threading.Thread | None = None
        self._gathered_at = self._submitted_at = self._asked_at = float("-inf")
        self._gap_s = FIRST_GAP_S
        self._most = MOST_WAITING  # in one submission
        self._queue: dict[str, _Queued] | None = {}
        self._tested: set[tuple[str, ...]] = set()  # options that Slurm would take

    def ask(self, asked: _Asked) -> Future[dict[str, Any]]:
        """Gather a step; its outcome comes by the future."""
        with self._changed:
            self._waiting.append(asked)
            self._gathered_at = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="slurm", daemon=True)
                self._thread.start()
            self._changed.notify()
        return asked.future

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
                for some in self._gathered():
                    self._submit(some)
                self._look()
            except Exception as error:  # a fault of ours must not leave anybody waiting
                self._fail(error)
            time.sleep(GATHER_S if self._waiting else LOOK_S)

    def _fail(self, error: Exception) -> None:
        with self._changed:
            waiting, under_way = list(self._waiting), self._under_way
            self._waiting.clear()
            self._under_way = []
        for asked in (*waiting, *(asked for one in under_way for asked in one.asked.values())):
            asked.future.set_exception(error)

    def _gathered(self) -> list[list[_Asked]]:
        """Return the steps to be submitted now, by what they have in common; those of stopped runs have ended."""
        with self._changed:
            stopped = [one for one in self._waiting if one.job.run_id in _stopped]
            self._waiting = deque(one for one in self._waiting if one not in stopped)
            now, gap_s = time.monotonic(), self._gap_s if self._under_way else 0.0
            is_time = now - self._gathered_at >= GATHER_S and now - self._submitted_at >= gap_s
            found: dict[tuple[object, ...], list[_Asked]] = {}
            if is_time or len(self._waiting) >= MOST_WAITING:
                while self._waiting:
                    asked = self._waiting.popleft()
                    found.setdefault(asked.kind, []).append(asked)
        for one in stopped:
            told = f"step {one.job.name!r} was not begun, since the run was stopped"
            one.future.set_exception(StoppedError(told, step=one.job.name))
        most = min(self._most, _most_tasks())
        return [them[start : start + most] for them in found.values() for start in range(0, len(them), most)]

    def _submit(self, some: list[_Asked]) -> None:
        try:
            left = self._take_up(some)
            if left:
                self._start(left)
        except BaseException as error:
            for asked in some:
                if not asked.future.done():
                    asked.future.set_exception(error)

    def _take_up(self, some: list[_Asked]) -> list[_Asked]:
        """Wait for those that a job of a killed run is about to make; return the others."""
        wanted, context = {one.mfid: one for one in some}, some[0].context
        for batch in Batch.all(some[0].session.settings.data):
            there = {number for number, one in enumerate(batch.members) if one.mfid in wanted}
            if not there or batch.context != context or is_in_use(batch.folder):
                continue
            self._ask_slurm(0.0)
            if (queued := (self._queue or {}).get(str(batch.folder))) is None:
                continue
            tasks = queued.tasks
            asked: dict[int, _Asked] = {}
            for number in sorted(there - batch.outcomes()):
                taken = batch.taken(number)
                if tasks if taken is None else taken in tasks:
                    asked[number] = wanted[batch.members[number].mfid]
            if asked and self._add(_UnderWay(batch, queued, asked, is_own=False)):
                for one in asked.values():
                    del wanted[one.mfid]
        return list(wanted.values())

    def _start(self, some: list[_Asked]) -> None:
        first = some[0]
        jobs = [{"job": job_to_json(one.job), "run": dict(one.job.run)} for one in some]
        members = [Member(one.mfid, one.job.name) for one in some]
        batch = Batch.create(jobs, members, first.context)
        with ExitStack() as unsubmitted:
            unsubmitted.callback(remove_folder, batch.folder)
            script = _script(batch)
            self._test(first.flags, script)
            submitted = _call("sbatch", "--parsable", *first.flags, *_own_flags(batch, first.at_once), str(script))
            number = submitted.stdout.strip().partition(";")[0]
            self._submitted_at, self._gap_s = time.monotonic(), min(2 * self._gap_s, LAST_GAP_S)
            if submitted.returncode != 0 or not number:
                self._refused(some, submitted.stderr.strip())
                return
            unsubmitted.pop_all()
        self._add(_UnderWay(batch, _Queued(number), dict(enumerate(some)), is_own=True))
        if first.job.run_id in _stopped:  # meanwhile
            _call("scancel", number)

    def _test(self, flags: tuple[str, ...], script: Path) -> None:
        if flags in self._tested:
            return
        tried = _call("sbatch", "--test-only", *flags, str(script))
        if tried.returncode != 0:
            said = tried.stderr.strip()
            raise InputError(f"Slurm would not take its job: {said}\ncorrect the runner's options, {' '.join(flags)}")
        self._tested.add(flags)

    def _refused(self, some: list[_Asked], said: str) -> None:
        """Try fewer at once, as many sites limit how many jobs an account may submit. RunError if one is too many."""
        if len(some) == 1 and not self._under_way:
            raise RunError(f"sbatch failed: {said}")
        self._most = max(1, len(some) // 2)
        with self._changed:
            self._waiting.extendleft(reversed(some))

    def _add(self, under_way: _UnderWay) -> bool:
        """Wait for a batch. False if another process does."""
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
                if not one.batch.folder.exists():  # else the file system is away for a moment
                    one.give_up(error)
            if not one.asked:
                with self._changed:
                    self._under_way.remove(one)
            one.answer()

    def _ask_slurm(self, within_s: float) -> None:
        """Ask for the states of all jobs, unless they are known that well. None if Slurm does not answer."""
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
    """Return the options of sbatch that a step and its runner declare: memory in bytes, time in minutes."""
    known = {"cpus": "cpus-per-task", "gpus": "gpus", "time": "time", "memory": "mem", "partition": "partition"}
    if unknown := sorted(job.spec.resources.keys() - known.keys()):
        raise InputError(f"step {job.name!r}: Slurm has no resource {unknown[0]!r}; there are {', '.join(known)}")
    own: dict[str, Any] = {known[name]: int(amount) for name, amount in job.spec.amounts.items()}
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
    """Write what each task runs; where nothing is left to be taken, no Python is started."""
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
    """Return how many tasks an array may have here."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _call("scontrol", "show", "config").stdout, re.MULTILINE)
    return max(1, min(int(found[1]), MOST_WAITING)) if found else MOST_WAITING


def _ask_queue() -> dict[str, _Queued] | None:
    """Ask Slurm once for all jobs of this user, by the folders that they work in; None if it does not answer."""
    asked = _call("squeue", "--noheader", "--me", "--array", "--format=%i %T %Z")
    if asked.returncode != 0:
        return None
    found: dict[str, _Queued] = {}
    for line in asked.stdout.splitlines():
        name, state, folder = line.split(" ", 2)
        number, _, task = name.partition("_")
        found.setdefault(folder, _Queued(number)).tasks[int(task or 0)] = state
    return found


def _error(job: Job, told: Mapping[str, Any]) -> Exception:
    if told["kind"] == "InputError":
        return InputError(told["message"])
    return StepError(told["message"], step=job.name, log=told["log"], trace=told["trace"])
