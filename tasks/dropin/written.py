"""Files at the places that arguments name, and where a task writes, as it was seen before."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crucible_lineage.refs import file_stem
from crucible_lineage.tasks.dropin.result import TaskResult, fingerprint
from crucible_lineage.tasks.dropin.secret import holds_secret, is_key_file
from crucible_lineage.tasks.dropin.values.storing import Document

__all__ = [
    "FilesAt",
    "Stamp",
    "files_at",
    "files_written",
    "is_folder",
    "learn",
    "learned",
    "looks_like_path",
    "paths_of",
    "placed",
    "related",
    "stamp",
]


def files_written(result: TaskResult, returned: Collection[Path]) -> dict[str, list[Path]]:
    """The files that the call has written at places that its arguments name, by argument; never those of other calls.

    Where several calls wrote to one folder at once, a file that nobody was seen to open belongs to the call that
    returns it; of others is warned.
    """
    found: dict[str, list[Path]] = {}
    unsure: list[Path] = []
    for role, paths in result.arguments.changed_files().items():
        if not result.described.may_write(role.partition("-")[0]):
            continue
        for path in paths:
            is_own = True if path in returned or result.opened is None else result.opened.is_own(path)
            if is_own is None:
                unsure.append(path)
            elif is_key_file(path) or holds_secret(path):
                result.logger.warning(
                    "%s is left out of the result of %s: it holds keys or a secret", path.name, result.described.name
                )
            elif is_own:
                found.setdefault(role, []).append(path)
    if unsure:
        names = ", ".join(path.name for path in unsure[:5])
        result.logger.warning(
            "cannot tell which call wrote %s: several wrote there at once, by a library that opens files by itself; "
            "return the paths, or say lineage.wrote(path)",
            names,
        )
    return found


def related(document: Document, places: Mapping[str, Path]) -> Document:
    """Paths in it told from the arguments that they lie under, so that they mean the same in another folder."""
    if "parts" in document:
        return {**document, "parts": [related(part, places) for part in document["parts"]]}
    if "path" not in document:
        return document
    path = Path(document["path"])
    for role, root in places.items():
        if path == root or root in path.parents:
            return {**{k: v for k, v in document.items() if k != "path"}, "at": [role, str(path.relative_to(root))]}
    return document


def placed(document: Document, places: Mapping[str, Path]) -> Document:
    """The other way round."""
    if "parts" in document:
        return {**document, "parts": [placed(part, places) for part in document["parts"]]}
    if "at" not in document:
        return document
    role, place = document["at"]
    return {**document, "path": str(places[role] / place) if place != "." else str(places[role])}


def paths_of(document: Document, told: Mapping[str, Any], places: Mapping[str, Path]) -> list[Path]:
    """The files that stand again where they were."""
    found = [places[role] / place if place else places[role] for role, place, _ in told.get("written", ())]
    for part in document.get("parts", [document]) if document else ():
        if "path" in part and Path(part["path"]).is_file():
            found.append(Path(part["path"]))
    return list(dict.fromkeys(found))


def learned(result: TaskResult) -> list[str]:
    """The arguments that name where this task writes, as far as it has been seen to."""
    return [role for role in _roles_file(result).split() if role in result.arguments.places]


def learn(result: TaskResult, places: set[str]) -> None:
    known = set(_roles_file(result).split())
    if places - known:
        path = _roles_path(result)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(sorted(known | places)), encoding="utf-8")


def _roles_file(result: TaskResult) -> str:
    try:
        return _roles_path(result).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _roles_path(result: TaskResult) -> Path:
    folder = result.recording.session.settings.data / "flows" / "places"
    return folder / f"{file_stem(result.described.name)}-{fingerprint(result)[:32].replace(':', '-')}"


MOST_INPUTS = 200  # files of one folder
MOST_LOOKED_AT = 20_000

Stamp = tuple[int, int]


@dataclass(frozen=True)
class FilesAt:
    """The files at a place, and those of them that a task may have been given; what is `left_out` of these, and why."""

    paths: tuple[Path, ...]
    inputs: tuple[Path, ...]
    left_out: list[str] = field(default_factory=list)


def files_at(place: Path) -> FilesAt:
    """The files at a place. In a folder, hidden files and folders are passed over."""
    if place.is_file():
        if is_key_file(place):
            return FilesAt((place,), (), [f"{place.name} (a file of keys)"])
        return FilesAt((place,), (place,))
    if not place.is_dir():
        return FilesAt((), ())
    found = sorted(path for _, path in zip(range(MOST_LOOKED_AT), _below(str(place)), strict=False))
    keys = [path for path in found if is_key_file(path)]
    inputs = [path for path in found if path not in keys]
    left_out = [f"{path.name} in {place.name} (a file of keys)" for path in keys]
    if len(inputs) > MOST_INPUTS:
        left_out.append(f"{len(inputs) - MOST_INPUTS} of {len(inputs)} files in {place.name}")
    return FilesAt(tuple(found), tuple(inputs[:MOST_INPUTS]), left_out)


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
