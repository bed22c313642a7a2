"""Random edits, each followed by our `run` and by `dvc repro` on the same files: both have to execute the same steps.

    python tests/benchmarks/runs/against_dvc.py --dvc /path/to/dvc [--edits 200] [--seed 14]

DVC hashes whole files, so each step lies in a module of its own, and an edit is of its text, of a parameter, or of the
measured files, whose values are never the same twice (to us equal values of other measurements are other results).
A comment, which is code to DVC, is counted apart, and gone at the next edit. Prints a table, and ends with 1 if
anything else differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SHAPES = {
    "chain": [[], [0], [1], [2]],
    "fan": [[], [0], [0], [0], [1, 2, 3]],
    "layers": [[], [], [0, 1], [0, 1], [2, 3], [2, 3]],
}
STEP = '''"""Step {n}."""
from pathlib import Path

OFFSET = {offset}


def helper(value):
    {comment}return {helper}


def step(sources: list[Path], *, factor: int = 1, out: Path) -> None:
    total = sum(int(path.read_text()) for path in sources)
    (out / "value.txt").write_text(str(helper({formula}) + OFFSET + {n}))
'''
RUN = '''"""A step as a program, for DVC: RUN MODULE FACTOR OUT FILE..."""
import importlib
import sys
from pathlib import Path

module, factor, out, *names = sys.argv[1:]
files = [path for name in names for path in (sorted(Path(name).iterdir()) if Path(name).is_dir() else [Path(name)])]
Path(out).mkdir(parents=True, exist_ok=True)
importlib.import_module(module).step(files, factor=int(factor), out=Path(out))
'''
FORMULAS = ("total * factor", "factor * total")  # the same bytes
HELPERS = ("value + 0", "0 + value", "value * 2", "2 * value")
KINDS = ("formula", "constant", "comment", "helper", "parameter", "file", "restored", "added")


@dataclass
class World:
    """What is declared and written."""

    shape: Sequence[Sequence[int]]
    texts: list[dict[str, str]] = field(default_factory=list)
    factors: list[int] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=lambda: {"in0.txt": "3", "in1.txt": "4"})
    history: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.factors = [1] * len(self.shape)
        for _ in self.shape:
            self.texts.append({"offset": "0", "comment": "", "helper": HELPERS[0], "formula": FORMULAS[0]})

    def edit(self, chance: random.Random) -> str:
        """Something is changed; what kind of thing."""
        n, kind = chance.randrange(len(self.shape)), chance.choice(KINDS)
        for text in self.texts:
            text["comment"] = ""
        if kind in ("file", "added"):
            self.history.append(dict(self.files))
            name = chance.choice(sorted(self.files)) if kind == "file" else f"in{len(self.files)}.txt"
            self.files[name] = str(chance.randrange(10**9))
        elif kind == "restored":
            self.files = dict(chance.choice(self.history or [self.files]))
        elif kind == "parameter":
            self.factors[n] = chance.randrange(1, 4)
        else:
            values = {
                "formula": chance.choice(FORMULAS),
                "helper": chance.choice(HELPERS),
                "constant": str(chance.randrange(3)),
                "comment": f"# {chance.randrange(1000)}\n    ",
            }
            self.texts[n]["offset" if kind == "constant" else kind] = values[kind]
        return kind

    def write(self, folder: Path) -> None:
        """Modules, data, and both declarations."""
        data = folder / "data"
        data.mkdir(exist_ok=True)
        for old in data.iterdir():
            if old.name not in self.files:
                old.unlink()
        for name, content in self.files.items():
            _write(data / name, content)
        ours = ["pipeline: random", "project: lab", "defaults: {output: {ingest: false}}", "inputs:"]
        ours += ['  root: {file: "data/*.txt", ingest: false, timestamp: "2024-05-01T12:00:00Z"}', "steps:"]
        dvc = ["stages:"]
        for n, parents in enumerate(self.shape):
            _write(folder / f"step{n}.py", STEP.format(n=n, **self.texts[n]))
            sources = ", ".join(f"s{parent}" for parent in parents) or "root"
            ours += [f"  s{n}: {{uses: 'step{n}:step', inputs: {{sources: [{sources}]}},"]
            ours += [f"       params: {{factor: {self.factors[n]}}}}}"]
            given = [f"out/s{parent}/value.txt" for parent in parents] or ["data"]
            command = f"{sys.executable} run_step.py step{n} {self.factors[n]} out/s{n} {' '.join(given)}"
            dvc += [f"  s{n}:", f"    cmd: {command}", f"    deps: [step{n}.py, {', '.join(given)}]"]
            dvc += [f"    outs: [out/s{n}]"]
        _write(folder / "random.yaml", "\n".join(ours) + "\n")
        _write(folder / "dvc.yaml", "\n".join(dvc) + "\n")


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def executed_by_us(folder: Path) -> set[str]:
    """The steps that a run of ours executed."""
    command = [sys.executable, "-m", "crucible_lineage", "run", "random.yaml", "--data", "store", "--json"]
    ran = subprocess.run([*command, "--engine", "local"], cwd=folder, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(ran.stderr)
    told = json.loads(ran.stdout)
    return {step for step, outcome in told["outcomes"].items() if outcome == "executed"}


def executed_by_dvc(folder: Path, dvc: str) -> set[str]:
    """The steps that `dvc repro` executed."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    ran = subprocess.run([dvc, "repro"], cwd=folder, capture_output=True, text=True, env=environment)
    if ran.returncode:
        raise RuntimeError(ran.stdout + ran.stderr)
    return {line.split("'")[1] for line in ran.stdout.splitlines() if line.startswith("Running stage '")}


