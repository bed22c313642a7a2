"""Runs against a Crucible that is far away: how long they take, and how many requests they make.

    python tests/benchmarks/runs/distance.py [--shapes chain,layered] [--steps 20,100] [--delay-ms 50]

Each run is the installed command with a data folder of its own; its steps do next to nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from peers import declare_ours, graph_of, measured, prepared

from crucible_lineage.client import CrucibleClient

PROGRAM = [sys.executable, "-m", "crucible_lineage"]
COMMAND = [*PROGRAM, "run", "pipeline.yaml", "--engine", "local"]
KEY = "benchmark"


@contextmanager
def serving(command: Sequence[str]) -> Iterator[str]:
    """The address that the process prints in its first line."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield str(json.loads(process.stdout.readline())["url"])
        finally:
            process.terminate()


@contextmanager
def _crucible(folder: Path) -> Iterator[str]:
    """The address of an embedded Crucible with the project of the runs, in a process of its own."""
    with serving([*PROGRAM, "serve", "--data", str(folder), "--json", "--api-key", KEY]) as url:
        with CrucibleClient(url, KEY) as client:
            client.projects.create({"project_id": "bench", "organization": "MF", "project_lead": "local"})
        yield url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="chain,layered")
    parser.add_argument("--steps", default="20,100")
    parser.add_argument("--delay-ms", type=int, default=50)
    given = parser.parse_args()
    print("| shape | steps | delay, ms | wall, s | CPU of the client, s | requests |\n|---|---|---|---|---|---|")
    for shape, steps in zip(given.shapes.split(","), map(int, given.steps.split(",")), strict=True):
        with tempfile.TemporaryDirectory() as folder, _crucible(Path(folder) / "there") as there:
            work, log = prepared(Path(folder) / "work", declare_ours, graph_of(shape, steps)), Path(folder) / "requests"
            program = [sys.executable, str(Path(__file__).with_name("far_away.py"))]
            with serving([*program, there, str(given.delay_ms), str(log)]) as url:
                here = {"CRUCIBLE_API_KEY": KEY, "CRUCIBLE_LINEAGE_DATA": str(work / "data")}
                cost = measured(COMMAND, work, {**here, "CRUCIBLE_API_URL": url})
            asked = len(log.read_text().splitlines())
            print(f"| {shape} | {steps} | {given.delay_ms} | {cost.wall_s:.2f} | {cost.cpu_s:.2f} | {asked} |")


if __name__ == "__main__":
    main()
