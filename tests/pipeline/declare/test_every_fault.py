"""Many broken declarations: one `check` finds all faults, each with line, column and remedy."""

from __future__ import annotations

import json
import random
import re
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

# In these files, «N» marks the location of a fault, and a comment at the end has words of its message.
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


def odd(counts: int, *, out): ...
"""


@pytest.mark.parametrize("declaration", BROKEN, ids=lambda path: path.stem)
def test_one_check_finds_all(declaration: Path, tmp_path: Path, lab: Any) -> None:
    module = lab.file(f"{lab.module}.py", STEPS).stem
    lab.file("broken_lab.py", "1 / 0\n")
    text = declaration.read_text()
    words = {int(number): part for number, part in re.findall("^# «([0-9]+)» (.*)$", text, re.MULTILINE)}
    text = text.partition("\n# «")[0] + "\n"
    text = text.replace("lab:", f"{module}:").replace(f"no_{module}:", "no_lab:").replace("broken:", "broken_lab:")
    locations = seeded(text)
    path = lab.file("broken.yaml", re.sub("«[0-9]+»", "", text))
    ran = CliRunner().invoke(main, ["check", str(path), "--data", str(tmp_path / "data"), "--json"])
    assert ran.exit_code == 2, ran.output
    (checked,) = json.loads(ran.stdout)["files"]
    found = [
        (fault["line"], fault["column"], fault["message"]) for fault in checked["faults"] if fault["file"] == str(path)
    ]
    missed = {n: words[n] for n in locations if not any(f[:2] == locations[n] and words[n] in f[2] for f in found)}
    assert not missed, found
    extra = [fault for fault in found if not any(fault[:2] == locations[n] and words[n] in fault[2] for n in locations)]
    assert not extra, "only seeded faults are reported"
    assert len(set(found)) == len(found)


def seeded(text: str) -> dict[int, tuple[int, int]]:
    """Return line and column of each mark in the text without marks."""
    locations = {}
    for number, line in enumerate(text.splitlines(), 1):
        removed = 0
        for mark in re.finditer("«([0-9]+)»", line):
            locations[int(mark[1])] = number, mark.start() - removed + 1
            removed += len(mark[0])
    return locations


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
        return parse_document(re.sub("«[0-9]+»", "", path.read_text()), path.name).data
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
