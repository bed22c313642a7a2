"""Assemble the pages of the documentation in one folder for mkdocs: `python docs/site/assemble.py FOLDER`.

The guide is docs/*.md, README.md is the first page, and the pages in GENERATED come from the package. Pages that the
navigation does not list are added to it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from command_pages import commands_page
from record_page import record_page
from tables_page import findings_page, ingestors_page, needs_page, settings_page
from task_pages import MARK, api_tasks
from yaml_page import yaml_page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")
GENERATED = {
    "reference/commands.md": ("commands", commands_page),
    "reference/findings.md": ("findings", findings_page),
    "reference/ingestors.md": ("ingestors", ingestors_page),
    "reference/needs.md": ("needs of a service", needs_page),
    "reference/record.md": ("fields of a record", record_page),
    "reference/settings.md": ("settings and exit codes", settings_page),
    "reference/yaml.md": ("YAML keys", yaml_page),
}
NAMED = re.compile(r"(?<!\[)`docs/([\w-]+\.md)`(?!\])")


def assemble(folder: Path) -> None:
    """Replace the content of `folder` by all pages and pictures, with their links adapted."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = {path.relative_to(DOCS): path for path in DOCS.glob("*.md")}
    pages |= {path.relative_to(DOCS / "site"): path for path in DOCS.glob("site/reference/*.md")}
    pages |= {Path("index.md"): ROOT / "README.md", Path("changelog.md"): ROOT / "CHANGELOG.md"}
    pages[Path("contributing.md")] = ROOT / "CONTRIBUTING.md"
    page_of = {path: page for page, path in pages.items()}
    for page, path in pages.items():
        _write(folder / page, _relinked(path, page, page_of, folder))
    shutil.copy(DOCS / "site" / "tables.css", folder)
    for name, (_, make) in GENERATED.items():
        _write(folder / name, make())
    tasks = folder / "reference" / "tasks.md"
    _write(tasks, tasks.read_text(encoding="utf-8").replace(MARK, api_tasks()))


def _relinked(path: Path, page: Path, page_of: dict[Path, Path], folder: Path) -> str:
    """Return the page's text with links for the site. Copy linked files that are not pages."""

    def relinked(match: re.Match[str]) -> str:
        target = (path.parent / match[1]).resolve()
        if not target.is_file():
            return match[1]  # mkdocs reports it
        copy = page_of.get(target)
        if copy is None:
            copy = target.relative_to(DOCS if target.is_relative_to(DOCS) else ROOT)
            (folder / copy).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, folder / copy)
        return Path("/".join([*[".."] * (len(page.parts) - 1), *copy.parts])).as_posix()

    text = LINK.sub(relinked, NAMED.sub(_linked(path), path.read_text(encoding="utf-8")))
    for name, (title, _) in GENERATED.items():  # not in the repository, so pages cannot link to them
        text = text.replace(f"`{name}`", f"[{title}]({'../' * (len(page.parts) - 1)}{name})")
    return text


def _linked(path: Path) -> Callable[[re.Match[str]], str]:
    """Return a function that turns the name of a page of the guide into a link with its title."""

    def linked(match: re.Match[str]) -> str:
        target = DOCS / match[1]
        if not target.is_file():
            return match[0]
        title = target.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        return f"[{title}]({Path(os.path.relpath(target, path.parent)).as_posix()})"

    return linked


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    assemble(Path(sys.argv[1]).resolve())
