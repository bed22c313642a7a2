"""The documentation's pages put together in one folder, for mkdocs: `python docs/site/assemble.py FOLDER`.

The guide is docs/*.md as it stands, README.md is the first page, and the pages in MADE are generated from
the package. A page that the navigation does not name yet is added to it.
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
from services_page import services_page
from tables_page import findings_page, ingestors_page, settings_page
from task_pages import MARK, api_tasks
from yaml_page import yaml_page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")
MADE = {
    "reference/commands.md": ("commands", commands_page),
    "reference/findings.md": ("findings", findings_page),
    "reference/ingestors.md": ("ingestors", ingestors_page),
    "reference/record.md": ("fields of a record", record_page),
    "reference/services.md": ("assumptions", services_page),
    "reference/settings.md": ("settings and exit codes", settings_page),
    "reference/yaml.md": ("YAML keys", yaml_page),
}
NAMED = re.compile(r"(?<!\[)`docs/([\w-]+\.md)`(?!\])")


def assemble(folder: Path) -> None:
    """All pages and pictures are in `folder`, which held nothing else, and every link among them leads somewhere."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = {path.relative_to(DOCS): path for path in [*DOCS.glob("*.md"), *DOCS.glob("decisions/*.md")]}
    pages |= {path.relative_to(DOCS / "site"): path for path in DOCS.glob("site/reference/*.md")}
    pages |= {Path("index.md"): ROOT / "README.md", Path("changelog.md"): ROOT / "CHANGELOG.md"}
    pages[Path("contributing.md")] = ROOT / "CONTRIBUTING.md"
    places = {path: page for page, path in pages.items()}
    for page, path in pages.items():
        _write(folder / page, _relinked(path, page, places, folder))
    shutil.copy(DOCS / "site" / "tables.css", folder)
    for name, (_, make) in MADE.items():
        _write(folder / name, make())
    tasks = folder / "reference" / "tasks.md"
    _write(tasks, tasks.read_text(encoding="utf-8").replace(MARK, api_tasks()))


def _relinked(path: Path, page: Path, places: dict[Path, Path], folder: Path) -> str:
    """The page's text, its links as they are in the site. A file that is no page is copied beside."""

    def relinked(found: re.Match[str]) -> str:
        target = (path.parent / found[1]).resolve()
        if not target.is_file():
            return found[1]  # mkdocs tells of it
        place = places.get(target)
        if place is None:
            place = target.relative_to(DOCS if target.is_relative_to(DOCS) else ROOT)
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, folder / place)
        return Path("/".join([*[".."] * (len(page.parts) - 1), *place.parts])).as_posix()

    text = LINK.sub(relinked, NAMED.sub(_linked(path), path.read_text(encoding="utf-8")))
    for made, (title, _) in MADE.items():  # no files of the repository, so that pages cannot link to them themselves
        text = text.replace(f"`{made}`", f"[{title}]({'../' * (len(page.parts) - 1)}{made})")
    return text


def _linked(path: Path) -> Callable[[re.Match[str]], str]:
    """What makes a link of the name of a page of the guide, called as that page is."""

    def linked(found: re.Match[str]) -> str:
        target = DOCS / found[1]
        if not target.is_file():
            return found[0]
        title = target.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        return f"[{title}]({Path(os.path.relpath(target, path.parent)).as_posix()})"

    return linked


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    assemble(Path(sys.argv[1]).resolve())