def compare(shape: str, folder: Path, edits: int, seed: int, dvc: str) -> tuple[Counter[str], list[str]]:
    """How often what was seen, and what should not be."""
    chance, world = random.Random(f"{seed} {shape}"), World(SHAPES[shape])
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    (folder / "run_step.py").write_text(RUN)
    subprocess.run([dvc, "init", "--no-scm", "--quiet"], cwd=folder, check=True)
    for number in range(edits + 1):
        kind = world.edit(chance) if number else "first"
        world.write(folder)
        ours, theirs = executed_by_us(folder), executed_by_dvc(folder, dvc)
        seen["edits"] += bool(number)
        seen["executed by us"] += len(ours)
        seen["executed by DVC"] += len(theirs)
        print(f"{shape} {number} {kind}: {sorted(ours)} {sorted(theirs)}", file=sys.stderr)
        if ours == theirs:
            seen["the same"] += 1
        elif kind == "comment" and not ours and len(theirs) == 1:
            seen["a comment, which is code to DVC"] += 1
        else:
            wrong.append(f"{shape}, edit {number} ({kind}): we executed {sorted(ours)}, DVC {sorted(theirs)}")
        if number % 10 and number != edits:
            continue
        values = [(folder / f"out/s{n}/value.txt").read_text() for n in range(len(world.shape))]
        if values != our_values(folder, len(world.shape)):
            wrong.append(f"{shape}, edit {number} ({kind}): other values than DVC's")
    return seen, wrong


def our_values(folder: Path, steps: int) -> list[str]:
    """The value of each step that holds now, as anybody gets it from Crucible."""
    command = [sys.executable, "-m", "crucible_lineage"]
    told = ["--project", "lab", "--json", "--data", "store"]
    listed = subprocess.run([*command, "list", *told], cwd=folder, capture_output=True, text=True, check=True)
    holding = {one["step"]: one["mfid"] for one in json.loads(listed.stdout)["datasets"] if one["step"]}
    ids = [holding[f"s{n}"] for n in range(steps)]
    values = []
    for mfid in ids:
        with tempfile.TemporaryDirectory() as place:
            got = [*command, "get", mfid, "-o", place, "--data", "store"]
            subprocess.run(got, cwd=folder, capture_output=True, check=True)
            values.append(next(Path(place).rglob("value.txt")).read_text())
    return values


def main() -> int:
    """Compares, and prints what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dvc", default="dvc", help="the program; it is no dependency of this package")
    parser.add_argument("--edits", type=int, default=200, help="in all, spread over the shapes")
    parser.add_argument("--seed", type=int, default=14)
    asked = parser.parse_args()
    total: Counter[str] = Counter()
    wrong: list[str] = []
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            seen, faults = compare(shape, Path(folder), -(-asked.edits // len(SHAPES)), asked.seed, asked.dvc)
        total += seen
        wrong += faults
    print("\n".join(f"| {what} | {count} |" for what, count in total.items()))
    print("\n".join(wrong) or "nothing differs otherwise")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
