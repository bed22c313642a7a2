"""The import contracts bite: Prefect or an upward import, put into any module of a copy of the package, is refused."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).with_name("lint-imports")
CONTRACTS: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "importlinter"
]["contracts"]
LAYERS = {contract["containers"][0]: contract for contract in CONTRACTS if contract["type"] == "layers"}
(FLOORS,) = [contract for container, contract in LAYERS.items() if container == "crucible_lineage"]
(NO_PREFECT,) = [contract for contract in CONTRACTS if "prefect" in contract.get("forbidden_modules", ())]
ON_PREFECT = {"__main__", "cli", "flows", "tasks"}  # what may import it


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package as it is once installed."""
    folder = tmp_path / "crucible_lineage"
    code = shutil.ignore_patterns("__pycache__", "data", "*.html", "*.css", "*.js", "*.svg", "*.sql")
    shutil.copytree(ROOT / "crucible_lineage", folder, ignore=code)
    for part in ("tasks", "flows"):
        shutil.copytree(ROOT / part, folder / part, ignore=code)
    return folder


def lint(package: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT, "--no-logo", "--no-cache", str(ROOT / "pyproject.toml")],
        cwd=package.parent,
        capture_output=True,
        text=True,
        timeout=120,
        env={"COLUMNS": "400", "PATH": "/usr/bin:/bin"},
    )


def path_of(package: Path, name: str) -> Path:
    return package.joinpath(*name.split(".")[1:])


def modules(package: Path, name: str) -> Iterator[tuple[str, Path]]:
    """The modules of a room with their files."""
    place = path_of(package, name)
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    for file in files:
        parts = ("crucible_lineage", *file.relative_to(package).with_suffix("").parts)
        yield ".".join(part for part in parts if part != "__init__"), file


def add(file: Path, line: str) -> None:
    file.write_text(file.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")


def members(layer: str) -> list[str]:
    return re.split(r"\s*[|:]\s*", layer)


def test_a_copy_as_it_is_keeps_every_contract(package: Path) -> None:
    linted = lint(package)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in linted.stdout


def test_every_room_has_its_place_and_no_contract_names_an_empty_one(package: Path) -> None:
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()} - {"__init__"}
    assert {name.partition(".")[0] for layer in FLOORS["layers"] for name in members(layer)} == rooms
    assert FLOORS["exhaustive"]
    assert {name.removeprefix("crucible_lineage.") for name in NO_PREFECT["source_modules"]} == rooms - ON_PREFECT
    assert not NO_PREFECT.get("ignore_imports")
    for container, contract in LAYERS.items():
        for name in (name for layer in contract["layers"] for name in members(layer)):
            assert [file for _, file in modules(package, f"{container}.{name}") if file.stat().st_size], name
    for contract in CONTRACTS:
        for name in (*contract.get("source_modules", ()), *contract.get("forbidden_modules", ())):
            if name.startswith("crucible_lineage."):
                assert [file for _, file in modules(package, name) if file.exists()], name


def test_prefect_is_refused_in_every_single_module_of_the_library(package: Path) -> None:
    named = [module for room in NO_PREFECT["source_modules"] for module in modules(package, room)]
    assert len(named) > 150
    for _, file in named:
        add(file, "import prefect")
    linted = lint(package)
    assert linted.returncode == 1
    assert f"{NO_PREFECT['name']} BROKEN" in linted.stdout
    silent = [name for name, _ in named if not re.search(rf"\b{re.escape(name)} -> prefect \(l\.", linted.stdout)]
    assert not silent


@pytest.mark.parametrize("container", LAYERS)
def test_an_upward_import_is_refused_in_every_single_module(package: Path, container: str) -> None:
    contract = LAYERS[container]
    added = []
    for above, layer in zip(contract["layers"], contract["layers"][1:], strict=False):
        target = f"{container}.{members(above)[-1]}"
        for room in members(layer):
            for name, file in modules(package, f"{container}.{room}"):
                add(file, f"import {target}")
                added.append((name, target))
    linted = lint(package)
    assert linted.returncode == 1
    assert f"{contract['name']} BROKEN" in linted.stdout
    silent = [
        pair for pair in added if not re.search(rf"\b{re.escape(pair[0])} -> {re.escape(pair[1])} \(l\.", linted.stdout)
    ]
    assert not silent
