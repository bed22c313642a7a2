"""Calls of steps in processes: of a command in one of its own, of functions in workers, one call at a time each.

Dead and unclean workers are replaced. So a function that ends its process (`os._exit`, a signal, a fault in C) ends
only its step; its output is separate; it can be ended at any time; and functions run in parallel. A worker starts in a
quarter of a second and is reused for calls with the same environment, as long as no source file of its functions has
changed.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from crucible_lineage.errors import StepError, StoppedError
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.machine.checksums import stamp
from crucible_lineage.machine.process import around_forks
from crucible_lineage.pipeline.declare.load import from_environment
from crucible_lineage.pipeline.logs import STEP_LOG, StepLog
from crucible_lineage.pipeline.plan.command import arguments_of
from crucible_lineage.pipeline.plan.inspect import search_path
from crucible_lineage.pipeline.plan.plan import StepPlan
from crucible_lineage.pipeline.processes import child
from crucible_lineage.pipeline.processes.child import (
    FACTS_FILE,
    CallOutcome,
    ReturnedError,
    command_line,
    written_metadata,
)
from crucible_lineage.pipeline.processes.supervised import Supervised, ending_error

REUSED_S = 60.0  # chosen: a worker that was idle for longer is about to end (child.IDLE_S)
# Variables that programs need to run at all, without our keys and other secrets.
PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH"),
    *("DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PYTHONPATH"),
)


def call_command(job: StepPlan, call: JsonMapping, attempt: Path, log: StepLog) -> CallOutcome:
    """Run the command; return its metadata. Its output goes to the log.

    Raises StepError if it failed or timed out.
    """
    spec, out, name, folder = job.spec, attempt / "out", job.name, job.spec.folder
    command = command_line(arguments_of(spec), {**call, "params": job.inspection.params}, folder)
    declared = from_environment(spec.env, job.variables, f"step {name!r}")
    passed = {key: value for key, value in os.environ.items() if key in PASSED or key.startswith("LC_")}
    try:
        process = Supervised(command, log.write, name, run_id=job.run_id, cwd=attempt, env={**passed, **declared})
    except OSError as error:
        raise StepError(f"step {name!r}: {command[0]} cannot be started: {error}", step=name) from error
    process.finish()
    in_time = process.wait(spec.timeout)
    if not in_time:
        process.end()
        process.wait()
    log.close()
    if process.stopped or not in_time or process.code != 0:
        raise ending_error(process, log.path, spec.timeout, in_time=in_time)
    own = ("inputs", "out", STEP_LOG, FACTS_FILE)
    stray = min((path.name for path in attempt.iterdir() if path.name not in own), default=None)
    if stray and not any(out.iterdir()):
        message = f"step {name!r}: the command wrote {stray} beside {{out}} instead of into it; it is in {attempt}"
        raise StepError(message, step=name, log=str(log.path))
    try:
        metadata = written_metadata(out)
    except ReturnedError as error:
        raise StepError(f"step {name!r}: {error}", step=name) from error
    return CallOutcome(metadata, left=process.left, code=folder)


def call_function(job: StepPlan, call: JsonMapping, attempt: Path, log: StepLog) -> CallOutcome:
    """Call the function; return its value as JSON, and where it wrote.

    Raises StepError if it failed, died or was too slow.
    """
    worker, answer, folder = _take(job), attempt / "answer.json", job.spec.folder
    request = {**call, "function": job.spec.uses, "folder": folder, "path": search_path(folder), "answer": answer}
    try:
        ended = worker.call(json.dumps(request, default=str).encode() + b"\n", log, job.spec.timeout)
    except BaseException:
        worker.end()
        raise
    log.close()
    if not answer.exists():
        raise ending_error(worker, log.path, job.spec.timeout, in_time=ended)
    reply = json.loads(answer.read_bytes())
    answer.unlink()
    if reply["retire"] or not ended:
        worker.finish()
        if not worker.wait(5):
            worker.end()
            worker.wait()
    else:
        worker.release(job.inspection.files)
    if "error" in reply:
        message, trace = f"step {job.name!r} failed: {reply['error']}", log.redactor.text(reply["trace"])
        message += f"; the traceback is in {log.path}" if trace else ""
        raise StepError(message, step=job.name, log=str(log.path), trace=trace)
    code = Path(reply["code"]) if reply["code"] else None
    outside, read = tuple(map(Path, reply["outside"])), tuple(map(Path, reply["read"]))
    return CallOutcome(reply["result"], outside, worker.left, code, tuple(reply["pictures"]), read, reply["shown"])


class _Worker(Supervised):
    """A process that waits for calls of one environment and one folder: modules of others may have the same names."""

    def __init__(self, environment: object, job: StepPlan) -> None:
        """Start its process for a job. Raises OSError, or StoppedError if the run was stopped."""
        self.environment = environment
        self.folder: Path | None = job.spec.folder
        self.stamps: dict[str, tuple[int, ...]] = {}
        self.idle_since = 0.0
        self._log: StepLog | None = None
        self._mark = b"\0" + secrets.token_hex(16).encode() + b"\0"
        self._unsure = b""
        self._done = threading.Event()
        mark = self._mark[1:-1].decode()
        code = f"import sys; sys.path[:] = {sys.path!r}; from {child.__name__} import serve; serve({mark!r})"
        command = [sys.executable, "-c", code]
        super().__init__(command, self._receive, job.name, run_id=job.run_id, ended=self._done.set)

    def call(self, request: bytes, log: StepLog, timeout_s: float | None) -> bool:
        """Send a call and wait. Return False if it took too long, and was ended. If it died, there is no answer."""
        self._done.clear()
        self._log = log
        with suppress(OSError):  # it has died, which `wait` reports
            self.send(request)
        in_time = self._done.wait(timeout_s)
        if not in_time:
            self.end()
        if not in_time or self.ended:
            self.wait()
        self._log = None
        return in_time

    def release(self, files: Iterable[str]) -> None:
        """Free it for another call."""
        with suppress(OSError):
            self.stamps |= {path: stamp(Path(path)) for path in files if path not in self.stamps}
        self.run_id = ""
        self.idle_since = time.monotonic()
        with _lock:
            _idle.append(self)

    def is_current(self) -> bool:
        """Return whether it is alive, and the files that it read have not changed."""
        if self.ended or time.monotonic() - self.idle_since > REUSED_S:
            return False
        try:
            return all(stamp(Path(path)) == was for path, was in self.stamps.items())
        except OSError:
            return False

    def _receive(self, data: bytes) -> None:
        """Log output up to the mark that ends a call, of which the last bytes may be the beginning."""
        before, mark, rest = (self._unsure + data).partition(self._mark)
        start = -1 if mark else before.rfind(b"\0", -len(self._mark) + 1)
        sure, self._unsure = (before, rest) if start < 0 else (before[:start], before[start:])
        if self._log:
            self._log.write(sure)
        if mark:
            self._done.set()


_lock = threading.Lock()
_idle: list[_Worker] = []


def _take(job: StepPlan) -> _Worker:
    """Return the last used of the suitable workers, or a new one. Raises StoppedError if the run was stopped."""
    environment, folder = (str(Path.cwd()), tuple(sorted(os.environ.items()))), job.spec.folder
    while True:
        with _lock:
            _idle[:] = [old for old in _idle if not old.ended]
            fitting = (
                old for old in reversed(_idle) if old.environment == environment and old.folder in (None, folder)
            )
            if (worker := next(fitting, None)) is not None:
                _idle.remove(worker)
        if worker is None:
            return _Worker(environment, job)
        worker.folder = folder
        try:
            if worker.is_current() and worker.take_over(job.name, job.run_id):
                return worker
        except StoppedError:
            worker.finish()
            raise
        worker.finish()


def _forget_after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _idle.clear()


around_forks(_forget_after_fork)
