"""Runs against a Crucible that is far away: how long they take, and how many requests they make.

    python tests/benchmarks/runs/distance.py [--shapes chain,layered] [--steps 20,100] [--delay-ms 50]

Each run is the installed command with a data folder of its own; its steps do next to nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from peers import graph_of, measured

from crucible_lineage.client import CrucibleClient

sys.path.append(str(Path(__file__).parents[1]))
from measure import PROJECT, embedded_crucible, serving

STEP = '''"""The benchmark's step."""
from pathlib import Path

from crucible_lineage import step


@step
def mix(sources: list[Path], *, number: int, out: Path) -> dict:
    (out / "out.txt").write_text(str(number) + sources[0].read_text()[:1000])
    return {"number": number}
'''
COMMAND = [sys.executable, "-m", "crucible_lineage", "run", "pipeline.yaml", "--engine", "local"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="chain,layered")
    parser.add_argument("--steps", default="20,100")
    parser.add_argument("--delay-ms", type=int, default=50)
    given = parser.parse_args()
    print("| shape | steps | delay, ms | wall, s | CPU of the client, s | requests |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, embedded_crucible(Path(folder) / "there") as place:
        for shape, steps in zip(given.shapes.split(","), map(int, given.steps.split(",")), strict=True):
            work = Path(folder) / shape / "work"
            with CrucibleClient(place.url, place.api_key) as client:
                client.projects.create({**PROJECT, "project_id": f"bench-{shape}"})
            _declare(shape, steps, work)
            log = work / "requests"
            program = [sys.executable, str(Path(__file__).with_name("far_away.py"))]
            with serving([*program, place.url, str(given.delay_ms), str(log)]) as url:
                here = {"CRUCIBLE_API_KEY": place.api_key, "CRUCIBLE_LINEAGE_DATA": str(work / "data")}
                cost = measured(COMMAND, work, {**here, "CRUCIBLE_API_URL": url})
            asked = len(log.read_text().splitlines())
            print(f"| {shape} | {steps} | {given.delay_ms} | {cost.wall_s:.2f} | {cost.cpu_s:.2f} | {asked} |")


def _declare(shape: str, steps: int, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "far_steps.py").write_text(STEP)
    (folder / "root.dat").write_text("root")
    lines = [f"pipeline: bench\nproject: bench-{shape}\ninputs:"]
    lines.append('  root: {file: root.dat, timestamp: "2024-05-01T12:00:00Z", ingest: false}\nsteps:')
    for number, parents in enumerate(graph_of(shape, steps).parents):
        sources = ", ".join(f"s{parent}" for parent in parents) or "root"
        lines.append(
            f'  s{number}: {{uses: "far_steps:mix", inputs: {{sources: [{sources}]}}, params: {{number: {number}}}}}'
        )
    (folder / "pipeline.yaml").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
