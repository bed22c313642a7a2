"""The flow runs, and the processes for tasks, that a forked program on Prefect starts: forked too."""

from __future__ import annotations

import ctypes
import fcntl
import inspect
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import util
from pathlib import Path
from typing import Any, NoReturn

from tests.warm.interpreters import run_program, take_over

ENGINE = "prefect.engine"
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def fork_children() -> list[str]:
    """Let this process fork the flow runs, and the processes for tasks, that it starts; they are its children.

    In a process that is to become an engine, return the arguments of that.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        return _wait_for_children(theirs)
    theirs.close()
    lock = threading.Lock()
    popen: Any = subprocess.Popen
    execute, spawn = popen._execute_child, util.spawnv_passfds
    signature = inspect.signature(execute)

    def fork(files: list[int], **order: Any) -> int:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        with lock:
            socket.send_fds(ours, [json.dumps(order).encode()], files)
            return int(ours.recv(100))

    def execute_child(*words: Any, **options: Any) -> None:
        given = signature.bind(*words, **options).arguments
        command = [*given["args"]]
        if not _is_of_prefect(command):
            execute(*words, **options)
            return
        process, pipes = given["self"], [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        process.pid = fork(
            [pipe if pipe >= 0 else 2 for pipe in pipes],
            numbers=[0, 1, 2],
            environment=given["env"],
            folder=str(given["cwd"] or Path.cwd()),
            arguments=command[1:],
            is_apart=given["start_new_session"],
        )
        process._child_created = True
        names = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        process._close_pipe_fds(*(given[name] for name in names))

    def spawnv_passfds(path: bytes, command: list[Any], files: list[Any]) -> int:
        words = [str(word) for word in command]
        if "--multiprocessing-fork" not in words:
            return spawn(path, command, files)
        numbers = sorted({int(file) for file in files})
        arguments = words[words.index("-c") :]
        order = {"environment": dict(os.environ), "folder": str(Path.cwd()), "arguments": arguments}
        return fork(numbers, numbers=numbers, is_apart=False, **order)

    popen._execute_child = execute_child
    vars(util)["spawnv_passfds"] = spawnv_passfds
    return []


def _is_of_prefect(command: list[Any]) -> bool:
    """Whether a command starts a module of Prefect, or a program of its runner."""
    python, how, what = map(os.fsdecode, [*command, "", ""][:3])
    return python == sys.executable and ((how == "-m" and what.startswith("prefect.")) or "/prefect/runner/" in how)


def _wait_for_children(orders: socket.socket) -> list[str]:
    """Fork for each order a process whose parent ends at once, so that it becomes a child of who has ordered it."""
    while True:
        message, files, _, _ = socket.recv_fds(orders, 1 << 20, 100)
        if not message:
            os._exit(0)
        number, told = os.pipe()
        parent = os.fork()
        if parent == 0:
            pid = os.fork()
            if pid:
                os.write(told, b"%d" % pid)
                os._exit(0)
            break
        os.waitpid(parent, 0)
        orders.send(os.read(number, 100))
        for file in (*files, number, told):
            os.close(file)
    order = json.loads(message)
    if order["is_apart"]:
        os.setsid()
    _put(files, order["numbers"], [number, told, orders.detach()])

    def begin(environment: Mapping[str, str]) -> None:
        before = of_prefect()
        take_over(environment)
        if of_prefect() != before:
            read_settings()

    def execute(file: str, command: list[str], environment: Mapping[str, str]) -> NoReturn:
        """Go on as the engine that is to take this process over."""
        if command[1:] != ["-m", ENGINE]:
            execvpe(file, command, environment)
        raise _Engine(environment)

    execvpe, vars(os)["execvpe"] = os.execvpe, execute
    os.chdir(order["folder"])
    begin(order["environment"])
    try:
        run_program(order["arguments"])
    except _Engine as engine:
        begin(engine.environment)
        return ["-m", ENGINE]
    raise SystemExit


def _put(files: Sequence[int], numbers: Sequence[int], needless: Sequence[int]) -> None:
    """Let open files have these numbers."""
    above = max(*files, *numbers, *needless) + 1
    apart = [fcntl.fcntl(file, fcntl.F_DUPFD, above) for file in files]
    for file in (*files, *needless):
        os.close(file)
    for file, number in zip(apart, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)


class _Engine(BaseException):
    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment


def of_prefect() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("PREFECT_")}


def read_settings() -> None:
    """Let Prefect, if it is imported, read its settings again."""
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context
        from prefect.logging.configuration import setup_logging

        refresh_global_settings_context()
        setup_logging()
