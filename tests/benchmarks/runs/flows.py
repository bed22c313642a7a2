"""What a step costs on Prefect beside a bare Prefect task, in calls and CPU; and whether many runs make memory grow.

    python tests/benchmarks/runs/flows.py [--count 20] [--rounds 3] [--runs 200]

PREFECT_API_URL is set to a server that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import resource  # Linux and macOS
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import httpx
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from crucible_lineage.flows import run_pipeline
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.run.result import StepChoice
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.tasks.sessions import CrucibleConnection

sys.path.append(str(Path(__file__).parents[1]))
from measure import Place, embedded_crucible, heading

STEP = """
from pathlib import Path
from crucible_lineage import step


@step
def copied(scan: Path, *, out: Path) -> dict:
    (out / "copy.txt").write_text(scan.read_text())
    return {}
"""
PIPELINE = """
pipeline: flow-benchmark
project: benchmark
inputs:
  scan: {file: "scan-*.txt", each: true, known_since: "2024-05-01T12:00:00Z"}
steps:
  copied: {uses: "benchmark_steps:copied", inputs: {scan: scan}}
"""


@task(cache_policy=NO_CACHE)
def bare(source: str, target: str) -> None:
    Path(target).write_text(Path(source).read_text())


@flow
def bare_flow(folder: str) -> None:
    made = [bare.submit(str(path), f"{path}.copy") for path in sorted(Path(folder).glob("scan-*.txt"))]
    for future in made:
        future.result()


def main() -> None:
    given = parsed()
    print(heading())
    with tempfile.TemporaryDirectory() as folder, embedded_crucible(Path(folder) / "service") as place:
        os.environ["CRUCIBLE_API_KEY"] = place.api_key
        lab = Path(folder) / "lab"
        lab.mkdir()
        (lab / "benchmark_steps.py").write_text(STEP)
        (lab / "pipeline.yaml").write_text(PIPELINE)
        compare(lab, place, given.count, given.rounds)
        watch_memory(lab, place, given.runs)


def compare(lab: Path, place: Place, count: int, rounds: int) -> None:
    """The same number of tasks, bare and registered; new files in each round, so that nothing is there already."""
    costs: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
    calls: list[int] = []
    for number in range(rounds):
        for index in range(count):
            (lab / f"scan-{index}.txt").write_text(f"{number} {index}")
        connection = CrucibleConnection(data=str(lab / "data"), api_url=place.url)
        costs["bare"].append(measured(lambda: bare_flow(str(lab))))
        with counted(place.url) as counter:
            ours = measured(lambda: run_pipeline(str(lab / "pipeline.yaml"), connection, return_state=True))  # noqa: B023
        costs["ours"].append(ours)
        calls.append(counter.calls)
    ms = {who: [1000 * median(part) / count for part in zip(*found, strict=True)] for who, found in costs.items()}
    print("\n| a step | wall, ms | client CPU, ms |\n|---|---|---|")
    for who in ("bare", "ours"):
        print(f"| {who} | {ms[who][0]:.0f} | {ms[who][1]:.1f} |")
    print(f"| ratio | {ms['ours'][0] / ms['bare'][0]:.1f} | {ms['ours'][1] / ms['bare'][1]:.1f} |")
    print(
        f"\ntasks a step: 1; Crucible calls a step, its raw file's registration included: {median(calls) / count:.1f}"
    )


def watch_memory(lab: Path, place: Place, runs: int) -> None:
    """Resident memory after a tenth of the runs and after all; each run makes one step again."""
    for path in sorted(lab.glob("scan-*.txt"))[1:]:
        path.unlink()
    after: list[int] = []
    with Session(Settings(lab / "data", place.url, place.api_key)) as session:
        for number in range(runs):
            bound = bind_file(lab / "pipeline.yaml", session.store)
            choice = StepChoice(forced=("copied",))
            result = plan_and_run(bound, session, lambda: LocalEngine(session, 2), lambda event: None, choice)
            assert result.executed, result.errors
            if number + 1 in (runs // 10, runs):
                after.append(resident_kib())
    print(f"\nmemory after {runs // 10} and after {runs} runs: {after[0] / 1024:.1f} and {after[1] / 1024:.1f} MiB")


def measured(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


class counted:
    """Counts this process's requests to one server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.calls = 0

    def __enter__(self) -> counted:
        self.send = httpx.Client.send

        def send(client: httpx.Client, request: httpx.Request, **options: object) -> httpx.Response:
            self.calls += str(request.url).startswith(self.url)
            return self.send(client, request, **options)  # type: ignore[arg-type]

        httpx.Client.send = send  # type: ignore[method-assign,assignment]
        return self

    def __exit__(self, *failure: object) -> None:
        httpx.Client.send = self.send  # type: ignore[method-assign]


def resident_kib() -> int:
    """Memory in use now; where the system does not tell, the most there ever was."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmRSS")).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("count", 20), ("rounds", 3), ("runs", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    if not os.environ.get("PREFECT_API_URL"):
        sys.exit("set PREFECT_API_URL: an ephemeral Prefect server would share this process's CPU")
    return parser.parse_args()


if __name__ == "__main__":
    main()
