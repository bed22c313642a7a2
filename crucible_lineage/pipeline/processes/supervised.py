"""A step's process under a supervisor: it ends with the run, at its timeout, or when the run is stopped."""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from crucible_lineage.errors import StepError, StoppedError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.machine.process import around_forks
from crucible_lineage.pipeline.logs import tail_of
from crucible_lineage.pipeline.processes import supervisor

GRACE_S = 2.0  # chosen: between terminating and killing a process; users expect seconds
_BLOCK_BYTES = 1 << 16
_ATTEMPTS = 3  # chosen: whatever ended one supervisor may end the second one too
_OUTPUT_WAIT_S = 3.0  # for output still in the pipe, which an escaped process may hold open

_lock = threading.Lock()
_under_way: set[Supervised] = set()
_stopped: set[str] = set()


_channel: socket.socket | None = None
_server: subprocess.Popen[bytes] | None = None


def stop_run(run_id: str) -> None:
    """End the processes of a run and let it start no others here."""
    with _lock:
        _stopped.add(run_id)
        ending = [process for process in _under_way if process.run_id == run_id]
    for process in ending:
        process.end(stopped=True)


def ending_error(process: Supervised, log: Path, timeout_s: float | None, *, in_time: bool) -> StepError:
    """Return the error of a step that was stopped with its run, or at its timeout, or whose process ended badly."""
    name, code = process.name, process.code or 0
    if process.stopped:
        return StoppedError(f"step {name!r} was ended, since the run was stopped", step=name, log=str(log))
    if not in_time:
        message = f"step {name!r} took longer than its timeout of {timeout_s:g} s and was stopped"
    else:
        end = f"ended with exit code {code}" if code >= 0 else f"was ended by signal {-code}"
        hint = "; the system may have run out of memory" if code == -9 else ""
        printed = f"its output is in {log}: {tail}" if (tail := tail_of(log)) else "it printed nothing"
        message = f"step {name!r}: its process {end}{hint}; {printed}"
    return StepError(message, step=name, log=str(log))


