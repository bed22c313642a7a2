"""What a run costs, beside its aim: five minutes. `make bench` runs it first, then the parts that take long.

    python tests/benchmarks/runs/table.py [--steps 1000] [--rounds 3]

CPU is that of all processes, the embedded Crucible too, where a row says so; else of the command and its children.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median

import peers

import flows

sys.path.append(str(Path(__file__).parents[1]))
from measure import arguments

PROGRAM = [sys.executable, "-m", "crucible_lineage"]


def row(work: str, figure: str, aim: str) -> None:
    print(f"| {work} | {figure} | {aim} |", flush=True)


def per_step(folder: Path) -> float:
    """CPU of all processes for a further registered step, in ms; what starts once is in both runs."""
    costs = []
    for size in (40, 140):
        work = peers.prepared(folder / str(size), peers.declare_ours, peers.graph_of("layered", size))
        command = [*PROGRAM, "run", "pipeline.yaml", "--engine", "local", "--quiet"]
        costs.append(flows.measured(command, work, {"CRUCIBLE_LINEAGE_DATA": str(work / "data")}).cpu_s)
    return (costs[1] - costs[0]) * 10


def main() -> None:
    given = arguments(steps=1000, rounds=3)
    print("| work | today | aim |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        steps = [per_step(folder / f"steps-{number}") for number in range(given.rounds)]
        row("CPU for a registered step, all processes", f"{median(steps):.1f} ms", "18 ms")
        found: dict[str, dict[str, list[peers.Cost]]] = {"ours": {}, "doit": {}}
        for name, costs in found.items():
            peers.install(name, folder)
            tool = peers.tools(folder, 1)[name]
            for phase, cost in peers.phases(tool, peers.graph_of("layered", given.steps), folder, given.rounds):
                costs.setdefault(phase, []).append(cost)
        cpu = {
            (name, phase): median(cost.cpu_s for cost in found[name][phase])
            for name in found
            for phase in ("noop", "leaf")
        }
        (first,) = found["ours"]["first"]
        row(f"first run of {given.steps:,}", f"{first.wall_s:.1f} s, CPU {first.cpu_s:.1f} s", "0.25, 0.2 of Snakemake")
        row("no-op beside doit, CPU", f"{cpu['ours', 'noop'] / cpu['doit', 'noop']:.2f}", "1.5")
        row("one leaf changed, above no-op, CPU", f"{cpu['ours', 'leaf'] - cpu['ours', 'noop']:.2f} s", "0.2 s")
        row(f"memory, {given.steps:,} steps", f"{first.peak_mib:.0f} MiB", "150 MB")
        here = {"CRUCIBLE_LINEAGE_DATA": str(folder / "demo")}
        demo = [peers.measured([*PROGRAM, "demo"], folder, here) for _ in range(2)]
        row("demo, second time", f"{demo[1].wall_s:.1f} s", "10 s")
        starts = [
            peers.measured([*PROGRAM, "list", "--project", "demo-raman"], folder, here) for _ in range(given.rounds)
        ]
        row("`list` of ten", f"CPU {median(cost.cpu_s for cost in starts):.2f} s", "0.35 s")


if __name__ == "__main__":
    main()
