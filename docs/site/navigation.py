"""A hook of mkdocs that appends pages missing from the navigation to the guide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Return the configuration with every page of the folder in its navigation."""
    named = set(_pages(config["nav"]))
    guide = next(section["Guide"] for section in config["nav"] if "Guide" in section)
    folder = Path(config["docs_dir"])
    pages = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.md"))
    guide += [page for page in pages if page not in named]
    return config


def _pages(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else []:
        yield from _pages(inner)
