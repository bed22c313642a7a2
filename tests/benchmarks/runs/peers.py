"""The cost of declared pipelines beside other tools: first run, no-op, one leaf changed, the root changed.

    python tests/benchmarks/runs/peers.py --tools ours,doit,snakemake --sizes 100,1000

Each tool is installed into an environment of its own in `--folder`, once. Every step reads its parents' files of 10 kB
and writes one. CPU is user and system time of the whole process tree; ratios are to ours.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

PINS = {"doit": "doit==0.37.0", "snakemake": "snakemake==9.27.1"}
PHASES = ("first", "noop", "leaf", "root")

WORK = '''"""One step of the benchmark: mixes its parents' bytes."""
import hashlib
import sys
from pathlib import Path


def mix(number, sources, target):
    digest = hashlib.sha256(str(number).encode())
    for path in sources:
        digest.update(Path(path).read_bytes())
    Path(target).write_bytes((digest.hexdigest() * 157)[:10_000].encode())


if __name__ == "__main__":
    mix(int(sys.argv[1]), sys.argv[3:], sys.argv[2])
'''


@dataclass(frozen=True)
class Graph:
    """Steps by number with what each reads: other steps, and the files root.dat and leaf.dat."""

    parents: Sequence[Sequence[int]]

    def sources(self, number: int) -> list[str]:
        """The files that a step reads."""
        files = [f"out/s{parent}.dat" for parent in self.parents[number]] or ["root.dat"]
        return [*files, "leaf.dat"] if number == len(self.parents) - 1 else files


def graph_of(shape: str, size: int) -> Graph:
    """A chain, or ten layers of steps with three parents each."""
    if shape == "chain":
        return Graph([[number - 1] if number else [] for number in range(size)])
    width = size // 10
    return Graph(
        [
            [] if number < width else [(number // width - 1) * width + (number + step) % width for step in range(3)]
            for number in range(size)
        ]
    )


@dataclass(frozen=True)
class Tool:
    """How a tool declares a graph, and how it is run."""

    name: str
    declare: Callable[[Graph, Path], None]
    command: Callable[[Path, Path], list[str]]  # folder of the environment, folder of the work
    environment: Mapping[str, str]


def declare_ours(graph: Graph, folder: Path) -> None:
    steps = '''"""The benchmark's step."""
from pathlib import Path

from crucible_lineage import step
from work import mix as work


@step
def mix(sources: list[Path], *, number: int, out: Path) -> dict:
    work(number, sources, out / "out.dat")
    return {}
