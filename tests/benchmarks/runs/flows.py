"""Flows on Prefect, bare and ours in turn: small tasks, and steps of files. CPU of all processes, each, and the clock.

    python tests/benchmarks/runs/flows.py [--count 100] [--rounds 3]

Prefect's server runs before and after; to each run counts its CPU until it is idle again, beyond that of an idle one.
Each run of ours begins with an empty data folder. Linux counts the CPU of processes that outlive their parent. Steps
of the bare flow are functions in threads of its process; ours are called in processes of their own.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.error import URLError
from urllib.request import urlopen

from peers import Graph, declare_ours, graph_of, prepared

sys.path.append(str(Path(__file__).parents[1]))
from measure import arguments

SMALL = """import sys
from prefect import flow, task


@task
def add(number, *parts):
    return {"number": number, "sum": number * 1.5 + sum(part["sum"] for part in parts)}


def body():
    sums = []
    for number in range(int(sys.argv[2])):
        sums.append(add.submit(number, *sums[-10:-8]))
    return [each.result() for each in sums][-1]["sum"]


if sys.argv[1] == "registering":
    from crucible_lineage.tasks import registering

    body = registering("bench")(body)
flow(name="bench")(body)()
"""


def declare_small(_: Graph, folder: Path) -> None:
    (folder / "small.py").write_text(SMALL)


def declare_bare(graph: Graph, folder: Path) -> None:
    table = {number: graph.sources(number) for number in range(len(graph.parents))}
    (folder / "bare_flow.py").write_text(
        f"""from prefect import flow, task
from work import mix

SOURCES = {table!r}
PARENTS = {list(map(list, graph.parents))!r}


@task
def step(number, sources, target):
    mix(number, sources, target)
    return number


@flow
def bench():
    futures = []
    for number, sources in SOURCES.items():
        waits = [futures[parent] for parent in PARENTS[number]]
        futures.append(step.submit(number, sources, f"out/s{{number}}.dat", wait_for=waits))
    for future in futures:
        future.result()


if __name__ == "__main__":
    bench()
