"""Python processes that begin with their imports done: each is forked from one that has imported what takes long.

A program run so is a process of its own, as with `subprocess.run`: its environment, folder, output and exit code. What
a test of the start itself is about (what it imports, and in which order) needs a real start; with variables that an
interpreter reads, as PYTHON*, it gets one. The embedded servers of the tests' own process begin likewise
(`WarmServers`), and so do the workers that call functions of steps (`WarmWorkers`).
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import fcntl
import gc
import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import queue
import runpy
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from multiprocessing import util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import IO, Any, NoReturn, cast

PLAIN = (
    "crucible_lineage.session",
    "crucible_lineage.pipeline.run.run",
    "crucible_lineage.pipeline.engines.local",
    "crucible_lineage.queries.verify.verify",
    "crucible_lineage.pipeline.bind.binder",
    "crucible_lineage.client.http.loopback",
    "crucible_lineage.server.serving",
    "encodings.idna",
)
ON_PREFECT = (
    "prefect.flows",
    *(f"prefect.cli.{name}" for name in ("deploy", "deployment", "flow_run", "work_pool")),
    "crucible_lineage.tasks",
    "crucible_lineage.flows",
    "crucible_lineage.server.serving",
    "prefect_dask",
    "pandas",
)


class WarmPython:
    """Two interpreters that wait for programs: with Prefect imported, and without. Usable from several threads."""

    def __init__(self, servers: WarmServers, workers: WarmWorkers) -> None:
        self._servers = servers
        self._workers = workers
        self._interpreters: dict[bool, _Interpreter] = {}
        self._lock = threading.Lock()
        self._began_with = _of_start(os.environ)

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
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        out: Path,
        err: Path,
        cwd: Path | str | None = None,
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
        return not is_measured and _of_start(environment) == self._began_with and sys.platform == "linux"

    def _forked(
        self, arguments: list[str], environment: Mapping[str, str], files: list[Path], cwd: Path | str | None
    ) -> Started:
        on_prefect = _is_on_prefect(arguments, environment)
        with self._lock:
            if on_prefect not in self._interpreters:
                modules = ON_PREFECT if on_prefect else PLAIN
                others = [self._servers.orders().fileno(), self._workers.orders().fileno()]
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
        for one in self._interpreters.values():
            one.close()


class _Interpreter:
    """One that forks a program for each order, and says when it has begun and ended."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str], others: list[int]) -> None:
        self._lock = threading.Lock()
        self._begun: queue.Queue[Started] = queue.Queue()
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            numbers = [theirs.fileno(), *others]
            command = [sys.executable, __file__, *map(str, numbers), *modules]
            self._python = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=dict(environment), pass_fds=numbers)
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


def _of_start(environment: Mapping[str, str]) -> dict[str, str]:
    """What an interpreter, or whoever measures it, reads when it starts."""
    prefixes = ("PYTHON", "LC_", "LANG", "COVERAGE_")
    return {name: value for name, value in environment.items() if name.startswith(prefixes)}


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
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


class _Orders:
    """An interpreter that waits for orders of this process and of its programs, once there is one."""

    what: str

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
                    command = [sys.executable, "-P", __file__, str(theirs.fileno()), self.what]
                    self._python = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
            return self._orders

    def close(self) -> None:
        """End the interpreter; what it has started ends by itself."""
        if self._orders is not None and self._python is not None:
            self._orders.send(b"end")
            self._python.wait(60)
            self._orders.close()


class WarmServers(_Orders):
    """Forks embedded servers, and what ingests for them."""

    what = "servers"

    def __init__(self) -> None:
        super().__init__()
        if _can_fork():
            _start_servers_by(self.orders, _of_start(os.environ))


class WarmWorkers(_Orders):
    """Forks the servers of supervisors, whose workers begin with their imports done."""

    what = "workers"

    def __init__(self) -> None:
        super().__init__()
        if _can_fork():
            _start_workers_by(self.orders, _of_start(os.environ))


def _can_fork() -> bool:
    return sys.platform == "linux" and not any(name.startswith("COVERAGE_") for name in os.environ)


