"""docs/architecture.md is correct: its picture matches the imports, and the names in it are where it says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SPAN = re.compile(r"`([^`]+)`")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading, by row."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def definitions(file: Path) -> set[str]:
    """Return the names that a module defines at the top level."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):
                names.add(target.id)
    return names


DATASET_PATH = rows("A dataset's way, from YAML to lineage")
CHANGE_ROWS = rows("To change X, go to Y")
EXAMPLE_ROWS = rows("Fourteen changes, and the files that they open")


def missing(row: list[str], base: Path) -> set[str]:
    """Return the names in the last cell that no file in the cell before it defines."""
    files = [base / name for name in SPAN.findall(row[-2])]
    named = SPAN.findall(row[-1])
    assert files, row
    assert named, row
    assert not [file for file in files if not file.is_file()], row
    return set(named) - set().union(*map(definitions, files))


@pytest.mark.parametrize("row", DATASET_PATH, ids=[row[0] for row in DATASET_PATH])
def test_functions_on_a_datasets_way_exist(row: list[str]) -> None:
    assert not missing(row, ROOT / "crucible_lineage")


@pytest.mark.parametrize("row", CHANGE_ROWS, ids=[row[0] for row in CHANGE_ROWS])
def test_functions_to_change_exist(row: list[str]) -> None:
    assert not missing(row, ROOT)


@pytest.mark.parametrize("row", EXAMPLE_ROWS, ids=[row[0] for row in EXAMPLE_ROWS])
def test_files_of_example_changes_exist(row: list[str]) -> None:
    named = [name for name in SPAN.findall(row[-1]) if name.endswith((".py", "/"))]
    assert named, row
    assert not [
        name for name in named if not (ROOT / "crucible_lineage" / name).exists() and not (ROOT / name).exists()
    ]


def test_the_page_is_complete() -> None:
    assert len(DATASET_PATH) >= 8
    assert len(CHANGE_ROWS) >= 12
    assert len(EXAMPLE_ROWS) == 14
    others = re.findall(r"`([\w/]+\.py)`: `(\w+)`", PAGE)
    assert len(others) == 3
    assert not [pair for pair in others if pair[1] not in definitions(ROOT / pair[0])]


def test_the_picture_matches_the_imports(tmp_path: Path) -> None:
    drawn = tmp_path / "architecture.svg"
    ran = subprocess.run(
        [sys.executable, "docs/map", "--draw", drawn], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    stored = ROOT / "docs" / "images" / "architecture.svg"
    assert drawn.read_text(encoding="utf-8") == stored.read_text(encoding="utf-8"), "it is stale: make map"


def test_each_decision_has_question_reason_and_price_in_a_hundred_words() -> None:
    _, *decisions = re.split(r"^## ", (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(decisions) >= 10
    for decision in decisions:
        heading, _, text = decision.partition("\n")
        assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Question", "Decision", "Reason", "Price"], (
            heading
        )
        assert len(text.split()) <= 100, heading
