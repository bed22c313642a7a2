"""Check whether a tag may become a release: `python docs/release_tag.py v0.1.0`. If not, exit with 1 and the reason."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from crucible_lineage import __version__

CHANGES = Path(__file__).parents[1] / "CHANGELOG.md"


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


if __name__ == "__main__":
    sys.exit(fault(sys.argv[1] if len(sys.argv) > 1 else "", __version__, CHANGES.read_text(encoding="utf-8")))
