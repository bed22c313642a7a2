"""What a run costs that has little to do: nothing, one leaf, or a root that is refactored with the same bytes.

    python tests/benchmarks/runs/rerun.py [--steps 1000] [--rounds 5] [--beside PYTHON]

All phases are measured in one go, in turns. `--beside` is the interpreter of an environment with another revision of
this package, whose no-op is measured in turn with ours.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

from peers import Cost, graph_of, measured

STEPS = '''"""Steps of the benchmark: each mixes its parents' bytes."""
import hashlib
from pathlib import Path

from crucible_lineage import step


@step
def root(sources: list[Path], *, number: int, out: Path) -> dict:
    repeats = {repeats}
    write(number, sources, out, repeats)
    return {{}}


@step
def mix(sources: list[Path], *, number: int, out: Path) -> dict:
    write(number, sources, out, 157)
    return {{}}


def write(number, sources, out, repeats):
    digest = hashlib.sha256(str(number).encode())
    for path in sources:
        digest.update(Path(path).read_bytes())
    (out / "out.dat").write_bytes((digest.hexdigest() * repeats)[:10_000].encode())
'''


def declare(folder: Path, steps: int) -> None:
    """Ten layers of steps with three parents each: the first step is the root, the last one also reads leaf.dat."""
    file = '{{file: {0}.dat, timestamp: "2024-05-01T12:00:00Z", ingest: false}}'
    lines = ["pipeline: bench", "project: bench", "defaults: {output: {ingest: false}}", "inputs:"]
    lines += [f"  {name}: {file.format(name)}" for name in ("root", "leaf")]
    lines.append("steps:")
    for number, parents in enumerate(graph_of("layered", steps).parents):
        sources = [f"s{parent}" for parent in parents] or ["root"]
        inputs = f"{{sources: [{', '.join(sources + ['leaf'] * (number == steps - 1))}]}}"
        uses = "mix" if number else "root"
        lines.append(f'  s{number}: {{uses: "rerun_steps:{uses}", inputs: {inputs}, params: {{number: {number}}}}}')
    (folder / "pipeline.yaml").write_text("\n".join(lines) + "\n")
    (folder / "root.dat").write_text("root\n" * 2000)
    change(folder, "leaf", 0)
    change(folder, "cut-off", 0)


def change(folder: Path, phase: str, number: int) -> None:
    """What a phase begins with."""
    if phase == "leaf":
        (folder / "leaf.dat").write_text(f"leaf {number}\n" * 2000)
    elif phase == "cut-off":
        (folder / "rerun_steps.py").write_text(STEPS.format(repeats=157 + number))


def phases(pythons: Mapping[str, str], folder: Path, steps: int, rounds: int) -> Iterator[tuple[str, str, Cost]]:
    """The costs, by environment and phase, each round in turn."""
    commands = {}
    for name, python in pythons.items():
        work = folder / name
        work.mkdir()
        declare(work, steps)
        commands[name] = [
            python,
            "-m",
            "crucible_lineage",
            "run",
            "pipeline.yaml",
            "--data",
            "data",
            "--engine",
            "local",
        ]
        yield name, "first", measured(commands[name], work, {})
    for number in range(1, rounds + 1):
        for name in pythons if number % 2 else reversed(list(pythons)):
            yield name, "no-op", measured(commands[name], folder / name, {})
        for phase in ("leaf", "cut-off"):
            change(folder / "ours", phase, number)
            yield "ours", phase, measured(commands["ours"], folder / "ours", {})


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", help="an interpreter with another revision of this package")
    asked = parser.parse_args()
    pythons = {"ours": sys.executable, **({"beside": asked.beside} if asked.beside else {})}
    costs: dict[tuple[str, str], list[Cost]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, phase, cost in phases(pythons, Path(folder), asked.steps, asked.rounds):
            costs.setdefault((name, phase), []).append(cost)
            print(f"{name} {phase}: {cost}", file=sys.stderr)
    base = {part: median(getattr(one, part) for one in costs["ours", "no-op"]) for part in ("cpu_s", "wall_s")}
    print(f"{asked.steps} steps, {asked.rounds} rounds\n\n| | CPU s | wall s | of our no-op |\n|---|---|---|---|")
    for (name, phase), found in costs.items():
        cpu, wall = (median(getattr(one, part) for one in found) for part in ("cpu_s", "wall_s"))
        shown = f"{cpu / base['cpu_s']:.2f}, {wall / base['wall_s']:.2f}"
        print(f"| {name}: {phase} | {cpu:.3f} | {wall:.3f} | {shown} |")


if __name__ == "__main__":
    main()
