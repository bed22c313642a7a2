"""Embedded servers, forked."""

from __future__ import annotations

import gc
import json
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

from tests.warm.interpreters import Orders, can_fork, of_start, reap, take_over


class WarmServers(Orders):
    """Forks embedded servers."""

    module = __name__

    def __init__(self) -> None:
        super().__init__()
        if can_fork():
            start_servers_by(self.orders, of_start(os.environ))


def start_servers_by(orders: Callable[[], socket.socket], began_with: Mapping[str, str]) -> None:
    """Let this process order its servers, unless it has other variables of interpreters by now."""
    from crucible_lineage.server import shared

    def start(command: list[str], **options: Any) -> Any:
        if of_start(os.environ) != began_with:
            return subprocess.Popen(command, **options)
        order = {"environment": dict(os.environ), "folder": command[-2], "port": int(command[-1])}
        ready, told = os.pipe()
        socket.send_fds(orders(), [json.dumps(order).encode()], [told, options["stderr"].fileno()])
        os.close(told)
        return SimpleNamespace(stdout=os.fdopen(ready, "rb"), returncode=None)

    constants = {"DEVNULL": subprocess.DEVNULL, "PIPE": subprocess.PIPE}
    vars(shared)["subprocess"] = SimpleNamespace(Popen=start, **constants)


def serve(number: str) -> None:
    """Fork a server for each order."""
    from crucible_lineage.server import running

    for route in running.ROUTES:
        _ = route.types
    gc.freeze()
    gc.set_threshold(50_000)
    signal.signal(signal.SIGCHLD, lambda *_: reap())
    orders = socket.socket(fileno=int(number))
    while True:
        message, files, _, _ = socket.recv_fds(orders, 1 << 20, 3)
        if message in (b"", b"end"):
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            orders.close()
            order = json.loads(message)
            take_over(order["environment"])
            _serve_in(order["folder"], order["port"], *files)
        for file in files:
            os.close(file)


def _serve_in(folder: str, port: int, told: int, log: int) -> NoReturn:
    """Do what `python -m crucible_lineage.server.running FOLDER PORT` does."""
    from crucible_lineage.server import running

    os.setsid()
    os.dup2(told, 1)
    os.dup2(log, 2)
    os.close(told)
    os.close(log)
    os.chdir(folder)
    os.umask(0o077)
    code = 1
    try:
        running.main(Path(folder), port)
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