def _start_workers_by(orders: Callable[[], socket.socket], began_with: Mapping[str, str]) -> None:
    """Let this process order its servers of supervisors, unless it has other variables of interpreters by now."""
    from crucible_lineage.pipeline.processes import supervised

    def start(command: list[str], *, pass_fds: tuple[int], **options: Any) -> Any:
        if _of_start(os.environ) != began_with:
            return subprocess.Popen(command, pass_fds=pass_fds, **options)
        number, named = os.pipe()
        socket.send_fds(orders(), [b"%d" % os.getpid()], [*pass_fds, named])
        os.close(named)
        with os.fdopen(number) as stream:
            return SimpleNamespace(pid=int(stream.read()), wait=lambda: 0, returncode=None)

    vars(supervised)["subprocess"] = SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL)


def _wait_for_workers(number: int) -> None:
    """Fork for each order a server of supervisors."""
    del sys.path[0]  # the tests' folders are no packages of the steps
    from crucible_lineage.pipeline.processes import worker_main

    assert worker_main
    gc.freeze()
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    orders = socket.socket(fileno=number)
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

    began_with, warm = _of_start(os.environ), os.getppid()

    def parent() -> int:
        return run if (above := os.getppid()) == warm and Path(f"/proc/{run}").exists() else above

    def execute(file: str, command: list[str], environment: Mapping[str, str]) -> NoReturn:
        is_worker = command[:2] == [sys.executable, "-c"] and ".worker_main import main; " in command[2]
        if is_worker and _of_start(environment) == began_with:
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
    _take_over(environment)
    try:
        _run(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _start_servers_by(orders: Callable[[], socket.socket], began_with: Mapping[str, str]) -> None:
    """Let this process order its servers, unless it has other variables of interpreters by now."""
    from crucible_lineage.server import shared

    def start(command: list[str], **options: Any) -> Any:
        if _of_start(os.environ) != began_with:
            return subprocess.Popen(command, **options)
        order = {"environment": dict(os.environ), "folder": command[-2], "port": int(command[-1])}
        ready, told = os.pipe()
        socket.send_fds(orders(), [json.dumps(order).encode()], [told, options["stderr"].fileno()])
        os.close(told)
        return SimpleNamespace(stdout=os.fdopen(ready, "rb"), returncode=None)

    constants = {"DEVNULL": subprocess.DEVNULL, "PIPE": subprocess.PIPE}
    vars(shared)["subprocess"] = SimpleNamespace(Popen=start, **constants)


def copy_new_databases() -> None:
    """Let a new database of a server be a copy of one that was migrated before, with an id and a secret of its own."""
    from crucible_lineage.server import database

    applied, migrations = database._applied, database.MIGRATIONS
    with tempfile.TemporaryDirectory() as folder:
        database.open_database(Path(folder, "new.db")).close()
        content = Path(folder, "new.db").read_bytes()

    def copied(path: Path) -> set[str]:
        if path.exists() or database.MIGRATIONS is not migrations:
            return applied(path)
        try:
            with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
        except FileExistsError:
            return applied(path)
        except OSError:
            path.unlink(missing_ok=True)
            return applied(path)
        with closing(database.connect(path)) as db:
            for name, size in (("instance_id", 16), ("link_secret", 32)):
                db.execute("UPDATE setting SET value = ? WHERE name = ?", (secrets.token_hex(size), name))
        return applied(path)

    database._applied = copied


def _wait_for_servers(number: int) -> None:
    """Fork for each order: a server, or what ingests for one of them."""
    from crucible_lineage.server import serving
    from crucible_lineage.server.ingest import child

    assert child
    asyncio.run(_ask_all(serving.build_app(cast("Any", None))))
    copy_new_databases()
    gc.freeze()
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    orders = socket.socket(fileno=number)
    inside, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    while True:
        ready, _, _ = select.select([orders, theirs], [], [])
        message, files, _, _ = socket.recv_fds(ready[0], 1 << 20, 3)
        if message in (b"", b"end"):
            return
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            orders.close()
            theirs.close()
            order = json.loads(message)
            _take_over(order["environment"])
            if ready[0] is orders:
                _ingest_by(inside)
                _serve_in(order["folder"], order["port"], *files)
            else:
                _ingest_for(order["path"], *files)
        if ready[0] is theirs:
            os.write(files[2], b"%d\n" % pid)
        for file in files:
            os.close(file)


async def _ask_all(app: Any) -> None:
    """Have the first request of each route behind the application, which refuses them: it reads the route's source."""
    begun = {"type": "http", "http_version": "1.1", "scheme": "http", "query_string": b"", "headers": []}

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(_: Any) -> None:
        return

    for route in app.routes:
        for method in getattr(route, "methods", None) or ():
            await app({**begun, "method": method, "path": route.path.replace("{", "").replace("}", "")}, receive, send)


def _ingest_by(orders: socket.socket) -> None:
    """Let this server order what ingests for it."""
    from crucible_lineage.server.ingest import isolation

    def start(command: list[str], *, env: Mapping[str, str], **options: Any) -> Any:
        errands, to_it = os.pipe()
        from_it, told = os.pipe()
        number, named = os.pipe()
        order = {"environment": {**env}, "path": env["PYTHONPATH"]}
        socket.send_fds(orders, [json.dumps(order).encode()], [errands, told, named])
        for theirs in (errands, told, named):
            os.close(theirs)
        with os.fdopen(number) as stream:
            pid = int(stream.readline())
        return _Ordered(pid, os.fdopen(to_it, "wb"), os.fdopen(from_it, "rb"))

    constants = {"DEVNULL": subprocess.DEVNULL, "PIPE": subprocess.PIPE}
    vars(isolation)["subprocess"] = SimpleNamespace(Popen=start, **constants)


class _Ordered:
    """What `Popen` is for a process that another one has forked, and waits for."""

    def __init__(self, pid: int, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self.pid, self.stdin, self.stdout = pid, stdin, stdout

    def poll(self) -> int | None:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return -signal.SIGKILL
        return None

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        return


def _ingest_for(path: str, errands: int, told: int, named: int) -> NoReturn:
    """Do what `python -P -m crucible_lineage.server.ingest.child` does."""
    from crucible_lineage.server.ingest import child

    os.setsid()
    os.dup2(errands, 0)
    os.dup2(told, 1)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    for file in (errands, told, named):
        os.close(file)
    sys.path[:0] = [entry for entry in path.split(os.pathsep) if entry not in sys.path]
    try:
        child.fork_for_each()
    finally:
        os._exit(0)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _wait_for_orders(
    orders: socket.socket, servers: socket.socket, workers: socket.socket, modules: list[str]
) -> list[str]:
    """Fork for each order; in what is forked, become what is ordered, and return its arguments."""
    del sys.path[0]  # the tests' folders are no packages of the programs
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
    _start_servers_by(lambda: servers, _of_start(os.environ))
    _start_workers_by(lambda: workers, _of_start(os.environ))
    gc.freeze()  # what is imported stays shared memory
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
    before = _of_prefect()
    _take_over(order["environment"])
    if _of_prefect() != before or "PREFECT_API_URL" not in before:  # a profile may say it by now
        _read_settings()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(order["folder"])
    if "prefect" in sys.modules and (engine := _fork_children()):
        return engine
    return [str(argument) for argument in order["arguments"]]


ENGINE = "prefect.engine"
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def _fork_children() -> list[str]:
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
        before = _of_prefect()
        _take_over(environment)
        if _of_prefect() != before:
            _read_settings()

    def execute(file: str, command: list[str], environment: Mapping[str, str]) -> NoReturn:
        """Go on as the engine that is to take this process over."""
        if command[1:] != ["-m", ENGINE]:
            execvpe(file, command, environment)
        raise _Engine(environment)

    execvpe, vars(os)["execvpe"] = os.execvpe, execute
    os.chdir(order["folder"])
    begin(order["environment"])
    try:
        _run(order["arguments"])
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


def _of_prefect() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("PREFECT_")}


def _read_settings() -> None:
    """Let Prefect, if it is imported, read its settings again."""
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context
        from prefect.logging.configuration import setup_logging

        refresh_global_settings_context()
        setup_logging()


def _take_over(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()


def _serve_in(folder: str, port: int, told: int, log: int) -> NoReturn:
    """Do what `python -m crucible_lineage.server.serving FOLDER PORT` does."""
    from crucible_lineage.server import serving

    os.setsid()
    os.dup2(told, 1)
    os.dup2(log, 2)
    os.close(told)
    os.close(log)
    os.chdir(folder)
    os.umask(0o077)
    code = 1
    try:
        serving.main(Path(folder), port)
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _run(arguments: list[str]) -> None:
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


if __name__ == "__main__":
    _number, _what, *_others = sys.argv[1:]
    if _what == WarmServers.what:
        _wait_for_servers(int(_number))
    elif _what == WarmWorkers.what:
        _wait_for_workers(int(_number))
    else:
        _sockets = [socket.socket(fileno=int(number)) for number in (_number, _what, _others[0])]
        if ordered := _wait_for_orders(*_sockets, _others[1:]):
            _run(ordered)
