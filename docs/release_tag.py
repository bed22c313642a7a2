"""Check whether a tag may become a release: `python docs/release_tag.py v0.1.0`. If not, exit with 1 and the reason."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path

from crucible_lineage import __version__

ROOT = Path(__file__).parents[1]


def fault(tag: str, version: str, changes: str) -> str | None:
    """Return what prevents the release; None if nothing does."""
    if tag != f"v{version}":
        return f"the tag is {tag!r}, but the package is {version} (crucible_lineage/__init__.py); tag it v{version}"
    heading = re.search(rf"^## {re.escape(version)}(.*)$", changes, re.MULTILINE)
    if heading is None:
        return f"CHANGELOG.md has no section for {version}"
    if not re.search(r"\d{4}-\d{2}-\d{2}", heading[1]):
        return f"CHANGELOG.md says {heading[0][3:]!r}; write the day of the release, as in '## {version}, 2026-12-01'"
    return None


def misplaced(home: str) -> str | None:
    """Return what prevents a release from this repository, whose links lead to `home`; None if nothing does."""
    built_at = f"{os.environ.get('GITHUB_SERVER_URL', '')}/{os.environ.get('GITHUB_REPOSITORY', '')}"
    if built_at in ("/", home):
        return None
    return f"this is {built_at}, but the links of the package lead to {home} (pyproject.toml, [project.urls])"


if __name__ == "__main__":
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    tag = sys.argv[1] if len(sys.argv) > 1 else ""
    sys.exit(fault(tag, __version__, changes) or misplaced(declared["project"]["urls"]["Repository"]))