'''
    (folder / "bench_steps.py").write_text(steps)
    file = '{{file: {0}.dat, timestamp: "2024-05-01T12:00:00Z", ingest: false}}'
    lines = ["pipeline: bench", "project: bench", "inputs:"]
    lines += [f"  {name}: {file.format(name)}" for name in ("root", "leaf")]
    lines.append("steps:")
    for number in range(len(graph.parents)):
        names = [source.removeprefix("out/").removesuffix(".dat") for source in graph.sources(number)]
        inputs = f"{{sources: [{', '.join(names)}]}}"
        lines.append(f'  s{number}: {{uses: "bench_steps:mix", inputs: {inputs}, params: {{number: {number}}}}}')
    (folder / "pipeline.yaml").write_text("\n".join(lines) + "\n")


def _doit(graph: Graph, folder: Path) -> None:
    lines = ["from work import mix", "", "", "def task_mix():"]
    for number in range(len(graph.parents)):
        sources, target = graph.sources(number), f"out/s{number}.dat"
        lines.append(
            f"    yield {{'name': '{number}', 'actions': [(mix, [{number}, {sources!r}, {target!r}])],"
            f" 'file_dep': {sources!r}, 'targets': [{target!r}]}}"
        )
    (folder / "dodo.py").write_text("\n".join(lines) + "\n")


def _snakemake(graph: Graph, folder: Path) -> None:
    targets = [f"out/s{number}.dat" for number in range(len(graph.parents))]
    lines = [f"rule all:\n    input: {targets!r}\n"]
    for number, target in enumerate(targets):
        sources = graph.sources(number)
        shell = f"{sys.executable} work.py {number} {{output}} {{input}}"
        lines.append(f"rule s{number}:\n    input: {sources!r}\n    output: {target!r}\n    shell: {shell!r}\n")
    (folder / "Snakefile").write_text("\n".join(lines))


def tools(folder: Path, cores: int) -> dict[str, Tool]:
    asked = ["run", "pipeline.yaml", "--json", "--data"]
    ours = [sys.executable, "-m", "crucible_lineage", *asked]
    return {
        "ours": Tool("ours", declare_ours, lambda _, work: [*ours, str(work / "data"), "--engine", "local"], {}),
        "doit": Tool("doit", _doit, lambda env, _: [str(env / "bin" / "doit"), "-v0"], {}),
        "snakemake": Tool(
            "snakemake",
            _snakemake,
            lambda env, _: [str(env / "bin" / "snakemake"), "--cores", str(cores), "--quiet", "all"],
            {},
        ),
    }


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU and by the clock, and peak memory in MiB, of a process and what it started."""

    cpu_s: float
    wall_s: float
    peak_mib: float


def measured(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Cost:
    """What the command cost. RuntimeError if it failed."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    log = folder.parent / "log.txt"
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**kept, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {log.read_text(errors='replace')[-2000:]}")
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - started, usage.ru_maxrss / 1024)


def prepared(work: Path, declare: Callable[[Graph, Path], None], graph: Graph) -> Path:
    """The folder, made anew with a declared graph and its input files."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "out").mkdir(parents=True)
    (work / "work.py").write_text(WORK)
    (work / "root.dat").write_text("root\n" * 2000)
    (work / "leaf.dat").write_text("leaf\n" * 2000)
    declare(graph, work)
    return work


def phases(tool: Tool, graph: Graph, folder: Path, repeats: int) -> Iterator[tuple[str, Cost]]:
    """The phases one after the other, in a fresh folder."""
    work = prepared(folder / "work", tool.declare, graph)
    command = tool.command(folder / tool.name, work)
    yield "first", measured(command, work, tool.environment)
    for _ in range(repeats):
        yield "noop", measured(command, work, tool.environment)
    for number in range(repeats):
        (work / "leaf.dat").write_text(f"leaf {number}\n" * 2000)
        yield "leaf", measured(command, work, tool.environment)
    (work / "root.dat").write_text("root 2\n" * 2000)
    yield "root", measured(command, work, tool.environment)


def install(tool: str, folder: Path) -> None:
    """The tool is in an environment of its own."""
    if tool in PINS and not (folder / tool).exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / tool)], check=True)
        pip = [str(folder / tool / "bin" / "python"), "-m", "pip", "install", "--quiet", PINS[tool]]
        subprocess.run(pip, check=True)


def table(rows: Mapping[tuple[int, str], Mapping[str, list[Cost]]]) -> Iterator[str]:
    """Median CPU seconds, by the clock, and the ratio of CPU to ours; lines of Markdown."""
    yield "| steps | tool | " + " | ".join(PHASES) + " | peak MiB |"
    yield "|---|---|" + "---|" * (len(PHASES) + 1)
    for (size, tool), costs in rows.items():
        ours = rows.get((size, "ours"), {})
        cells = []
        for phase in PHASES:
            if phase not in costs:
                cells.append("-")
                continue
            cpu, wall = (median(getattr(cost, part) for cost in costs[phase]) for part in ("cpu_s", "wall_s"))
            base = median(cost.cpu_s for cost in ours[phase]) if phase in ours else None
            ratio = f" ({cpu / base:.2g}x)" if base and tool != "ours" else ""
            cells.append(f"{cpu:.3g} / {wall:.3g}{ratio}")
        peak = max(cost.peak_mib for found in costs.values() for cost in found)
        yield f"| {size} | {tool} | {' | '.join(cells)} | {peak:.0f} |"


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", default="ours,doit,snakemake")
    parser.add_argument("--sizes", default="100,1000")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=1, help="Snakemake's; ours takes all that there are")
    parser.add_argument("--folder", type=Path, default=Path("benchmark-peers"))
    asked = parser.parse_args()
    folder = asked.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    known = tools(folder, asked.cores)
    rows: dict[tuple[int, str], dict[str, list[Cost]]] = {}
    for name in asked.tools.split(","):
        install(name, folder)
    for size in map(int, asked.sizes.split(",")):
        for name in asked.tools.split(","):
            costs = rows.setdefault((size, name), {})
            for phase, cost in phases(known[name], graph_of("layered", size), folder, asked.repeats):
                costs.setdefault(phase, []).append(cost)
                print(f"{size} {name} {phase}: {cost}", file=sys.stderr)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
