"""Many broken declarations: one `check` finds all faults, each with line, column and remedy."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crucible_lineage.cli import main
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.declare.yaml import parse_document
from crucible_lineage.pipeline.plan.bind import bind_file

# In these files, comments at the end are what `check` prints: line, column and message of each fault.
BROKEN = sorted(Path(__file__).with_name("broken").glob("*.yaml"))
STEPS = """
from pathlib import Path

from crucible_lineage import step


@step
def scale(counts: Path, *, factor: float, times: int = 1, out: Path) -> dict: ...


@step
def add(left: Path, right: Path, *, out: Path) -> dict: ...


@step(outputs=("low", "high"))
def split(counts: Path, *, at: float = 2.5, low: Path, high: Path) -> dict: ...


@step(packages=["no-such-package"])
def heavy(counts: Path, *, level: int, out: Path) -> dict: ...


@step
def gather(frames: list[Path], dark: Path | None = None, *, window: int = 1, out: Path) -> dict: ...


def odd(counts: int, *, out): ...
"""
BESIDE = {
    "lab.py": STEPS,
    "broken.py": "1 / 0\n",
    "unread.py": "from pathlib import Path\nx = (1,\n",
    "missing.py": "from pathlib import Path\nimport numpyy\n",
    "lab_token.py": "def a(counts, *, out): return 'ghp_abcdefghijklmnopqrstuvwxyz0123456789'\n",
    "ending.py": "import sys\nsys.exit(3)\n",
}


@pytest.mark.parametrize("declaration", BROKEN, ids=lambda path: path.stem)
def test_one_check_finds_all(declaration: Path, tmp_path: Path, lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in BESIDE.items():
        lab.file(name, content)
    monkeypatch.setenv("LAB_FACTOR", "known-here-alone")
    text = declaration.read_text().partition("\n# ")[0] + "\n"
    path = lab.file("broken.yaml", text)
    ran = CliRunner().invoke(main, ["check", str(path), "--data", str(tmp_path / "data")])
    assert ran.exit_code == 2, ran.output
    found = ran.stderr.replace("error: ", "# ").replace(f"{path}:", "").replace(str(lab.folder), "<folder>")
    if os.environ.get("GOLDEN") == "write":
        declaration.write_text(text + found)
    assert text + found == declaration.read_text()


ODD: tuple[Any, ...] = (
    *(None, 1, 1.5, True, "x", "", [], {}, [1, None], {"a": 1}, "first", "a.b", [{}], {"from": "first"}),
    *("${params.x}", "gs://b/x", ["*.txt"], "{out}", -1, 10**20),
)
KEYS = ("uses", "run", "inputs", "params", "matrix", "each", "file", "select", "output", "env", "match")


@pytest.mark.parametrize("seed", range(3))
def test_random_changes_raise_nothing_but_input_errors(seed: int, lab: Any) -> None:
    """Replace, remove and add values of these at random: only InputError is ever raised."""
    chance = random.Random(seed)
    lab.file("lab.py", STEPS)
    for path in BROKEN:
        data: Any = parse(path)
        for _ in range(chance.randint(1, 4)):
            spoil(data, chance)
        with suppress(InputError):
            bind_file(lab.file("odd.yaml", json.dumps(data)))


def parse(path: Path) -> Any:
    try:
        return parse_document(path.read_text(), path.name).data
    except InputError:  # duplicate keys
        return {"pipeline": "counting", "steps": {}}


def spoil(data: Any, chance: random.Random) -> None:
    targets = [
        (container, key)
        for container in containers(data)
        for key in (container if isinstance(container, dict) else range(len(container)))
    ]
    if not targets:  # everything was removed before
        return
    container, key = chance.choice(targets)
    match chance.randrange(4):
        case 0:
            del container[key]
        case 1 if isinstance(container, dict):
            container[chance.choice(KEYS)] = deepcopy(chance.choice(ODD))
        case _:
            container[key] = deepcopy(chance.choice(ODD))


def containers(data: Any) -> Iterator[Any]:
    if isinstance(data, dict | list) and data:
        yield data
        for part in data.values() if isinstance(data, dict) else data:
            yield from containers(part)
