"""Processes that call functions of steps, one call after the other; one that died or is not clean is replaced.

A function that ends its process (`os._exit`, a signal, a fault in C) so ends its step and nothing else; what it prints
is its own; it can be ended at any time; and functions run side by side. A worker starts in a quarter of a second and
is used again for whatever has the same environment, as long as no file that its functions were read from has changed.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crucible_lineage.checksums import stamp
from crucible_lineage.errors import StepError, StoppedError
from crucible_lineage.facts import Facts
from crucible_lineage.pipeline.functions.inspect import search_path
from crucible_lineage.pipeline.logs import StepLog
from crucible_lineage.pipeline.processes.side_files import CallOutcome
from crucible_lineage.pipeline.processes.supervised import Supervised

IDLE_S = 60.0  # chosen: a worker that nobody needs gives its memory back
START_S = 0.25  # measured: the CPU time that starting a worker takes
TAIL_BYTES = 2000
_AT_ONCE_BYTES = 1 << 15  # fits into any pipe

_Stamps = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class FunctionCall:
    """`module:function`, found from a folder, with paths (in lists and mappings, too) and JSON values as parameters.

    `files` are those that the function was read from, `facts` what it is given about its parents if it asks for that.
    """

    name: str
    uses: str
    declared_in: Path
    paths: Mapping[str, Any]
    params: Mapping[str, Any]
    files: tuple[str, ...] = ()
    run_id: str = ""
    facts: Facts | None = None


def call_function(call: FunctionCall, attempt: Path, log: StepLog, timeout_s: float | None) -> CallOutcome:
    """Call the function.

    Returns its value as plain JSON, and where it wrote. StepError if it failed, died, or took too long.
    """
    worker = _take(call)
    try:
        return _answer_of(worker, call, attempt / "answer.json", log, timeout_s)
    finally:
        worker.leave()


def _answer_of(worker: _Worker, call: FunctionCall, answer: Path, log: StepLog, timeout_s: float | None) -> CallOutcome:
    request = {
        **{"uses": call.uses, "folder": str(call.declared_in), "params": dict(call.params)},
        **{"path": search_path(call.declared_in)},
        **{"facts": None if call.facts is None else call.facts.to_json()},
        **{"paths": {name: _packed(value) for name, value in call.paths.items()}, "answer": str(answer)},
    }
    try:
        ended = worker.call(json.dumps(request).encode() + b"\n", log, timeout_s)
    except BaseException:
        worker.process.end()
        raise
    log.close()
    if not worker.answer and not answer.exists():
        raise _death(worker, call.name, log, timeout_s, ended=ended)
    said = json.loads(worker.answer or answer.read_bytes())
    if not worker.answer:
        answer.unlink()
    if said["retire"] or not ended:
        worker.retire()
    else:
        worker.release(call.files)
    if "error" in said:
        message, trace = f"step {call.name!r} failed: {said['error']}", log.redactor.text(said["trace"])
        message += f"; the traceback is in {log.path}" if trace else ""
        raise StepError(message, step=call.name, log=str(log.path), trace=trace)
    code = Path(said["code"]) if said["code"] else None
    outside, pictures = tuple(map(Path, said["outside"])), tuple(said["pictures"])
    read, opened = (tuple(map(Path, said[name])) for name in ("read", "opened"))
    return CallOutcome(said["result"], outside, worker.process.left, code, pictures, read, opened)


def start_ahead(workers: int) -> None:
    """Start so many workers ahead of the calls, at most one a core; none if there are any."""
    environment = _environment()
    with _lock:
        wanted = 0 if _idle else min(workers, os.cpu_count() or 1)
    with suppress(OSError):  # who calls a function then is told
        for _ in range(wanted):
            worker = _Worker(environment)
            worker.start("a step to come", "")
            worker.release(())
    if wanted:
        _start_janitor()


def _death(worker: _Worker, name: str, log: StepLog, timeout_s: float | None, *, ended: bool) -> StepError:
    process = worker.process
    if process.stopped:
        return StoppedError(f"step {name!r} was ended, since the run was stopped", step=name, log=str(log.path))
    if not ended:
        message = f"step {name!r} took longer than its timeout of {timeout_s:g} s and was stopped"
        return StepError(message, step=name, log=str(log.path))
    code = process.code or 0
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    hint = "; the system may have run out of memory" if code == -9 else ""
    said = log.text(TAIL_BYTES)
    message = f"step {name!r} died ({how}{hint}); what it printed is in {log.path}" + (f": {said}" if said else "")
    return StepError(message, step=name, log=str(log.path))


class _Worker:
    """A process that waits for calls. `environment` is what it was started in, `seen` the files that it read.

    `folder` is where the declarations of its functions lie: modules of others may have the same names.
    """

    process: Supervised

    def __init__(self, environment: object) -> None:
        self.environment = environment
        self.seen: _Stamps = {}
        self.folder: Path | None = None
        self.idle_since = 0.0
        self.busy_since = 0.0
        self.answer = b""  # what came of the last call, if it is short
        self._log: StepLog | None = None
        self._mark = b"\0" + secrets.token_hex(16).encode() + b"\0"
        self._unsure = b""
        self._done = threading.Event()

    @property
    def is_started(self) -> bool:
        """True once its process was started."""
        return hasattr(self, "process")

    def start(self, name: str, run_id: str) -> None:
        """Start its process for a step. OSError if that fails; StoppedError if the run was stopped."""
        main = "from crucible_lineage.pipeline.processes.worker_main import main"
        code = f"import sys; sys.path[:] = {sys.path!r}; {main}; main({self._mark[1:-1].decode()!r})"
        command = [sys.executable, "-c", code]
        self.process = Supervised(command, self._hear, name, run_id=run_id, ended=self._done.set)

    def call(self, request: bytes, log: StepLog, timeout_s: float | None) -> bool:
        """False if it took too long, and was ended. If it has died, there is no answer."""
        self._done.clear()
        self.answer = b""
        self._log = log
        if len(request) <= _AT_ONCE_BYTES:
            self._send(request)
        else:
            threading.Thread(target=self._send, args=(request,), daemon=True).start()
        in_time = self._done.wait(timeout_s)
        if not in_time:
            self.process.end()
        if not in_time or self.process.ended:
            self.process.wait()
        self._log = None
        return in_time

    def release(self, files: Iterable[str]) -> None:
        """Free it for another call."""
        with suppress(OSError):
            self.seen |= {path: stamp(Path(path)) for path in files if path not in self.seen}
        self.process.run_id = ""
        self.idle_since = time.monotonic()
        with _lock:
            _idle.append(self)
        self.leave()

    def leave(self) -> None:
        """Count it as busy no more."""
        with _changed:
            _busy.discard(self)
            _changed.notify()

    def serves(self, environment: object, folder: Path) -> bool:
        """Return whether it is for calls from this environment and folder."""
        return self.environment == environment and self.folder in (None, folder)

    def retire(self) -> None:
        """End it, with all that it started."""
        self.process.finish()
        if not self.process.wait(5):
            self.process.end()
            self.process.wait()

    def is_current(self) -> bool:
        """True if it lives, and the code that it has read is what the files still hold."""
        if self.process.ended:
            return False
        try:
            return all(stamp(Path(path)) == was for path, was in self.seen.items())
        except OSError:
            return False

    def _send(self, request: bytes) -> None:
        with suppress(OSError):  # it has died, which is told otherwise
            self.process.send(request)

    def _hear(self, data: bytes) -> None:
        data = self._unsure + data
        before, mark, after = data.partition(self._mark)
        start = len(before) if mark else before.rfind(b"\0", -len(self._mark) + 1)
        start = len(before) if start < 0 else start
        answer, end, rest = after.partition(b"\0")
        self._unsure = rest if end else data[start:]
        if self._log:
            self._log.write(before[:start])
        if end:
            self.answer = answer
            self._done.set()


_lock = threading.Lock()
_changed = threading.Condition(_lock)  # notified when a worker is busy no more
_idle: list[_Worker] = []
_busy: set[_Worker] = set()
_waited_s = 0.0  # for busy workers, since the last one was started
_janitor: threading.Thread | None = None


def _take(call: FunctionCall) -> _Worker:
    """Take a worker that fits, or start one. StoppedError if the run was stopped."""
    environment = _environment()
    while True:
        worker = _reserved(environment, call.declared_in)
        try:
            if not worker.is_started:
                worker.start(call.name, call.run_id)
                _start_janitor()
                return worker
            if worker.is_current() and worker.process.take_over(call.name, call.run_id):
                return worker
        except BaseException:
            worker.leave()
            if worker.is_started:
                worker.process.finish()
            raise
        worker.leave()
        worker.process.finish()


def _reserved(environment: object, folder: Path) -> _Worker:
    """Take the worker that was used last out of the idle ones, or one that is still to be started.

    Waits for a busy one while that is cheaper: until calls have waited as long as a start takes, and as long as a call
    has just begun, which may be short.
    """
    global _waited_s
    began = time.monotonic()
    with _changed:
        while True:
            now = time.monotonic()
            worker = next((one for one in reversed(_idle) if one.serves(environment, folder)), None)
            if worker is not None:
                _idle.remove(worker)
                _waited_s += now - began
                break
            left = START_S - _waited_s - (now - began)
            ends_soon = [one for one in _busy if one.serves(environment, folder) and now - one.busy_since < START_S]
            if left <= 0 or not ends_soon:
                worker = _Worker(environment)
                _waited_s = 0.0
                break
            _changed.wait(left)
        worker.folder, worker.busy_since = folder, now
        _busy.add(worker)
        return worker


def _environment() -> object:
    return (str(Path.cwd()), tuple(sorted(os.environ.items())))


def _start_janitor() -> None:
    global _janitor
    with _lock:
        if _janitor is None or not _janitor.is_alive():
            _janitor = threading.Thread(target=_end_idle, name="idle workers", daemon=True)
            _janitor.start()


def _end_idle() -> None:
    while True:
        time.sleep(IDLE_S / 2)
        with _lock:
            old = [worker for worker in _idle if time.monotonic() - worker.idle_since > IDLE_S]
            for worker in old:
                _idle.remove(worker)
        for worker in old:
            worker.process.finish()


def _forget_after_fork() -> None:
    global _lock, _changed, _janitor
    _lock, _janitor = threading.Lock(), None
    _changed = threading.Condition(_lock)
    _idle.clear()
    _busy.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def _packed(value: object) -> object:
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, list) and value and isinstance(value[0], Path):
        return {"paths": [str(path) for path in value]}
    if isinstance(value, dict) and value and all(isinstance(path, Path) for path in value.values()):
        return {"named": {name: str(path) for name, path in value.items()}}
    raise TypeError(f"no path, nor a collection of them: {value!r}")
