"""Runs against a Crucible that is far away: how much of the time by the clock is waiting for it.

    python tests/benchmarks/runs/distance.py [--shapes chain,layered] [--steps 20,100] [--delay-ms 50] [--log FILE]

Each run is the installed command with a data folder of its own. `--sleep-ms` is what a step does; `bare` is the sum of
that along the longest way. `--log` gets every request of the last run: when, on which connection, how long, what.
Printed beside: how long the command was at work before its first request, and after the last one was answered.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from peers import Graph, graph_of

from crucible_lineage.client import CrucibleClient

sys.path.append(str(Path(__file__).parents[1]))
from measure import PROJECT, embedded_crucible

HERE = Path(__file__).parent

STEP = '''"""The benchmark's step."""
import time
from pathlib import Path

from crucible_lineage import step


@step
def mix(sources: list[Path], *, number: int, sleep_s: float = 0.0, out: Path) -> dict:
    time.sleep(sleep_s)
    (out / "out.txt").write_text(str(number) + sources[0].read_text()[:1000])
    return {"number": number}
'''


def main() -> None:
    given = _arguments()
    print("| shape | steps | delay, ms | wall, s | over bare | CPU of the client, s | requests |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, embedded_crucible(Path(folder) / "there") as place:
        for shape, steps in zip(given.shapes.split(","), map(int, given.steps.split(",")), strict=True):
            took = []
            for number in range(given.rounds):
                work = Path(folder) / f"{shape}-{steps}-{number}"
                project = f"bench-{shape}-{number}"
                with CrucibleClient(place.url, place.api_key) as client:
                    client.projects.create({**PROJECT, "project_id": project})
                _declare(graph_of(shape, steps), work, project, given.sleep_ms / 1000)
                with _far_away(place.url, given.delay_ms, work / "requests") as url:
                    began = time.monotonic()
                    took.append(_run(work, url, place.api_key, given.engine))
                asked = [(float(came) - began, rest) for came, rest in _requests(work / "requests")]
                after = took[-1][0] - max(came + float(rest.split()[1]) for came, rest in asked)
                print(f"  {shape} {steps}: {took[-1]}, {asked[0][0]:.2f} before, {after:.2f} after", file=sys.stderr)
            wall, cpu = (median(one[index] for one in took) for index in (0, 1))
            bare = given.sleep_ms / 1000 * (steps if shape == "chain" else 10)
            over = f"{wall / bare:.2f}" if bare else ""
            print(f"| {shape} | {steps} | {given.delay_ms} | {wall:.2f} | {over} | {cpu:.2f} | {len(asked)} |")
            if given.log:
                Path(given.log).write_text("".join(f"{came:8.3f} {rest}\n" for came, rest in asked))


def _requests(log: Path) -> Iterator[tuple[str, str]]:
    for line in log.read_text().splitlines():
        came, _, rest = line.partition(" ")
        yield came, rest


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="chain,layered")
    parser.add_argument("--steps", default="20,100")
    parser.add_argument("--delay-ms", type=int, default=50)
    parser.add_argument("--sleep-ms", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--log")
    return parser.parse_args()


def _declare(graph: Graph, folder: Path, project: str, sleep_s: float) -> None:
    folder.mkdir()
    (folder / "far_steps.py").write_text(STEP)
    (folder / "root.dat").write_text("root")
    lines = [f"pipeline: bench\nproject: {project}\ninputs:"]
    lines.append('  root: {file: root.dat, timestamp: "2024-05-01T12:00:00Z", ingest: false}\nsteps:')
    for number, parents in enumerate(graph.parents):
        sources = ", ".join(f"s{parent}" for parent in parents) or "root"
        params = f"{{number: {number}, sleep_s: {sleep_s}}}"
        lines.append(f'  s{number}: {{uses: "far_steps:mix", inputs: {{sources: [{sources}]}}, params: {params}}}')
    (folder / "pipeline.yaml").write_text("\n".join(lines) + "\n")


def _run(folder: Path, url: str, key: str, engine: str) -> tuple[float, float]:
    """Seconds by the clock and of CPU, of the whole tree of processes."""
    command = [sys.executable, "-m", "crucible_lineage", "run", "pipeline.yaml", "--engine", engine]
    here = {"CRUCIBLE_API_URL": url, "CRUCIBLE_API_KEY": key, "CRUCIBLE_LINEAGE_DATA": str(folder / "data")}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, cwd=folder, env={**os.environ, **here}, check=True, stdout=subprocess.DEVNULL)
    wall_s, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextmanager
def _far_away(url: str, delay_ms: int, log: Path) -> Iterator[str]:
    command = [sys.executable, str(HERE / "far_away.py"), url, str(delay_ms)]

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield str(json.loads(process.stdout.readline())["url"])
        finally:
            process.terminate()
            log.write_text(process.stdout.read())


if __name__ == "__main__":
    main()
