"""How plan, run, no-op and status grow with the number of instances of a step.

    python tests/benchmarks/runs/growth.py [--instances 1000,10000]

By default 100 and 1,000; with CRUCIBLE_NIGHTLY=1 1,000 and 10,000, which takes the better part of an hour. Printed are
CPU, clock and peak memory of the command with what it started, and how often as much that is as for the first number,
beside how often as many instances there are.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from peers import Cost, measured

STEP = '''"""The benchmark's step."""
from pathlib import Path

from crucible_lineage import step


@step(data_type="scaled")
def scaled(counts: Path, *, factor: float, out: Path) -> dict:
    (out / "scaled.txt").write_text(str(float(counts.read_text()) * factor))
    return {"factor": factor}
'''
PIPELINE = """
pipeline: growth
project: growth
inputs:
  counts: {file: "measured/*.txt", each: true, ingest: false, timestamp: "2024-05-01T12:00:00Z"}
steps:
  scaled: {uses: "growth_steps:scaled", inputs: {counts: counts}, params: {factor: 3}}
"""
PROGRAM = [sys.executable, "-m", "crucible_lineage"]
COMMANDS = (
    ("plan", ["plan", "pipeline.yaml"]),
    ("run", ["run", "pipeline.yaml", "--engine", "local", "--quiet"]),
    ("no-op", ["run", "pipeline.yaml", "--engine", "local"]),
    ("status", ["status"]),
)


def main() -> None:
    """Measure and print the table."""
    nightly = bool(os.environ.get("CRUCIBLE_NIGHTLY"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", default="1000,10000" if nightly else "100,1000")
    given = parser.parse_args()
    found: dict[str, list[Cost]] = {}
    numbers = [int(text) for text in given.instances.split(",")]
    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            for name, cost in costs(Path(folder) / "work", number):
                found.setdefault(name, []).append(cost)
                print(f"{number} {name}: {cost}", file=sys.stderr, flush=True)
    print(f"| {' | '.join(['', *(f'{number:,}: CPU s, clock s, MiB' for number in numbers), 'growth'])} |")
    print(f"|---|{'---|' * (len(numbers) + 1)}")
    for name, them in found.items():
        cells = [f"{one.cpu_s:.2f}, {one.wall_s:.2f}, {one.peak_mib:.0f}" for one in them]
        first, last = them[0], them[-1]
        growth = f"{last.cpu_s / max(first.cpu_s, 0.01):.1f} x CPU, {last.peak_mib / max(first.peak_mib, 1):.1f} x MiB"
        print(f"| {name} | {' | '.join(cells)} | {growth} for {numbers[-1] / numbers[0]:.0f} x |")


def costs(folder: Path, instances: int) -> Iterator[tuple[str, Cost]]:
    """What each command costs, in a fresh folder."""
    (folder / "measured").mkdir(parents=True)
    for number in range(instances):
        (folder / "measured" / f"{number:06}.txt").write_text(str(number))
    (folder / "growth_steps.py").write_text(STEP)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    here = {"CRUCIBLE_LINEAGE_DATA": str(folder / "data")}
    for name, command in COMMANDS:
        yield name, measured([*PROGRAM, *command], folder, here)


if __name__ == "__main__":
    main()
