"""Supervision of step processes: however one of them or the run ends, no process that it started survives.

This is a standalone script that needs only the standard library: `python -I -S supervisor.py SOCKET`. The run requests
processes through the socket: a line of JSON with `command`, `cwd`, `env` and `grace_s`, with three descriptors. Each
process gets a supervisor, forked from here, since starting a Python for each would cost ten times as much:

- standard input and output of the command;
- a socket, where the supervisor writes a line of JSON with the command's process id, and one with its exit code. When
  the run closes it or sends anything, the command gets a SIGTERM, and is killed after the grace time, with all its
  descendants. The same happens if the run has ended, or if the supervisor itself gets a signal to end.

On Linux, descendants that left its session are found too, since they become children of the supervisor when their
parents end; elsewhere only those in its process group and below it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

POLL_S = 1.0  # needed since a process forked from the run may hold the socket open after the run has ended
PATIENCE_S = 10.0  # for processes that survive a kill, as while waiting for a network file system
END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
DESCRIPTORS = 3  # with each request

_LINUX: bool = sys.platform.startswith("linux")
_Prctl = Callable[[int, int], int] | None


def serve(channel: socket.socket) -> None:
    """Fork a supervisor for each request, until the run has ended."""
    run = os.getppid()
    prctl = _prctl()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors report, and are not waited for
    for number in END_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    channel.settimeout(POLL_S)
    while os.getppid() == run:
        try:
            data, descriptors, _, _ = socket.recv_fds(channel, 1 << 16, DESCRIPTORS)
        except TimeoutError:
            continue
        if not data:
            return
        while not data.endswith(b"\n"):
            data += channel.recv(1 << 16)
        if os.fork() == 0:
            channel.close()
            _supervise(json.loads(data), descriptors, prctl)
        for descriptor in descriptors:
            os.close(descriptor)


def _supervise(request: dict[str, Any], descriptors: list[int], prctl: _Prctl) -> None:
    """Start and watch the command; runs in the supervisor, and ends this process."""
    server = os.getppid()
    standard_input, output, run = descriptors
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    try:
        os.setsid()
        waking = _wake_on_signals()
        if prctl:
            prctl(PR_SET_CHILD_SUBREAPER, 1)
        os.dup2(standard_input, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for descriptor in (standard_input, output):
            os.close(descriptor)
        child, fault = _start(request, prctl)
        nothing = os.open(os.devnull, os.O_RDWR)  # holding the command's pipes would keep them open
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        if fault:
            _report(run, {"errno": fault[0], "file": fault[1]})
            return
        _report(run, {"pid": child})
        code = _watch(child, server, run, waking, request["grace_s"])
        _report(run, {"code": code, "left": _kill_all(child)})
    finally:
        os._exit(0)


def _report(descriptor: int, entry: dict[str, object]) -> None:
    try:
        os.write(descriptor, json.dumps(entry).encode() + b"\n")
    except (BrokenPipeError, ConnectionResetError):
        return  # the run has ended


def _wake_on_signals() -> int:
    """Return a pipe that becomes readable when a child has ended, or when this process gets a signal to end."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *END_SIGNALS):
        signal.signal(number, lambda *_: None)
    return reading


def _prctl() -> _Prctl:
    if not _LINUX:
        return None
    import ctypes

    return ctypes.CDLL(None).prctl


def _start(request: dict[str, Any], prctl: _Prctl) -> tuple[int, tuple[int, str] | None]:
    """Return the process id of the command, and if it could not be started, the error number and the file."""
    reading, writing = os.pipe()
    supervisor = os.getpid()
    child = os.fork()
    if child == 0:
        command, file = request["command"], request["cwd"]
        try:
            os.setsid()
            if prctl:  # in case the supervisor itself is killed
                prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == supervisor:
                signal.set_wakeup_fd(-1)
                for number in (signal.SIGCHLD, *END_SIGNALS, signal.SIGPIPE, signal.SIGXFSZ):
                    signal.signal(number, signal.SIG_DFL)
                if file is not None:
                    os.chdir(file)
                file = command[0]
                os.execvpe(file, command, request["env"])  # noqa: S606 (there is no shell)
        except OSError as error:
            os.write(writing, json.dumps([error.errno, file]).encode())
        finally:
            os._exit(127)
    os.close(writing)
    fault = os.read(reading, 1 << 16)
    os.close(reading)
    if not fault:
        return child, None
    os.waitpid(child, 0)
    number, file = json.loads(fault)
    return child, (number, file)


def _watch(child: int, server: int, run: int, waking: int, grace_s: float) -> int:
    """Wait for the command, or end it when that is requested. Return its exit code, negative for a signal."""
    events = select.poll()
    for descriptor in (run, waking):
        events.register(descriptor, select.POLLIN)
    kill_at = float("inf")
    while True:
        patience = min(POLL_S, max(0.0, kill_at - time.monotonic()))
        ready = {descriptor for descriptor, _ in events.poll(patience * 1000)}
        code = _reap(child)
        if code is not None:
            return code
        has_to_end = waking in ready and any(number != signal.SIGCHLD for number in os.read(waking, 4096))
        if run in ready:
            has_to_end = True
            events.unregister(run)
        if (has_to_end or os.getppid() != server) and kill_at == float("inf"):
            _signal(signal.SIGTERM, child)
            kill_at = time.monotonic() + grace_s
        if time.monotonic() >= kill_at:
            _signal(signal.SIGKILL, child)
            kill_at = time.monotonic() + POLL_S


def _reap(child: int) -> int | None:
    """Return the exit code of the command, if it is among the children that have ended."""
    code = None
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return code
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
    except ChildProcessError:
        return code


def _kill_all(child: int) -> int:
    """Kill the descendants that are left after the command. Return their number."""
    left: set[int] = set()
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            if _LINUX:  # any descendant would be a child of this process
                break
        found = set(_descendants(child))
        if not found:
            break
        left |= found
        _signal(signal.SIGKILL, child)
        time.sleep(0.005)
    return len(left)


def _signal(number: int, child: int) -> None:
    for pid in (*_descendants(child), -child):
        try:
            os.killpg(-pid, number) if pid < 0 else os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def _descendants(child: int) -> Iterator[int]:
    """Return the descendants of the command that have not ended, and itself."""
    found = {os.getpid(), child} if _LINUX else {child}
    table = list(_processes())
    grown = True
    while grown:
        grown = False
        for pid, parent, group in table:
            if pid not in found and (parent in found or group == child):
                found.add(pid)
                grown = True
    alive = {pid for pid, _, _ in table}
    return iter((found & alive) - {os.getpid()})


def _processes() -> Iterator[tuple[int, int, int]]:
    """Yield process id, parent and group of all processes except zombies."""
    if _LINUX:
        for name in os.listdir("/proc"):  # noqa: PTH208 (importing pathlib takes as long as everything else)
            if not name.isdecimal():
                continue
            try:
                with open(f"/proc/{name}/stat", "rb") as stream:  # noqa: PTH123
                    state, parent, group = stream.read().rpartition(b")")[2].split()[:3]
            except OSError:
                continue
            if state not in (b"Z", b"X"):
                yield int(name), int(parent), int(group)
        return
    with os.popen("ps -axo pid=,ppid=,pgid=,state=") as listed:  # noqa: S605, S607 (a constant command)
        for line in listed:
            *numbers, status = line.split()
            if not status.startswith("Z"):
                pid, above, its_group = map(int, numbers)
                yield pid, above, its_group


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
