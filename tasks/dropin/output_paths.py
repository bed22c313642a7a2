"""Where a task writes: paths told from its arguments, and which arguments name such places, as it was seen before."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from crucible_lineage.refs import file_stem
from crucible_lineage.tasks.dropin.result import TaskResult, fingerprint
from crucible_lineage.tasks.dropin.secret import holds_secret, is_key_file
from crucible_lineage.tasks.dropin.values.storing import Document


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
