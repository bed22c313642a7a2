"""Files, modules, commands and options that pages name exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import click
import pytest

from crucible_lineage.cli import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
FILE = re.compile(
    r"(?<![\w/.-])((?:crucible_lineage|tasks|flows|tests|docs|deployments|examples)/[\w./-]+\.(?:py|md|yaml|json))"
)
MODULE = re.compile(r"(?<![\w./:-])crucible_lineage(?:\.\w+)+")
COMMAND = re.compile(r"(?:^\$ |`)crucible-lineage ((?:[^`\n#]|(?<! )#)*)", re.MULTILINE)
GROUPS = {*map("crucible_lineage.{}".format, ("engines", "file_sources", "loaders"))}  # of entry points
by_page = pytest.mark.parametrize("page", PAGES, ids=[path.stem for path in PAGES])


def named(page: Path, pattern: re.Pattern[str]) -> set[str]:
    return {found.rstrip(".") for found in pattern.findall(page.read_text(encoding="utf-8"))}


@by_page
def test_files_named_on_a_page_exist(page: Path) -> None:
    assert not [name for name in named(page, FILE) if not (ROOT / name).exists()]


def exists(name: str) -> bool:
    """Check that a name is a module or an attribute in one."""
    if name in GROUPS:
        return True
    parts = name.split(".")
    for at in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:at]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[at:]:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False


@by_page
def test_names_of_the_package_on_a_page_exist(page: Path) -> None:
    assert not [name for name in named(page, MODULE) if not exists(name)]


def faults(line: str) -> list[str]:
    """Return the words of a command line that are neither a command nor one of its options."""
    words = line.partition(" # ")[0].split()
    group: click.Command = main
    while words and isinstance(group, click.Group):
        if words[0].startswith("-"):
            break
        found = group.get_command(click.Context(group), words[0].rstrip(",;:)"))
        if found is None:
            return [words[0]]
        group, words = found, words[1:]
    known = {option for parameter in group.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h"}
    options = [word.partition("=")[0].rstrip(",;:)].") for word in words if re.match(r"--?[a-z]", word.lstrip("[("))]
    return [word for word in (name.lstrip("[(") for name in options) if word not in known]


@by_page
def test_commands_on_a_page_have_the_shown_options(page: Path) -> None:
    wrong = {line: bad for line in named(page, COMMAND) if line.strip() and (bad := faults(line))}
    assert not wrong


def test_the_glossary_has_at_most_twenty_rows() -> None:
    rows = re.findall(r"^\| \*\*", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert 0 < len(rows) <= 20


def test_the_guide_is_short() -> None:
    """The README and all pages of docs/, without code and generated references."""
    pages = [DOCS.parent / "README.md", *DOCS.glob("*.md")]
    prose = (re.sub(r"^```.*?^```", " ", page.read_text(encoding="utf-8"), flags=re.M | re.S) for page in pages)
    assert sum(len(re.findall(r"\S*\w\S*", text)) for text in prose) <= 20_000
