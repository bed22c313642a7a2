"""A flow of small tasks on Prefect, bare and registering in turn: CPU of all processes, and seconds by the clock.

    python tests/benchmarks/runs/flows.py [--tasks 100] [--rounds 5]

Each registering run begins with an empty data folder. Linux counts the CPU of processes that outlive their parent.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

from peers import prefect_settings

sys.path.append(str(Path(__file__).parents[1]))
from measure import arguments

FLOW = """import sys
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


def measured(command: list[str], folder: str, **settings: str) -> tuple[float, float]:
    """CPU of all that the command starts, also of the embedded Crucible, which outlives it; and its time."""
    ctypes.CDLL(None).prctl(36, 1)  # Linux's PR_SET_CHILD_SUBREAPER
    before, started = sum(os.times()[2:4]), time.monotonic()
    subprocess.run(command, cwd=folder, env={**os.environ, **settings}, check=True, stdout=subprocess.DEVNULL)
    wall_s = time.monotonic() - started
    with suppress(ChildProcessError):
        while True:
            os.wait()
    return sum(os.times()[2:4]) - before, wall_s


def main() -> None:
    given = arguments(tasks=100, rounds=5)
    costs: dict[str, list[tuple[float, float]]] = {"bare": [], "registering": []}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "small.py").write_text(FLOW)
        settings = prefect_settings(Path(folder))
        for number in range(given.rounds + 1):
            for kind, known in costs.items():
                data = {"CRUCIBLE_LINEAGE_DATA": f"{folder}/data-{number}"}
                count = str(given.tasks if number else 1)  # the first round migrates Prefect's database
                cost = measured([sys.executable, "small.py", kind, count], folder, **settings, **data)
                known += [cost] if number else []
    print(f"| {given.tasks} tasks | CPU, s | wall, s |\n|---|---|---|")
    for kind, known in costs.items():
        print(f"| {kind} | {median(cpu_s for cpu_s, _ in known):.1f} | {median(wall_s for _, wall_s in known):.1f} |")
    pairs = list(zip(costs["bare"], costs["registering"], strict=True))
    cpu, wall = (median(ours[part] / bare[part] for bare, ours in pairs) for part in (0, 1))
    print(f"| ratio | {cpu:.2f} | {wall:.2f} |")


if __name__ == "__main__":
    main()