"""
    )


PARTS = {  # by a word of the command line; the others are the flow's process
    **{"server.running": "Crucible", "server.ingest": "ingestion"},
    **{"supervisor.py": "supervisors", "processes.child": "steps"},
}


@dataclass
class Cost:
    """CPU of all that a command starts, also of the embedded Crucible, which outlives it; its time; CPU by part."""

    cpu_s: float
    wall_s: float
    parts: Counter[str]


class PrefectServer:
    """A server of Prefect that lives on, and what it costs while nobody asks."""

    IDLE_S = 4.0  # its services look around every few seconds

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._idle = 0.0
        self._idle = min(self._cpu_in(self.IDLE_S) for _ in range(3))

    def cpu_s(self) -> float:
        """Return its CPU so far, without that of an idle server."""
        fields = self._stat.read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK") - self._idle * time.monotonic()

    def wait_until_idle(self) -> None:
        """Wait until it has worked off what it was told."""
        while self._cpu_in(self.IDLE_S) > 0.03:
            pass

    def _cpu_in(self, seconds: float) -> float:
        """Return its CPU per second, for so many."""
        before = self.cpu_s()
        time.sleep(seconds)
        return (self.cpu_s() - before) / seconds


@contextmanager
def prefect_server(settings: Mapping[str, str]) -> Iterator[tuple[PrefectServer, str]]:
    """Start a server that is no child of this process, and stop it after the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command, env = [sys.executable, "-m", "prefect", "server"], {**os.environ, **settings}
    started = [*command, "start", "--background", "--port", port]
    subprocess.run(started, env=env, check=True, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/api"
    try:
        for _ in range(600):  # it makes its database first
            with suppress(URLError), urlopen(f"{address}/health"):
                break
            time.sleep(0.2)
        yield PrefectServer(int((Path(settings["PREFECT_HOME"]) / "server.pid").read_text())), address
    finally:
        subprocess.run([*command, "stop"], env=env, check=True, stdout=subprocess.DEVNULL)


def watch(parts: dict[int, tuple[str, float]], ended: threading.Event) -> None:
    """Note part and CPU of each descendant; those of its last tenth of a second are missed."""
    tick = os.sysconf("SC_CLK_TCK")
    while not ended.wait(0.1):
        found: dict[int, tuple[int, float, str]] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                command = (folder / "cmdline").read_text().replace("\0", " ")
                found[int(folder.name)] = int(fields[1]), sum(map(int, fields[11:13])) / tick, command
        known = {os.getpid()}
        while new := {pid for pid, (parent, *_) in found.items() if parent in known} - known:
            known |= new
        for pid in known - {os.getpid()}:
            part = next((part for word, part in PARTS.items() if word in found[pid][2]), "flow")
            parts[pid] = part if found[pid][2] else parts.get(pid, ("flow",))[0], found[pid][1]


def measured(
    command: Sequence[str], folder: Path, settings: Mapping[str, str], server: PrefectServer | None = None
) -> Cost:
    """What the command cost, and meanwhile the server. CalledProcessError if it failed."""
    ctypes.CDLL(None).prctl(36, 1)  # Linux's PR_SET_CHILD_SUBREAPER
    parts: dict[int, tuple[str, float]] = {}
    ended = threading.Event()
    watcher = threading.Thread(target=watch, args=(parts, ended))
    watcher.start()
    before, served, started = sum(os.times()[2:4]), server.cpu_s() if server else 0.0, time.monotonic()
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # as installed
    try:
        subprocess.run(command, cwd=folder, env={**kept, **settings}, check=True, stdout=subprocess.DEVNULL)
        wall_s = time.monotonic() - started
        with suppress(ChildProcessError):
            while True:
                os.wait()
    finally:
        ended.set()
        watcher.join()
    by_part: Counter[str] = Counter()
    for part, cpu_s in parts.values():
        by_part[part] += cpu_s  # type: ignore[assignment]  # seconds are counted too
    if server:
        server.wait_until_idle()
        by_part["Prefect's server"] = server.cpu_s() - served  # type: ignore[assignment]
    return Cost(sum(os.times()[2:4]) - before + by_part["Prefect's server"], wall_s, by_part)


def main() -> None:
    given = arguments(count=100, rounds=3)
    pipeline = [sys.executable, "-m", "crucible_lineage", "run", "pipeline.yaml", "--engine", "prefect"]
    kinds = {
        "small tasks, bare": (declare_small, [sys.executable, "small.py", "bare", str(given.count)]),
        "small tasks, registering": (declare_small, [sys.executable, "small.py", "registering", str(given.count)]),
        "steps, bare": (declare_bare, [sys.executable, "bare_flow.py"]),
        "steps, declared": (declare_ours, pipeline),
    }
    costs: dict[str, list[Cost]] = {kind: [] for kind in kinds}
    own = {"DO_NOT_TRACK": "1", "PREFECT_LOGGING_LEVEL": "ERROR", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with (
        tempfile.TemporaryDirectory() as folder,
        prefect_server({**own, "PREFECT_HOME": f"{folder}/prefect"}) as (server, address),
    ):
        data = {"PREFECT_HOME": f"{folder}/prefect", "CRUCIBLE_LINEAGE_DATA": f"{folder}/runs/data"}
        settings = {**own, **data, "PREFECT_API_URL": address}
        work = prepared(Path(folder) / "runs", declare_small, graph_of("layered", given.count))
        measured([sys.executable, "small.py", "registering", "1"], work, settings, server)  # compiles what is new
        for _ in range(given.rounds):
            for kind, (declare, command) in kinds.items():
                work = prepared(work, declare, graph_of("layered", given.count))
                costs[kind].append(measured(command, work, settings, server))
                print(f"{kind}: {costs[kind][-1]}", file=sys.stderr)
    print(f"| {given.count} | CPU, s | wall, s | CPU, ratio | wall, ratio | CPU by process, s |")
    print("|---|---|---|---|---|---|")
    for number, (kind, found) in enumerate(costs.items()):
        bare = list(costs.values())[number // 2 * 2]
        cells = [median(getattr(cost, part) for cost in found) for part in ("cpu_s", "wall_s")]
        cells.append(median(ours.cpu_s / base.cpu_s for ours, base in zip(found, bare, strict=True)))
        cells.append(median(ours.wall_s / base.wall_s for ours, base in zip(found, bare, strict=True)))
        names = {name: None for cost in found for name in cost.parts}
        parts = ", ".join(f"{name} {median(cost.parts[name] for cost in found):.1f}" for name in names)
        print(f"| {kind} | {' | '.join(f'{cell:.2f}' for cell in cells)} | {parts} |")


if __name__ == "__main__":
    main()
