"""Files at a place that an argument names: all of them, and those that may be inputs; hidden ones and keys are not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from crucible_lineage.tasks.dropin.secret import is_key_file

MOST_INPUTS = 200  # files of one folder
MOST_LOOKED_AT = 20_000

Stamp = tuple[int, int]


@dataclass(frozen=True)
class FolderFiles:
    """The files at a place, and those of them that a task may have been given; what is `left_out` of these, and why."""

    paths: tuple[Path, ...]
    inputs: tuple[Path, ...]
    left_out: list[str] = field(default_factory=list)


def files_at(place: Path) -> FolderFiles:
    """The files at a place. In a folder, hidden files and folders are passed over."""
    if place.is_file():
        if is_key_file(place):
            return FolderFiles((place,), (), [f"{place.name} (a file of keys)"])
        return FolderFiles((place,), (place,))
    if not place.is_dir():
        return FolderFiles((), ())
    found = sorted(path for _, path in zip(range(MOST_LOOKED_AT), _below(str(place)), strict=False))
    keys = [path for path in found if is_key_file(path)]
    inputs = [path for path in found if path not in keys]
    left_out = [f"{path.name} in {place.name} (a file of keys)" for path in keys]
    if len(inputs) > MOST_INPUTS:
        left_out.append(f"{len(inputs) - MOST_INPUTS} of {len(inputs)} files in {place.name}")
    return FolderFiles(tuple(found), tuple(inputs[:MOST_INPUTS]), left_out)


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
    """True of the path of something that is there, or that may be written into a folder that is there."""
    if len(text) > 4096 or "\n" in text or "\0" in text or not ("/" in text or "\\" in text or "." in text):
        return False
    try:
        path = Path(text)
        return path.exists() or (len(path.parts) > 1 and path.parent.is_dir())
    except OSError:
        return False


def is_folder(value: str | Path) -> bool:
    """True of the path of a folder, as text too."""
    return (isinstance(value, Path) or looks_like_path(value)) and Path(value).is_dir()


def stamp(path: Path) -> Stamp | None:
    """Return what changes when a file is written; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
