"""docs/architecture.md is true: its picture is that of the imports, and whatever it names is where it says."""

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
    """The cells of the table below a heading, a row each."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def definitions(file: Path) -> set[str]:
    """The names that a module defines at its top."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):
                names.add(target.id)
    return names


WAY = rows("A dataset's way, from YAML to lineage")
PLACES = rows("To change X, go to Y")
INVARIANTS = rows("Invariants, and where each is tested")
TWELVE = rows("Twelve changes, and the files that they open")


def missing(row: list[str], base: Path) -> set[str]:
    """What the last cell names, and none of the files in the cell before defines."""
    files = [base / name for name in SPAN.findall(row[-2])]
    named = SPAN.findall(row[-1])
    assert files, row
    assert named, row
    assert not [file for file in files if not file.is_file()], row
    return set(named) - set().union(*map(definitions, files))


@pytest.mark.parametrize("row", WAY, ids=[row[0] for row in WAY])
def test_a_datasets_way_leads_through_functions_that_are_there(row: list[str]) -> None:
    assert not missing(row, ROOT / "crucible_lineage")


@pytest.mark.parametrize("row", PLACES, ids=[row[0] for row in PLACES])
def test_to_change_something_one_goes_where_the_page_says(row: list[str]) -> None:
    assert not missing(row, ROOT)


@pytest.mark.parametrize("row", INVARIANTS, ids=[row[0] for row in INVARIANTS])
def test_every_invariant_has_its_test(row: list[str]) -> None:
    assert not missing(row, ROOT)


@pytest.mark.parametrize("row", TWELVE, ids=[row[0] for row in TWELVE])
def test_a_change_opens_files_that_are_there(row: list[str]) -> None:
    named = [name for name in SPAN.findall(row[-1]) if name.endswith((".py", "/"))]
    assert named, row
    assert not [
        name for name in named if not (ROOT / "crucible_lineage" / name).exists() and not (ROOT / name).exists()
    ]


def test_the_page_says_enough() -> None:
    assert len(WAY) >= 8
    assert len(PLACES) >= 12
    assert len(INVARIANTS) >= 12
    assert len(TWELVE) == 12
    beside = re.findall(r"`([\w/]+\.py)`: `(\w+)`", PAGE)
    assert len(beside) == 3
    assert not [pair for pair in beside if pair[1] not in definitions(ROOT / pair[0])]


def test_the_picture_is_that_of_the_imports(tmp_path: Path) -> None:
    drawn = tmp_path / "architecture.svg"
    ran = subprocess.run(
        [sys.executable, "docs/map", "--draw", drawn], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    stored = ROOT / "docs" / "images" / "architecture.svg"
    assert drawn.read_text(encoding="utf-8") == stored.read_text(encoding="utf-8"), "it is stale: make map"


def test_the_decisions_have_a_page_each_and_a_place_in_the_list() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\(([\w-]+\.md)\)", (folder / "index.md").read_text(encoding="utf-8"))
    pages = sorted(path.name for path in folder.glob("*.md") if path.name != "index.md")
    assert sorted(listed) == pages
    assert len(pages) >= 10
    for name in pages:
        headings = re.findall(r"^## (.+)$", (folder / name).read_text(encoding="utf-8"), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences"], name
