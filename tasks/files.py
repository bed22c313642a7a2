"""Files at the paths in the arguments of a call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from crucible_lineage.masking import is_key_file

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


def possible_path(text: object) -> Path | None:
    """Return the path that a text may be; None for other values, texts of several lines, and those of dots alone."""
    if not isinstance(text, str) or len(text) > 1024 or not text.strip("./\\ ") or not text.isprintable():
        return None
    if "://" in text or len(max(Path(text).parts, key=len)) > 255:
        return None
    return Path(text)


def names_file(text: str) -> bool:
    """Return whether a text is the path of an existing file, with the name of a folder: a word alone is a word."""
    path = possible_path(text)
    return path is not None and len(path.parts) > 1 and path.is_file()


def is_folder(value: object) -> bool:
    """Return whether a value is the path of a folder, also as text."""
    path = value if isinstance(value, Path) else possible_path(value)
    return path is not None and path.is_dir()


def is_under(path: Path, folders: Iterable[Path]) -> bool:
    """Return whether a path is one of these, or below one of these."""
    return any(path == folder or folder in path.parents for folder in folders)