class Supervised:
    """A running process. `output` receives what it prints, in order; `send` writes to its standard input.

    `env` is its complete environment (by default, that of this process). `ended` is called, in a thread, when it and
    all its descendants have ended. Raises OSError if it cannot be started, StoppedError if the run was stopped.
    """

    def __init__(
        self,
        command: list[str],
        output: Callable[[bytes], None],
        name: str,
        *,
        run_id: str = "",
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.run_id = run_id
        self.code: int | None = None
        self.left = 0  # its descendants that were ended after it
        self.stopped = False
        self._output = output
        self._on_ended = ended
        self._ended = threading.Event()
        self._stdin: IO[bytes]
        self._supervisor: socket.socket
        self._reports: IO[bytes]
        with _lock:
            _refuse_if_stopped(name, run_id)
        reading, writing = os.pipe()
        try:
            self._start(command, writing, cwd, dict(os.environ if env is None else env))
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        with _lock:
            _under_way.add(self)
            has_to_end = run_id in _stopped  # while it was starting
        self._reader = threading.Thread(target=self._read, args=(reading,), name=f"output of {name}", daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, name=f"end of {name}", daemon=True).start()
        if has_to_end:
            self.end(stopped=True)

    def send(self, data: bytes) -> None:
        """Write to its input. Raises OSError if it no longer reads."""
        self._stdin.write(data)

    def finish(self) -> None:
        """Close its input."""
        with suppress(OSError):
            self._stdin.close()

    def end(self, *, stopped: bool = False) -> None:
        """Terminate it and all its descendants; kill those left after `GRACE_S`. Does not wait."""
        self.stopped = self.stopped or stopped
        with _lock, suppress(OSError):
            self._supervisor.send(b"E")

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended, and `code` is its exit code. Return False at the timeout."""
        return self._ended.wait(timeout_s)

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._ended.is_set()

    def take_over(self, name: str, run_id: str) -> bool:
        """Assign it to another step. Return False if it has ended. Raises StoppedError if that run was stopped."""
        with _lock:
            _refuse_if_stopped(name, run_id)
            self.name, self.run_id = name, run_id
            return not self.ended

    def _start(self, command: list[str], output: int, cwd: Path | None, env: dict[str, str]) -> None:
        request = {"command": command, "cwd": None if cwd is None else str(cwd), "env": env, "grace_s": GRACE_S}
        for _ in range(_ATTEMPTS):
            self._request(request, output)
            entry = self._reported()
            if "pid" in entry:
                self._pid: int = entry["pid"]
                return
            self._disconnect()
            if "errno" in entry:  # else the supervisor died before it had started anything
                raise OSError(entry["errno"], os.strerror(entry["errno"]), entry["file"])
        raise OSError(f"its supervisor was ended {_ATTEMPTS} times before it had started the process")

    def _request(self, request: Mapping[str, object], output: int) -> None:
        """Request a supervisor, and connect to it and to the input of the process."""
        its_stdin, stdin = os.pipe()
        self._stdin = os.fdopen(stdin, "wb", buffering=0)
        self._supervisor, theirs = socket.socketpair()
        self._reports = self._supervisor.makefile("rb")
        try:
            send_request(request, (its_stdin, output, theirs.fileno()))
        except BaseException:
            self._disconnect()
            raise
        finally:
            os.close(its_stdin)
            theirs.close()

    def _reported(self) -> JsonObject:
        """Return the next report of the supervisor; empty if it has ended."""
        entry: JsonObject = {}
        with suppress(ConnectionResetError):  # it ended before it had read a request to end
            entry = json.loads(self._reports.readline() or b"{}")
        return entry

    def _disconnect(self) -> None:
        self.finish()
        self._reports.close()
        self._supervisor.close()

    def _read(self, reading: int) -> None:
        with os.fdopen(reading, "rb", buffering=0) as stream:
            while block := stream.read(_BLOCK_BYTES):
                self._output(block)

    def _wait(self) -> None:
        entry = self._reported()
        self.code, self.left = entry.get("code", -9), entry.get("left", 0)
        if not entry:  # the supervisor was killed; kill the command's process group
            with suppress(OSError):
                os.killpg(self._pid, 9)
        with _lock:  # not while something is sent
            _under_way.discard(self)
            self._disconnect()
        self._reader.join(_OUTPUT_WAIT_S)
        self._ended.set()
        self._on_ended()


def _refuse_if_stopped(name: str, run_id: str) -> None:
    if run_id and run_id in _stopped:
        raise StoppedError(f"step {name!r} was not begun, since the run was stopped", step=name)


def send_request(request: Mapping[str, object], descriptors: Sequence[int]) -> None:
    """Request a process from the server (supervisor.py has the format); replace a server that has died."""
    global _channel
    data = json.dumps(request).encode() + b"\n"
    with _lock:
        try:
            _send(_channel or _start(), data, descriptors)
        except (BrokenPipeError, ConnectionResetError):
            _send(_start(), data, descriptors)


def _send(channel: socket.socket, data: bytes, descriptors: Sequence[int]) -> None:
    sent = socket.send_fds(channel, [data], list(descriptors))
    channel.sendall(data[sent:])


def _start() -> socket.socket:
    global _channel, _server
    if _channel:
        _channel.close()
    if _server:
        _server.wait()
    _channel, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-I", "-S", supervisor.__file__, str(theirs.fileno())]
        _server = subprocess.Popen(  # noqa: S603 (this interpreter with a file of this package)
            command,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    return _channel


@atexit.register
def _leave() -> None:
    """Close the channel, which ends the server, without waiting for that."""
    if _channel:
        _channel.close()
    if _server:
        _server.returncode = 0


def _forget_after_fork() -> None:
    """Forget the server in a forked child, which needs its own: this one supervises the parent."""
    global _lock, _channel, _server
    _lock, _server = threading.Lock(), None
    if _channel:
        _channel.close()
        _channel = None


around_forks(_forget_after_fork)
