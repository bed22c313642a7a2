"""A type checker treats a converted task like Prefect's: calls, `submit`, `map`, errors in arguments."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.nights import by_night

ROOT = Path(__file__).parents[2]

PROGRAM = """
from IMPORT import task


@task
def add(left: int, right: int = 2) -> int:
    return left + right


@task(retries=2, name="scaled")
async def scale(values: list[float], by: float) -> list[float]:
    return [value * by for value in values]


reveal_type(add(1, right=2))
reveal_type(add.submit(1, 2))
reveal_type(add.submit(1, 2).result())
reveal_type(add.map([1, 2], 3))
reveal_type(add.with_options(retries=1)(1))
reveal_type(add.fn)
reveal_type(scale([1.0], 2.0))
reveal_type(scale.submit([1.0], 2.0))
add("one")
add(1, wrong=2)
"""


def _checked(module: str, folder: Path) -> list[str]:
    """Return mypy's errors by line; calls of our class are reported as Prefect's."""
    package = folder / "tree" / "crucible_lineage"
    package.mkdir(parents=True, exist_ok=True)
    for part in [*(ROOT / "crucible_lineage").iterdir(), ROOT / "tasks", ROOT / "flows"]:
        if not (package / part.name).exists():
            (package / part.name).symlink_to(part)
    program = folder / "typed.py"
    program.write_text(PROGRAM.replace("IMPORT", module))
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={folder / 'cache'}", str(program)],
        env={**os.environ, "MYPYPATH": str(folder / "tree")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = [line.partition("typed.py:")[2] for line in ran.stdout.splitlines() if "typed.py:" in line]
    return [re.sub(r"crucible_lineage\.tasks\.decorator\.LineageTask", "prefect.tasks.Task", line) for line in lines]


@by_night("a minute of type checking")
def test_calls_are_typed_as_prefects(tmp_path: Path) -> None:
    plain, ours = _checked("prefect", tmp_path), _checked("crucible_lineage.tasks", tmp_path)
    assert len(plain) > 10
    assert ours == plain
