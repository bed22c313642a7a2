"""Fixtures that all tests share: data folders, the demo run once, a small laboratory of steps, a Prefect server."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
from filelock import FileLock

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests import reused
from tests.serving import serve_sessions_here
from tests.warm import WarmPython, WarmServers

COMMAND = [sys.executable, "-m", "crucible_lineage"]

# Most tests count what a run registers. What results rest on, two datasets more a project, is kept where a test asks.
os.environ.setdefault("CRUCIBLE_LINEAGE_KEEP", "no")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # others only wait: what tests compute is small
# Without its bytecode, to import a library takes twice as long, in each of hundreds of processes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


serve_sessions_here()


# What is started in the background ignores Ctrl-C, and so would all that tests start and stop by it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Rooms with the longest tests, begun first, so that no process ends long after the others; "" is files beside rooms.
SLOW = (
    *("flows", "tasks", "gcs", "examples", "standing", "docs", "catalogue", "golden", "text", "", "crash", "soak"),
    *("pipeline", "remake", "export", "browser", "cli", "server"),
)
# Tests of one process, for what its session has: a Prefect server, example pipelines that have run, a project.
TOGETHER = {
    "examples": ("tests/examples/",),
    "catalogue": ("tests/catalogue/",),
    "tasks": (
        *("tests/tasks/", "tests/gcs/"),
        *("tests/crash/test_prefect_outages.py", "tests/cli/runs/test_steps_that_end_their_process.py"),
    ),
    "flows": ("tests/flows/",),
}


AS_USERS_DO = pytest.StashKey[bool]()  # of one test in each room that starts programs


def room_of(path: str) -> str:
    """The folder of tests/ that a test's file or id lies in."""
    parts = path.partition("::")[0].split("/")
    return parts[1] if len(parts) > 2 else ""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage in what the test modules import: there is none, and that takes a second of each process."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(50_000)  # else a twentieth of the time goes into looking for garbage
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow rooms come first; within a room the order stays. The first that starts programs does so as users do."""
    items.sort(key=lambda item: SLOW.index(room) if (room := room_of(item.nodeid)) in SLOW else len(SLOW))
    names = {item: {*getattr(item, "fixturenames", ())} for item in items}
    starting = (item for item in reversed(items) if "warm_python" in names[item] and names[item] & {"command", "begin"})
    for item in {room_of(item.nodeid): item for item in starting}.values():
        item.stash[AS_USERS_DO] = True


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run in several processes, those of one file stay together, as do those of `TOGETHER`."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return next((name for name, beginnings in TOGETHER.items() if path.startswith(beginnings)), path)

    config.option.loadscopereorder = False
    return Together(config, log)


@pytest.fixture(autouse=True)
def no_outer_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees this user's Crucible, data folder or configuration."""
    for name in ("CRUCIBLE_API_URL", "CRUCIBLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CRUCIBLE_LINEAGE_DATA", str(tmp_path_factory.getbasetemp() / "default-data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "config"))


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup() -> None:
    """Processes are reused by tests with the same environment, whatever their names."""
    os.environ.pop("PYTEST_CURRENT_TEST", None)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call() -> None:
    """Likewise."""
    os.environ.pop("PYTEST_CURRENT_TEST", None)


@pytest.fixture(autouse=True, scope="session")
def warm_servers() -> Iterator[WarmServers]:
    """Sessions of this process start their servers without the imports."""
    servers = WarmServers()
    yield servers
    servers.close()


@pytest.fixture(autouse=True, scope="session")
def ended_workers() -> Iterator[None]:
    """The workers that tests leave to the next end with the last."""
    yield
    reused.end_workers()


@pytest.fixture(autouse=True)
def as_users_do(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one test of each room, the first program is started, and not forked."""
    if request.node.stash.get(AS_USERS_DO, False):
        monkeypatch.setattr(WarmPython, "starts_next", True)


@pytest.fixture(autouse=True)
def no_folders_of_earlier_tests() -> Iterator[None]:
    """Modules of steps are not looked for in the folders of tests before this one; their processes are used."""
    yield
    reused.forget_folders()
    reused.free_workers(LAB_PREFIX)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty data folder."""
    return tmp_path / "data"


@pytest.fixture
def session(data: Path) -> Iterator[Session]:
    """A session with an embedded Crucible of its own."""
    with Session(Settings(data)) as opened:
        yield opened


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the source and the environment of steps be kept, as they are by default."""
    monkeypatch.delenv("CRUCIBLE_LINEAGE_KEEP", raising=False)


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def spectrum(tmp_path: Path) -> Path:
    """A small table as it comes from the field: a header, and two columns."""
    path = tmp_path / "polystyrene.txt"
    path.write_text("# laser_nm: 632.8\n# operator: Ada\nshift,counts\n620.9,120\n1001.4,980\n")
    return path


@pytest.fixture(scope="session")
def warm_python(warm_servers: WarmServers) -> Iterator[WarmPython]:
    """Runs programs as processes of their own that need not import what takes long."""
    python = WarmPython(warm_servers)
    yield python
    python.close()


@pytest.fixture
def command(warm_python: WarmPython) -> Command:
    """Runs `crucible-lineage` as a process of its own."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return warm_python.run([*COMMAND[1:], *map(str, arguments)], {**os.environ, **environment})

    return run


@pytest.fixture(scope="session")
def begin(warm_python: WarmPython) -> Callable[..., Any]:
    """Start `crucible-lineage` as a process of its own, which is not waited for: as `subprocess.Popen` does."""

    def start(*arguments: object, environment: Mapping[str, str] | None = None, **files: Any) -> Any:
        return warm_python.popen([*COMMAND[1:], *map(str, arguments)], {**os.environ, **(environment or {})}, **files)

    return start


@pytest.fixture(scope="session")
def demo_origin(tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> tuple[Path, str]:
    """The data folder in which the demo ran once, on the local engine, and what it printed as JSON.

    The first of the tests' processes to ask runs it.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demo"
    data, printed = folder / "data", folder / "printed.json"
    with FileLock(f"{folder}.lock"):
        if not printed.exists():
            words = [*COMMAND[1:], "demo", "--data", str(data), "--engine", "local", "--json"]
            ran = warm_python.run(words, os.environ)
            assert ran.returncode == 0, ran.stderr
            printed.write_text(ran.stdout)
    return data, printed.read_text()


@pytest.fixture
def demo_data(demo_origin: tuple[Path, str], tmp_path: Path) -> Path:
    """A data folder in which the demo has run; the test may change it."""
    folder = tmp_path / "demo-data"
    shutil.copytree(demo_origin[0], folder)
    return folder


LAB = """
from pathlib import Path

from crucible_lineage import step


@step(measurement="counting", data_type="scaled")
def scale(counts: Path, *, factor: float = 2.0, out: Path) -> dict:
    values = [float(line) * factor for line in counts.read_text().split()]
    (out / "scaled.txt").write_text("\\n".join(map(str, values)))
    return {"factor": factor}


@step(measurement="counting", data_type="sum")
def add(left: Path, right: Path, *, out: Path) -> dict:
    total = sum(float(line) for path in (left, right) for line in path.read_text().split())
    (out / "total.txt").write_text(str(total))
    (out / "note.txt").write_text("both added")
    return {"total": total}


@step(outputs=("low", "high"))
def split(counts: Path, *, at: float = 2.5, low: Path, high: Path) -> dict:
    values = [float(line) for line in counts.read_text().split()]
    (low / "low.txt").write_text(" ".join(str(v) for v in values if v < at))
    (high / "high.txt").write_text(" ".join(str(v) for v in values if v >= at))
    return {"low": {"at": at}, "high": {"at": at}}


@step
def fail(counts: Path, *, out: Path) -> dict:
    raise RuntimeError("the lamp was off")
"""

PIPELINE = """
pipeline: counting
project: lab
inputs:
  first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
  second: {file: second.txt, timestamp: "2024-05-01T12:05:00Z"}
steps:
  scaled:
    uses: LABMODULE:scale
    inputs: {counts: first}
    params: {factor: 3}
  total:
    uses: LABMODULE:add
    inputs: {left: scaled, right: second}
"""


LAB_PREFIX = "lab_"  # of modules whose names no other test has


class Laboratory:
    """A folder with measured files, a module of steps under a name of its own, and a pipeline."""

    def __init__(self, folder: Path, module: str) -> None:
        self.folder = folder
        self.module = module
        folder.mkdir(parents=True)
        self.file("first.txt", "1\n2\n3\n")
        self.file("second.txt", "10\n")
        self.file(f"{module}.py", LAB)
        self.pipeline = self.declare(PIPELINE)

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def declare(self, text: str, name: str = "pipeline.yaml") -> Path:
        """A pipeline file; LABMODULE in it stands for this laboratory's module."""
        return self.file(name, textwrap.dedent(text).replace("LABMODULE", self.module))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Laboratory]:
    """A laboratory whose module is imported by no other test."""
    module = f"{LAB_PREFIX}{abs(hash(tmp_path))}"
    before = list(sys.path)
    yield Laboratory(tmp_path / "lab", module)
    sys.modules.pop(module, None)
    sys.path[:] = before


NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # to read their certificates takes longer than a request


class PrefectServer:
    """A real Prefect server as a process of its own, with a home that goes away with it.

    It begins with a copy of the database, if there is one already.
    """

    def __init__(self, home: Path, database: Path) -> None:
        self.database = home / "prefect.db"
        if database.exists():
            home.mkdir()
            shutil.copyfile(database, self.database)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/api"
        self.environment = {
            **os.environ,
            "PREFECT_HOME": str(home),
            "XDG_DATA_HOME": str(home / "share"),  # of flows that are given no data folder
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PREFECT_LOGGING_TO_API_ENABLED": "false",  # nobody reads them there
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",  # and not 60: runs to come are what tests wait for
            "PREFECT_WORKER_QUERY_SECONDS": "1",  # likewise, and not 10
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        }
        self.log = home.parent / "prefect-server.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if httpx.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.2)
        raise AssertionError(f"no Prefect server within {seconds} s: {self.log.read_text()}")

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """An answer that is not "try again": Prefect on SQLite says 503 while another holds the file."""
        end = time.monotonic() + 60
        while True:
            answer = httpx.request(method, f"{self.url}/{path}", json=body, timeout=60, verify=NO_AUTHORITIES)
            if answer.status_code != 503 or time.monotonic() > end:
                return answer
            time.sleep(0.5)

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def prefect_database(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a new database of Prefect's is kept once a server has made one, which takes seconds of a core."""
    name = f"prefect-{version('prefect')}"
    cache = getattr(pytestconfig, "cache", None)
    folder: Path = cache.mkdir(name) if cache else tmp_path_factory.mktemp(name)
    return folder / "prefect.db"


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory, prefect_database: Path) -> Iterator[PrefectServer]:
    """One Prefect server for the whole session."""
    home = tmp_path_factory.mktemp("prefect") / "home"
    with FileLock(f"{prefect_database}.lock"):  # the first of the tests' processes makes the database
        server = PrefectServer(home, prefect_database)
        try:
            server.wait(180)
            if not prefect_database.exists():
                copy = prefect_database.with_name("copy.db")
                with closing(sqlite3.connect(server.database)) as made, closing(sqlite3.connect(copy)) as kept:
                    made.backup(kept)
                copy.replace(prefect_database)
        except BaseException:
            server.close()
            raise
    yield server
    server.close()


class Prefect:
    """The server of the session, as a user's program or the command line sees it."""

    def __init__(self, server: Any, python: WarmPython) -> None:
        self.url = server.url
        self.environment = server.environment
        self.ask = server.ask
        self._python = python

    def post(self, path: str, body: Any = None) -> Any:
        answer = self.ask("POST", path, body or {})
        assert answer.is_success, answer.text
        return answer.json()

    def python(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a Python program that reaches the server."""
        return self._python.run(
            [str(argument) for argument in arguments], {**self.environment, **environment}, timeout=300
        )

    def run(self, code: str, *arguments: object, **environment: str) -> Any:
        """What the last line printed by a program says, as JSON."""
        ran = self.python("-c", code, *arguments, **environment)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout.splitlines()[-1])

    def command(self, *arguments: str, cwd: Path | None = None) -> str:
        """What `prefect ...` prints."""
        ran = self._python.run(["-m", "prefect", "--no-prompt", *arguments], self.environment, cwd, timeout=300)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def deployments(self, name: str) -> list[Any]:
        found: list[Any] = self.post("deployments/filter", {"deployments": {"name": {"any_": [name]}}})
        return found

    def automations(self, name: str) -> list[Any]:
        return [found for found in self.post("automations/filter") if found["name"].startswith(f"{name} on ")]

    def events(self, prefix: str, is_meant: Callable[[Any], bool]) -> list[Any]:
        page = self.post("events/filter", {"filter": {"event": {"prefix": [prefix]}}})
        found = page["events"]
        while page["next_page"]:  # fifty each, and the tests of a session share one server
            answer = self.ask("GET", page["next_page"].removeprefix(f"{self.url}/"))
            assert answer.is_success, answer.text
            page = answer.json()
            found += page["events"]
        return [event for event in found if is_meant(event)]

    def runs(self, deployment_id: str, kind: str | None = None) -> list[Any]:
        """Flow runs of a deployment; of one kind, as AUTOMATION or SCHEDULE."""
        asked = {"flow_runs": {"deployment_id": {"any_": [deployment_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
        found = self.post("flow_runs/filter", asked)
        return [run for run in found if kind is None or (run["created_by"] or {}).get("type") == kind]


@pytest.fixture(scope="session")
def unfinish() -> Callable[[Any, str], None]:
    """The function that makes a dataset what it is while its registration is under way."""

    def change(client: Any, mfid: str) -> None:
        metadata = client.datasets.get(mfid, include_metadata=True).scientific_metadata
        begun = {**metadata["crucible_lineage"], "status": "incomplete", "completed": {}}
        client.metadata.replace(mfid, {**metadata, "crucible_lineage": begun})

    return change


@pytest.fixture(scope="session")
def prefect(prefect_server: Any, warm_python: WarmPython) -> Prefect:
    return Prefect(prefect_server, warm_python)


@pytest.fixture(scope="session")
def other_python() -> str:
    """An interpreter of another version than this one."""
    for name in ("python3.13", "python3.12", "python3.11", "/usr/bin/python3"):
        found = shutil.which(name)
        if found is None:
            continue
        asked = subprocess.run(
            [found, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=False
        )
        version = tuple(map(int, asked.stdout.split())) if asked.returncode == 0 else ()
        if version >= (3, 11) and version != sys.version_info[:2]:
            return found
    pytest.skip("there is no second Python of version 3.11 or later on PATH")


class Records:
    """Makes datasets in a project, and notes every call that is sent meanwhile."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.client = session.client
        session.ensure_project("demo")

    def dataset(self, name: str, *parents: str, **fields: object) -> str:
        made = self.client.datasets.create({"dataset_name": name, "project_id": "demo", **fields}).dsid
        for parent in parents:
            self.client.datasets.link_parent_child(parent, made, "is_derived_from")
        return made

    def chain(self, length: int) -> list[str]:
        """Datasets that come from one another."""
        made: list[str] = []
        for number in range(length):
            made.append(self.dataset(f"frame {number}", *made[-1:]))
        return made

    def hold(self, lab: Any) -> Any:
        """All that a laboratory has made is in Crucible, too; gives its graph."""
        for mfid, record in lab.records.items():
            if record["resource_type"] == "sample":
                self.client.samples.create(unique_id=mfid, sample_name=record["sample_name"], project_id="demo")
                continue
            names = ("dataset_name", "measurement", "data_type", "timestamp", "session_name", "instrument_name")
            fields = {name: record[name] for name in names if name in record}
            metadata = record["scientific_metadata"] or None
            self.client.datasets.create(
                {"unique_id": mfid, "project_id": "demo", **fields}, scientific_metadata=metadata
            )
        for edge in lab.graph.edges.values():
            if edge.relationship == "measured-from":
                self.client.datasets.add_sample(edge.target, edge.source)
            else:
                self.client.datasets.link_parent_child(edge.source, edge.target, edge.relationship or None)
        return lab.graph

    def delete(self, mfid: str) -> None:
        self.client.deletions.delete(mfid, force=True, elevated=True)

    @contextmanager
    def counted(self) -> Iterator[list[str]]:
        """The calls sent within, each with its path and query."""
        calls: list[str] = []
        self.client._api.event_hooks = {"request": [lambda request: calls.append(str(request.url.raw_path, "ascii"))]}
        yield calls
        self.client._api.event_hooks = {}


@pytest.fixture
def records(session: Session) -> Records:
    """An empty project `demo` in an embedded Crucible."""
    return Records(session)


@pytest.fixture
def colleague(made: Any, tmp_path: Path) -> Iterator[Session]:
    """Provide the session of a user who may only read the project `lab`."""
    made.sql("INSERT INTO user (unique_id, first_name, last_name) VALUES ('0000-0002-1825-0097', 'Ada', 'L')")
    hashed = hashlib.sha256(b"colleague-key").hexdigest()
    made.sql("INSERT INTO api_key SELECT ?, id, '2024' FROM user WHERE first_name = 'Ada'", hashed)
    made.sql(
        "INSERT INTO member (project_id, user_id, role) SELECT resource.id, user.id, 1 FROM resource, user"
        " WHERE slug = 'lab' AND first_name = 'Ada'"
    )
    with Session(Settings(tmp_path / "hers", made.session.client.api_url, "colleague-key")) as session:
        yield session
