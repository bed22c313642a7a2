"""Watches over the processes of steps: however one of them or the run ends, nothing that it started goes on.

A script of its own that needs nothing but the standard library: `python -I -S supervisor.py SOCKET`. Through the
socket the run asks for processes: a line of JSON with `command`, `cwd`, `env` and `grace_s`, and with it four
descriptors. Each gets a supervisor, forked from here, since to start a Python for each would cost ten times as much:

- standard input and output of the command;
- the lifeline, the reading end of a pipe that the run holds open: when that closes, the command is asked to end
  (SIGTERM) and after the grace killed, with all its descendants. So it is if the run sends an `E` through it, if the
  run has gone, or if the supervisor itself is told to end;
- the report, where the supervisor says how that went: a line of JSON with the command's process id, one with its exit
  code.

On Linux also descendants that left its session are found, since they become children of the supervisor when their
parents end; elsewhere those in its process group and below it.
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

POLL_S = 1.0  # a process that was forked from the run may hold the lifeline open after the run has ended
PATIENCE_S = 10.0  # for what does not even end when it is killed, as one that waits for a network file system
ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
DESCRIPTORS = 4  # that come with each request

_LINUX: bool = sys.platform.startswith("linux")
_Prctl = Callable[[int, int], int] | None


def serve(channel: socket.socket) -> None:
    """A supervisor for each request, until the run has gone."""
    run = os.getppid()
    prctl = _prctl()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for supervisors; they report
    for number in ASKED:
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
    """In the supervisor: the command is started and watched; then this process ends."""
    server = os.getppid()
    standard_input, output, lifeline, report = descriptors
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
        nothing = os.open(os.devnull, os.O_RDWR)  # its own ends of the command's pipes would keep them open
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        if fault:
            _say(report, {"errno": fault[0], "file": fault[1]})
            return
        _say(report, {"pid": child})
        code = _watch(child, server, lifeline, waking, request["grace_s"])
        _say(report, {"code": code, "left": _kill_all(child)})
    finally:
        os._exit(0)


def _say(report: int, what: dict[str, object]) -> None:
    try:
        os.write(report, json.dumps(what).encode() + b"\n")
    except BrokenPipeError:
        return  # nobody is left to hear it


def _wake_on_signals() -> int:
    """A pipe that has something to read when a child has ended, or when this process is asked to end."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *ASKED):
        signal.signal(number, lambda *_: None)
    return reading


def _prctl() -> _Prctl:
    if not _LINUX:
        return None
    import ctypes

    try:
        prctl: _Prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return None
    return prctl


def _start(request: dict[str, Any], prctl: _Prctl) -> tuple[int, tuple[int, str] | None]:
    """The process id of the command; and if it could not be started, why, and which file is to blame."""
    reading, writing = os.pipe()
    supervisor = os.getpid()
    child = os.fork()
    if child == 0:
        command, file = request["command"], request["cwd"]
        try:
            os.setsid()
            if prctl:  # should somebody kill the supervisor itself
                prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == supervisor:
                signal.set_wakeup_fd(-1)
                for number in (signal.SIGCHLD, *ASKED, signal.SIGPIPE, signal.SIGXFSZ):
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


def _watch(child: int, server: int, lifeline: int, waking: int, grace_s: float) -> int:
    """The exit code of the command, negative for a signal; when it has to end before, it has been made to."""
    events = select.poll()
    for descriptor in (lifeline, waking):
        events.register(descriptor, select.POLLIN)
    kill_at = float("inf")
    while True:
        patience = min(POLL_S, max(0.0, kill_at - time.monotonic()))
        ready = {descriptor for descriptor, _ in events.poll(patience * 1000)}
        code = _reap(child)
        if code is not None:
            return code
        asked = waking in ready and any(number != signal.SIGCHLD for number in os.read(waking, 4096))
        if lifeline in ready:
            asked = True
            if not os.read(lifeline, 1):
                events.unregister(lifeline)
        if (asked or os.getppid() != server) and kill_at == float("inf"):
            _signal(signal.SIGTERM, child)
            kill_at = time.monotonic() + grace_s
        if time.monotonic() >= kill_at:
            _signal(signal.SIGKILL, child)
            kill_at = time.monotonic() + POLL_S


def _reap(child: int) -> int | None:
    """The exit code of the command, if it is among the children that have ended."""
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
    """Kill the descendants that were left when the command had ended. Returns how many."""
    left: set[int] = set()
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            if _LINUX:  # whatever it started would be a child of this process
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
    """All processes that come from the command and have not ended."""
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
    """Process id, parent and group of all that run, without those that are dead and only not yet buried."""
    if _LINUX:
        for name in os.listdir("/proc"):  # noqa: PTH208 (pathlib is not imported here: it takes as long as all else)
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
    with os.popen("ps -axo pid=,ppid=,pgid=,state=") as listed:  # noqa: S605, S607 (no word of it comes from outside)
        for line in listed:
            *numbers, status = line.split()
            if not status.startswith("Z"):
                pid, above, its_group = map(int, numbers)
                yield pid, above, its_group


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
