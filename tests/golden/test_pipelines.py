"""What the demo and `init` register: lineage, shape of ids, bytes. The examples' are compared in tests/examples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.golden.pipelines import described
from tests.golden.stored import compare


def test_the_demo_registers_what_it_registered(demo_data: Path, command: Any) -> None:
    compare("pipelines/demo.txt", described(asking(command, demo_data), "demo-raman"))


def test_ids_of_the_demo_are_the_same_everywhere(demo_origin: tuple[Path, str]) -> None:
    compare("pipelines/demo-ids.txt", json.dumps(json.loads(demo_origin[1])["datasets"], indent=1) + "\n")


def test_init_registers_what_it_registered(tmp_path: Path, data: Path, command: Any) -> None:
    command("init", tmp_path / "lab")
    command("run", tmp_path / "lab" / "pipeline.yaml", "--data", data, "--engine", "local")
    compare("pipelines/init.txt", described(asking(command, data), "lab"))


def asking(command: Any, data: Path) -> Callable[..., Any]:
    """Return a function that runs a command with `--json` on a data folder."""
    return lambda *words: json.loads(command(*words, "--data", data, "--json").stdout)
