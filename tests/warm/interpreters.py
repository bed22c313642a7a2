"""An interpreter that waits for orders: how it is started, and how what it forks becomes a program."""

from __future__ import annotations

import atexit
import os
import runpy
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
# The tests' folders are no packages of the programs.
_CHILD = """
import sys
from importlib import import_module
if not sys.flags.safe_path:
    del sys.path[0]
sys.path.insert(0, sys.argv.pop(1))
serve = import_module(sys.argv.pop(1)).serve
del sys.path[0]
for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
    del sys.modules[name]
serve(*sys.argv[1:])
"""


def start_interpreter(
    module: str,
    numbers: Sequence[int],
    words: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Start an interpreter that calls `serve` of a module with these open files and words."""
    command = [sys.executable, *options, "-c", _CHILD, str(ROOT), module, *map(str, numbers), *words]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, pass_fds=numbers)


class Orders:
    """An interpreter that waits for orders of this process and of its programs, once there is one."""

    module: str

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: socket.socket | None = None
        self._python: subprocess.Popen[bytes] | None = None

    def orders(self) -> socket.socket:
        """Return where to send them."""
        with self._lock:
            if self._orders is None:
                self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    self._python = start_interpreter(self.module, [theirs.fileno()], options=["-P"])
            return self._orders

    def close(self) -> None:
        """End the interpreter; what it has started ends by itself."""
        if self._orders is not None and self._python is not None:
            self._orders.send(b"end")
            self._python.wait(60)
            self._orders.close()


def of_start(environment: Mapping[str, str]) -> dict[str, str]:
    """What an interpreter, or whoever measures it, reads when it starts."""
    prefixes = ("PYTHON", "LC_", "LANG", "COVERAGE_")
    return {name: value for name, value in environment.items() if name.startswith(prefixes)}


def can_fork() -> bool:
    return sys.platform == "linux" and not any(name.startswith("COVERAGE_") for name in os.environ)


def reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def take_over(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()


def run_program(arguments: list[str]) -> None:
    """Do what `python ARGUMENTS` does, and end without the interpreter's taking all its modules apart."""
    try:
        _execute(arguments)
        code = 0
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        code = ended.code or 0
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # which the interpreter tells
            raise SystemExit(code) from None
    os._exit(code)


def _execute(arguments: list[str]) -> None:
    how, *rest = arguments
    if how == "-m":
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.path.insert(0, str(Path(how).parent))
        sys.argv = arguments
        runpy.run_path(how, run_name="__main__")
