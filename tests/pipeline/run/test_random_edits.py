"""Random edits of code, parameters and files, each followed by a run: only changes are made, one result is current.

A simple simulation predicts the runs: a step is a function of its text and of the bytes and origin of its inputs, and
runs if it was never called with these before.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crucible_lineage.ask.verify import verify_project
from crucible_lineage.core.tables import summary_of
from crucible_lineage.lineage.model import CURRENT
from crucible_lineage.registration.read import registered
from crucible_lineage.session import Session
from crucible_lineage.standing.slots import Currency
from tests.runs import run

EDITS = int(os.environ.get("RANDOM_EDITS", "6"))  # of each shape; `make crash` asks for more
SHAPES = {
    "chain": [[], [0], [1], [2]],
    "fan": [[], [0], [0], [0], [1, 2, 3]],
    "layers": [[], [], [0, 1], [0, 1], [2, 3], [2, 3]],
}
STEPS = '''"""Steps of a random pipeline."""
from pathlib import Path

{texts}
'''
STEP = """
OFFSET_{n} = {offset}


def helper_{n}(value):
    {comment}return {helper}


def step_{n}(sources: list[Path], *, factor: int = 1, out: Path) -> None:
    total = sum(int(path.read_text()) for path in sources)
    (out / "value.txt").write_text(str(helper_{n}({formula}) + OFFSET_{n} + {n}))
"""
FORMULAS = ("total * factor", "factor * total")  # the same bytes
HELPERS = ("value + 0", "0 + value", "value * 2", "2 * value")


@dataclass
class World:
    """What is declared and written, and what the simulation knows was made."""

    shape: list[list[int]]
    formulas: dict[int, str] = field(default_factory=dict)
    helpers: dict[int, str] = field(default_factory=dict)
    offsets: dict[int, int] = field(default_factory=dict)
    factors: dict[int, int] = field(default_factory=dict)
    comments: dict[int, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)

    def step_text(self, n: int) -> str:
        return STEP.format(
            n=n,
            offset=self.offsets.get(n, 0),
            helper=self.helpers.get(n, HELPERS[0]),
            formula=self.formulas.get(n, FORMULAS[0]),
            comment=self.comments.get(n, ""),
        )

    def expected(self) -> set[str]:
        """The steps that have to run now; from then on they count as made."""
        values: dict[int, tuple[int, str]] = {}
        runs = set()
        root = int(sum(map(int, self.files.values())))
        for n, parents in enumerate(self.shape):
            given = [values[p] for p in parents] or [(root, str(sorted(self.files.items())))]
            code = (self.formulas.get(n, FORMULAS[0]), self.helpers.get(n, HELPERS[0]), self.offsets.get(n, 0))
            origins = sorted({origin for _, origin in given})
            call = hashlib.sha256(repr((n, code, self.factors.get(n, 1), [v for v, _ in given], origins)).encode())
            total = sum(value for value, _ in given)
            value = total * self.factors.get(n, 1)
            value = value * 2 if "2" in code[1] else value
            values[n] = (value + code[2] + n, origins[0] if len(origins) == 1 else str(origins))
            if call.hexdigest() not in self.made:
                runs.add(f"s{n}")
                self.made.add(call.hexdigest())
        return runs


def edit(world: World, chance: random.Random, history: list[dict[str, str]]) -> str:
    n = chance.randrange(len(world.shape))
    kind = chance.choice(["formula", "constant", "comment", "helper", "parameter", "file", "restored", "added"])
    if kind == "formula":
        world.formulas[n] = chance.choice(FORMULAS)
    elif kind == "constant":
        world.offsets[n] = chance.randrange(3)
    elif kind == "comment":
        world.comments[n] = f"# {chance.randrange(1000)}\n    "
    elif kind == "helper":
        world.helpers[n] = chance.choice(HELPERS)
    elif kind == "parameter":
        world.factors[n] = chance.randrange(1, 4)
    elif kind == "file":
        history.append(dict(world.files))
        world.files[chance.choice(list(world.files))] = str(chance.randrange(5))
    elif kind == "restored":
        world.files = dict(chance.choice(history))
    else:
        history.append(dict(world.files))
        world.files[f"in{len(world.files)}.txt"] = str(chance.randrange(5))
    return f"{kind} of {n}"


def declare(world: World, folder: Path, module: str) -> Path:
    texts = "".join(world.step_text(n) for n in range(len(world.shape)))
    (folder / f"{module}.py").write_text(STEPS.format(texts=texts))
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for old in data.glob("*.txt"):
        if old.name not in world.files:
            old.unlink()
    for name, content in world.files.items():
        if not (data / name).exists() or (data / name).read_text() != content:
            (data / name).write_text(content)
    lines = ["pipeline: random", "project: lab", "inputs:", '  root: {file: "data/*.txt", ingest: false,']
    lines += ['         timestamp: "2024-05-01T12:00:00Z"}', "steps:"]
    for n, parents in enumerate(world.shape):
        sources = [f"s{parent}" for parent in parents] or ["root"]
        lines += [f"  s{n}:", f"    uses: {module}:step_{n}", f"    inputs: {{sources: [{', '.join(sources)}]}}"]
        lines += [f"    params: {{factor: {world.factors.get(n, 1)}}}"]
    path = folder / "random.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_after_any_edit_only_changes_are_made_and_one_result_is_current(
    shape: str, tmp_path: Path, session: Session
) -> None:
    seed = int(os.environ.get("RANDOM_SEED", "14"))
    chance = random.Random(f"{seed} {shape}")
    world = World(SHAPES[shape], files={"in0.txt": "3", "in1.txt": "4"})
    history = [dict(world.files)]
    module = f"random_{abs(hash(str(tmp_path)))}"
    edits = ["first run"]
    for _ in range(EDITS + 1):
        sys.modules.pop(module, None)
        path = declare(world, tmp_path, module)
        result = run(session, path)
        assert result.ok, (seed, edits, result.errors)
        assert set(result.executed) == world.expected(), (seed, edits)
        assert holding(session) == {name: outputs["out"] for name, outputs in result.datasets.items()}, (seed, edits)
        edits.append(edit(world, chance, history))
    assert verify_project(session, "lab", read_bytes=True).findings == (), (seed, edits)


def holding(session: Session) -> dict[str, str]:
    """The current result of each step, as anybody sees it who asks Crucible."""
    listed = session.client.datasets.list(project_id="lab", include_metadata=True, include_links=True, limit=None)
    found = [registered(session.client, dataset) for dataset in listed]
    currency = Currency(summary_of(one.dataset.model_dump()).status for one in found)
    steps = [(one.step_record, one.mfid) for one in found]
    held = [(record.declared_step, mfid) for record, mfid in steps if record and currency.state(mfid) == CURRENT]
    assert len(dict(held)) == len(held), held
    return dict(held)
