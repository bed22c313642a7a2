"""How many small datasets a second `process-new` brings to their results, with 1, 2 and 4 workers at once.

    python tests/benchmarks/runs/process_new.py [--count 1000] [--workers 1,2,4]

PREFECT_API_URL is set to a server that does nothing else. Each worker is a process with a data folder of its own, as a
machine would be; they share the Prefect server and a Crucible.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil

from crucible_lineage.pipeline.inputs.existing import hash_files
from crucible_lineage.pipeline.inputs.register import register_raw
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

sys.path.append(str(Path(__file__).parents[1]))
from measure import Place, embedded_crucible, heading

STEP = """
from pathlib import Path
from crucible_lineage import step


@step(data_type="scaled")
def scaled(counts: Path, *, factor: float, out: Path) -> dict:
    (out / "scaled.txt").write_text(str(float(counts.read_text()) * factor))
    return {"factor": factor}
"""
PIPELINE = """
pipeline: throughput
project: benchmark
inputs:
  counts: {select: {measurement: counting, data_type: raw}, each: true}
steps:
  scaled: {uses: "benchmark_steps:scaled", inputs: {counts: counts}, params: {factor: FACTOR}}
"""
WORKER = """
import json, resource, sys
from crucible_lineage.flows import process_new
from crucible_lineage.tasks import CrucibleConnection
print("ready", flush=True)
sys.stdin.readline()
state = process_new(sys.argv[1], crucible=CrucibleConnection(data=sys.argv[2], api_url=sys.argv[3]), return_state=True)
executed = len([1 for outcome in state.result()["outcomes"].values() if outcome == "executed"])
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([executed, used.ru_utime + used.ru_stime, used.ru_maxrss]), flush=True)
"""


def main() -> None:
    given = parsed()
    print(heading())
    with tempfile.TemporaryDirectory() as name, embedded_crucible(Path(name) / "service") as place:
        lab = Path(name) / "lab"
        lab.mkdir()
        (lab / "benchmark_steps.py").write_text(STEP)
        os.environ["CRUCIBLE_API_KEY"] = place.api_key
        start = time.perf_counter()
        register(lab, place, given.count)
        print(f"{given.count} raw datasets registered in {time.perf_counter() - start:.0f} s", flush=True)
        print(
            "\n| workers | datasets a second | clock, s | worker CPU, ms each | Crucible CPU, ms each | largest MiB |"
        )
        print("|---|---|---|---|---|---|")
        for number, workers in enumerate(given.workers):
            settle()
            measure(lab, place, given.count, workers, factor=number + 2)


def register(lab: Path, place: Place, count: int) -> None:
    """So many raw datasets of one small file each."""
    with Session(Settings(lab / "data", place.url, place.api_key)) as session:

        def one(number: int) -> None:
            path = lab / f"{number}.txt"
            path.write_text(str(number))
            declared = FileInput(file=str(path), measurement="counting", data_type="raw", ingest=False)
            register_raw(hash_files("benchmark", [path], None, session), declared, path.name, session)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, range(count)))


def measure(lab: Path, place: Place, count: int, workers: int, factor: int) -> None:
    """The pipeline with another factor, so that nothing is there yet; all workers begin at once."""
    path = lab / "pipeline.yaml"
    path.write_text(PIPELINE.replace("FACTOR", str(factor)))
    service = next(one for one in psutil.Process().children() if "serve" in one.cmdline())
    before = cpu_s(service)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), str(lab / f"data-{workers}-{number}"), place.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(workers)
    ]
    for one in started:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    start = time.perf_counter()
    for one in started:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    told = [json.loads(one.communicate()[0].splitlines()[-1]) for one in started]
    wall = time.perf_counter() - start
    executed, cpu, largest = (list(part) for part in zip(*told, strict=True))
    print(
        f"| {workers} | {count / wall:.1f} | {wall:.0f} | {1000 * sum(cpu) / count:.0f} "
        f"| {1000 * (cpu_s(service) - before) / count:.0f} | {max(largest) / 1024:.0f} |",
        flush=True,
    )
    print(f"  made by each: {executed}, {sum(executed) - count} of them twice", file=sys.stderr, flush=True)


def settle() -> None:
    """Prefect has digested the events of the tasks so far, which takes it longer than running them."""
    before, since = -1, time.monotonic()
    while time.monotonic() - since < 10:
        now = httpx.post(f"{os.environ['PREFECT_API_URL']}/task_runs/count", json={}, timeout=300).json()
        if now != before:
            before, since = now, time.monotonic()
        time.sleep(1)


def cpu_s(process: psutil.Process) -> float:
    """Of a process and of those that it has waited for."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--workers", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 4])
    if not os.environ.get("PREFECT_API_URL"):
        sys.exit("set PREFECT_API_URL: an ephemeral Prefect server would share a worker's CPU")
    return parser.parse_args()


if __name__ == "__main__":
    main()
