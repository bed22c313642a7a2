"""Workers that call functions of steps, forked: the servers of supervisors, and what they start."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from tests.warm.interpreters import Orders, can_fork, of_start, reap, run_program, take_over


class WarmWorkers(Orders):
    """Forks the servers of supervisors, whose workers begin with their imports done."""

    module = __name__

    def __init__(self) -> None:
        super().__init__()
        if can_fork():
            start_workers_by(self.orders, of_start(os.environ))


def start_workers_by(orders: Callable[[], socket.socket], began_with: Mapping[str, str]) -> None:
    """Let this process order its servers of supervisors, unless it has other variables of interpreters by now."""
    from crucible_lineage.pipeline.processes import supervised

    def start(command: list[str], *, pass_fds: tuple[int], **options: Any) -> Any:
        if of_start(os.environ) != began_with:
            return subprocess.Popen(command, pass_fds=pass_fds, **options)
        number, named = os.pipe()
        socket.send_fds(orders(), [b"%d" % os.getpid()], [*pass_fds, named])
        os.close(named)
        with os.fdopen(number) as stream:
            return SimpleNamespace(pid=int(stream.read()), wait=lambda: 0, returncode=None)

    vars(supervised)["subprocess"] = SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL)


def serve(number: str) -> None:
    """Fork for each order a server of supervisors."""
    from crucible_lineage.pipeline.processes import child

    assert child
    gc.freeze()
    gc.set_threshold(50_000)
    signal.signal(signal.SIGCHLD, lambda *_: reap())
    orders = socket.socket(fileno=int(number))
    while True:
        message, files, _, _ = socket.recv_fds(orders, 1 << 10, 2)
        if message in (b"", b"end"):
            return
        pid = os.fork()
        if pid == 0:
            orders.close()
            os.close(files[1])
            _supervise_for(int(message), socket.socket(fileno=files[0]))
        os.write(files[1], b"%d" % pid)
        for file in files:
            os.close(file)


def _supervise_for(run: int, channel: socket.socket) -> NoReturn:
    """Do what `python -I -S supervisor.py` does; what it forks becomes the worker that is to be started."""
    from crucible_lineage.pipeline.processes import supervisor

    began_with, warm = of_start(os.environ), os.getppid()

    def parent() -> int:
        return run if (above := os.getppid()) == warm and Path(f"/proc/{run}").exists() else above

    def execute(file: str, command: list[str], environment: Mapping[str, str]) -> NoReturn:
        is_worker = command[:2] == [sys.executable, "-c"] and "; serve(" in command[2]
        if is_worker and of_start(environment) == began_with:
            _work(command[1:], environment)
        os.execvpe(file, command, environment)

    os.setsid()
    vars(supervisor)["os"] = SimpleNamespace(**{**vars(os), "getppid": parent, "execvpe": execute})
    try:
        supervisor.serve(channel)
    finally:
        os._exit(0)


def _work(arguments: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Do what this process would do as `python ARGUMENTS`."""
    os.closerange(3, 1 << 10)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    take_over(environment)
    try:
        run_program(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
