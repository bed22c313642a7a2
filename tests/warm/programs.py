"""Programs as processes of their own, forked from interpreters with Prefect imported, and without."""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import queue
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tests.warm.interpreters import of_start, run_program, start_interpreter, take_over
from tests.warm.prefect_children import fork_children, of_prefect, read_settings
from tests.warm.servers import WarmServers, start_servers_by

PLAIN = (
    "crucible_lineage.session",
    "crucible_lineage.pipeline.run.run",
    "crucible_lineage.pipeline.engines.local",
    "crucible_lineage.ask.verify",
    "crucible_lineage.pipeline.plan.bind",
    "crucible_lineage.client.client",
    "crucible_lineage.server.running",
    "encodings.idna",
)
ON_PREFECT = (
    "prefect.flows",
    *(f"prefect.cli.{name}" for name in ("deploy", "deployment", "flow_run", "work_pool")),
    "crucible_lineage.tasks",
    "crucible_lineage.flows.commands",
    "crucible_lineage.server.running",
    "prefect_dask",
    "pandas",
)


class WarmPython:
    """Two interpreters that wait for programs: with Prefect imported, and without. Usable from several threads."""

    starts_next = False  # the next program, as users start it

    def __init__(self, servers: WarmServers) -> None:
        self._servers = servers
        self._interpreters: dict[bool, _Interpreter] = {}
        self._lock = threading.Lock()
        self._began_with = of_start(os.environ)

    def run(
        self, arguments: list[str], environment: Mapping[str, str], cwd: Path | str | None = None, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """Run `python ARGUMENTS`: what `subprocess.run` gives. Raises TimeoutExpired as it does."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            process = self.start(arguments, environment, out, err, cwd)
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                raise
            return subprocess.CompletedProcess([sys.executable, *arguments], code, out.read_text(), err.read_text())

    def start(
        self, arguments: list[str], environment: Mapping[str, str], out: Path, err: Path, cwd: Path | str | None = None
    ) -> Started | subprocess.Popen[bytes]:
        """Start `python ARGUMENTS`; what it says goes to the ends of these files.

        On Prefect, the flow runs and the processes for tasks that it starts begin with their imports done, too.
        """
        if not self._is_forked(environment):
            with out.open("ab") as said, err.open("ab") as told:
                command = [sys.executable, *arguments]
                return subprocess.Popen(command, env=dict(environment), cwd=cwd, stdout=said, stderr=told)
        return self._forked(arguments, environment, [Path(os.devnull), out.absolute(), err.absolute()], cwd)

    def _is_forked(self, environment: Mapping[str, str]) -> bool:
        is_measured = any(name.startswith("COVERAGE_") for name in environment)
        if WarmPython.starts_next:
            WarmPython.starts_next = False
            return False
        return not is_measured and of_start(environment) == self._began_with and sys.platform == "linux"

    def _forked(
        self, arguments: list[str], environment: Mapping[str, str], files: list[Path], cwd: Path | str | None
    ) -> Started:
        on_prefect = _is_on_prefect(arguments, environment)
        with self._lock:
            if on_prefect not in self._interpreters:
                modules = ON_PREFECT if on_prefect else PLAIN
                others = [self._servers.orders().fileno()]
                self._interpreters[on_prefect] = _Interpreter(modules, environment, others)
        order = {
            "arguments": arguments,
            "environment": dict(environment),
            "folder": str(cwd or Path.cwd()),
            "files": [str(path) for path in files],
        }
        return self._interpreters[on_prefect].start(order)

    def popen(
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        cwd: Path | str | None = None,
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = 2,
    ) -> Started | subprocess.Popen[str]:
        """Start `python ARGUMENTS` with pipes or descriptors, as `subprocess.Popen` does."""
        if not self._is_forked(environment):
            command, options = [sys.executable, *arguments], {"stdin": stdin, "stdout": stdout, "stderr": stderr}
            return subprocess.Popen(command, env=dict(environment), cwd=cwd, text=True, **options)
        ours = [os.pipe() if wanted == subprocess.PIPE else (-1, wanted) for wanted in (stdout, stderr)]
        standard = [stdin, *(end for _, end in ours)]
        place = f"/proc/{os.getpid()}/fd"
        paths = [Path(os.devnull if file == subprocess.DEVNULL else f"{place}/{file}") for file in standard]
        started = self._forked(arguments, environment, paths, cwd)
        for name, (reading, writing) in zip(("stdout", "stderr"), ours, strict=True):
            if reading >= 0:
                os.close(writing)
                setattr(started, name, os.fdopen(reading))
        return started

    def close(self) -> None:
        """End the interpreters."""
        for interpreter in self._interpreters.values():
            interpreter.close()


class _Interpreter:
    """One that forks a program for each order, and says when it has begun and ended."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str], others: list[int]) -> None:
        self._lock = threading.Lock()
        self._begun: queue.Queue[Started] = queue.Queue()
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            numbers = [theirs.fileno(), *others]
            self._python = start_interpreter(__name__, numbers, modules, dict(environment))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def start(self, order: Any) -> Started:
        with self._lock:
            self._orders.send(json.dumps(order).encode())
            return self._begun.get(timeout=120)

    def _listen(self) -> None:
        started: dict[str, Started] = {}
        while message := self._orders.recv(100):
            pid, _, code = message.decode().partition(" ")
            if code:
                started.pop(pid).end(int(code))
            else:
                started[pid] = Started(int(pid))
                self._begun.put(started[pid])

    def close(self) -> None:
        self._orders.shutdown(socket.SHUT_WR)
        self._python.wait(60)
        self._thread.join(60)
        self._orders.close()


def _is_on_prefect(arguments: list[str], environment: Mapping[str, str]) -> bool:
    """Whether Prefect may be imported beforehand: not where a command of ours sets it up, and only then imports it."""
    return bool(environment.get("PREFECT_API_URL")) or arguments[:2] == ["-m", "prefect"]


class Started:
    """A program that was forked."""

    stdout: IO[str] | None = None
    stderr: IO[str] | None = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = threading.Event()

    def end(self, code: int) -> None:
        """Note that it has ended."""
        self.returncode = code
        self._ended.set()

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended. Raises TimeoutExpired if that takes too long."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("python", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read what it prints until it ends. Raises TimeoutExpired if that takes too long."""
        said = {"stdout": "", "stderr": ""}

        def read(place: str, stream: IO[str]) -> None:
            with stream:
                said[place] = stream.read()

        streams = [(place, stream) for place in said if (stream := getattr(self, place)) and not stream.closed]
        readers = [threading.Thread(target=read, args=each, daemon=True) for each in streams]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        return said["stdout"], said["stderr"]

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


def serve(orders: str, servers: str, *modules: str) -> None:
    """Fork for each order; what is forked becomes the program that is ordered."""
    sockets = [socket.socket(fileno=int(number)) for number in (orders, servers)]
    if ordered := _wait_for_orders(*sockets, modules):
        run_program(ordered)


def _wait_for_orders(orders: socket.socket, servers: socket.socket, modules: Sequence[str]) -> list[str]:
    """Fork for each order; in what is forked, become what is ordered, and return its arguments."""
    for module in modules:
        importlib.import_module(module)
    if any(module.startswith("prefect") for module in modules):
        _end_flows_at_once()
    else:
        import crucible_lineage.cli as cli

        for found in pkgutil.walk_packages(cli.__path__, "crucible_lineage.cli."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    _build_models()
    start_servers_by(lambda: servers, of_start(os.environ))
    gc.freeze()  # what is imported stays shared memory
    gc.set_threshold(50_000)  # else a twentieth of the time goes into looking for garbage
    modes = (os.O_RDONLY, *(os.O_WRONLY | os.O_CREAT | os.O_APPEND,) * 2)
    running: dict[int, int] = {}  # by what is ready once it has ended
    while True:
        ready, _, _ = select.select([orders, *running], [], [])
        for ended in running.keys() & set(ready):
            pid = running.pop(ended)
            os.close(ended)
            orders.send(b"%d %d" % (pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
        if orders not in ready:
            continue
        if not (message := orders.recv(1 << 20)):
            return []
        order = json.loads(message)
        files = [os.open(path, mode, 0o600) for path, mode in zip(order["files"], modes, strict=True)]
        pid = os.fork()
        if pid == 0:
            for other in running:
                os.close(other)
            orders.close()
            return _become(order, files)
        for file in files:
            os.close(file)
        orders.send(b"%d" % pid)
        running[os.pidfd_open(pid)] = pid


def _end_flows_at_once() -> None:
    """Let no flow wait at its end for the thread of its heartbeats, which sleeps for a second at a time."""
    import prefect.flow_engine as engine

    send: Any = getattr(engine, "_send_heartbeats", None)  # not in all versions that are allowed
    if send is not None:
        vars(engine)["_send_heartbeats"] = lambda run, join_on_exit=False: send(run, join_on_exit=False)


def _build_models() -> None:
    """Build the models that else are built when they are first used."""
    from pydantic import BaseModel

    models = [BaseModel]
    for model in models:
        models += model.__subclasses__()
        if model.__module__.startswith("crucible_lineage.") and not model.__pydantic_complete__:
            model.model_rebuild(raise_errors=False)


def _become(order: Any, files: list[int]) -> list[str]:
    """Take over environment, folder, input and outputs."""
    before = of_prefect()
    take_over(order["environment"])
    if of_prefect() != before or "PREFECT_API_URL" not in before:  # a profile may say it by now
        read_settings()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(order["folder"])
    if "prefect" in sys.modules and (engine := fork_children()):
        return engine
    return [str(argument) for argument in order["arguments"]]
