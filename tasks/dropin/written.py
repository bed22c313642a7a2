"""Where a task writes: paths told from its arguments, and which arguments name such places, as it was seen before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crucible_lineage.refs import file_stem
from crucible_lineage.tasks.dropin.result import Result, fingerprint
from crucible_lineage.tasks.dropin.values.storing import Document

__all__ = ["learn", "learned", "paths_of", "placed", "related"]


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


def learned(result: Result) -> list[str]:
    """The arguments that name where this task writes, as far as it has been seen to."""
    return [role for role in _roles_file(result).split() if role in result.arguments.places]


def learn(result: Result, places: set[str]) -> None:
    known = set(_roles_file(result).split())
    if places - known:
        path = _roles_path(result)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(sorted(known | places)), encoding="utf-8")


def _roles_file(result: Result) -> str:
    try:
        return _roles_path(result).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _roles_path(result: Result) -> Path:
    folder = result.recording.session.settings.data / "flows" / "places"
    return folder / f"{file_stem(result.described.name)}-{fingerprint(result)[:32].replace(':', '-')}"
