"""Runs against a Crucible that is far away: how long they take, and how many requests they make.

    python tests/benchmarks/runs/distance.py [--shapes chain,layered] [--steps 20,100] [--delay-ms 50]

Each run is the installed command with a data folder of its own; its steps do next to nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from peers import declare_ours, graph_of, measured, prepared

from crucible_lineage.client import CrucibleClient

sys.path.append(str(Path(__file__).parents[1]))
from measure import PROJECT, embedded_crucible, serving

COMMAND = [sys.executable, "-m", "crucible_lineage", "run", "pipeline.yaml", "--engine", "local"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="chain,layered")
    parser.add_argument("--steps", default="20,100")
    parser.add_argument("--delay-ms", type=int, default=50)
    given = parser.parse_args()
    print("| shape | steps | delay, ms | wall, s | CPU of the client, s | requests |\n|---|---|---|---|---|---|")
    for shape, steps in zip(given.shapes.split(","), map(int, given.steps.split(",")), strict=True):
        with tempfile.TemporaryDirectory() as folder, embedded_crucible(Path(folder) / "there") as place:
            with CrucibleClient(place.url, place.api_key) as client:
                client.projects.create({**PROJECT, "project_id": "bench"})
            work, log = prepared(Path(folder) / "work", declare_ours, graph_of(shape, steps)), Path(folder) / "requests"
            program = [sys.executable, str(Path(__file__).with_name("far_away.py"))]
            with serving([*program, place.url, str(given.delay_ms), str(log)]) as url:
                here = {"CRUCIBLE_API_KEY": place.api_key, "CRUCIBLE_LINEAGE_DATA": str(work / "data")}
                cost = measured(COMMAND, work, {**here, "CRUCIBLE_API_URL": url})
            asked = len(log.read_text().splitlines())
            print(f"| {shape} | {steps} | {given.delay_ms} | {cost.wall_s:.2f} | {cost.cpu_s:.2f} | {asked} |")


if __name__ == "__main__":
    main()
