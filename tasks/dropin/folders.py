"""Files at a path in an argument: all of them, and those that may be inputs (no hidden files, no keys)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from crucible_lineage.tasks.dropin.secret import is_key_file

MOST_INPUTS = 200  # files of one folder
MOST_FILES = 20_000


@dataclass(frozen=True)
class FolderFiles:
    """Files at a path, those that may be inputs, and notes about those `left_out` of these."""

    paths: tuple[Path, ...]
    inputs: tuple[Path, ...]
    left_out: list[str] = field(default_factory=list)


def files_at(path: Path) -> FolderFiles:
    """Find the files at a path. Hidden files and folders in it are skipped."""
    if path.is_file():
        if is_key_file(path):
            return FolderFiles((path,), (), [f"{path.name} (a file of keys)"])
        return FolderFiles((path,), (path,))
    if not path.is_dir():
        return FolderFiles((), ())
    files = sorted(islice(_below(str(path)), MOST_FILES))
    keys = [file for file in files if is_key_file(file)]
    inputs = [file for file in files if file not in keys]
    left_out = [f"{file.name} in {path.name} (a file of keys)" for file in keys]
    if len(inputs) > MOST_INPUTS:
        left_out.append(f"{len(inputs) - MOST_INPUTS} of {len(inputs)} files in {path.name}")
    return FolderFiles(tuple(files), tuple(inputs[:MOST_INPUTS]), left_out)


def _below(folder: str) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path)
            elif entry.is_file():
                yield Path(entry.path)


def looks_like_path(text: str) -> bool:
    """Return whether text is a path that exists, or that may be written into an existing folder."""
    if len(text) > 4096 or "\n" in text or "\0" in text or not ("/" in text or "\\" in text or "." in text):
        return False
    try:
        path = Path(text)
        return path.exists() or (len(path.parts) > 1 and path.parent.is_dir())
    except OSError:
        return False


def is_folder(value: str | Path) -> bool:
    """Return whether a value is the path of a folder, also as text."""
    return (isinstance(value, Path) or looks_like_path(value)) and Path(value).is_dir()
