"""Output paths of a task, relative to its arguments, and which arguments named them in earlier calls."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.refs import file_stem
from crucible_lineage.tasks.dropin.result import TaskResult, fingerprint
from crucible_lineage.tasks.dropin.secret import holds_secret, is_key_file


def files_written(result: TaskResult, returned: Collection[Path]) -> dict[str, list[Path]]:
    """Return the files that the call wrote at paths in its arguments, by argument; never those of other calls.

    If several calls wrote to one folder at once, a file that no call was seen to open belongs to the call that returns
    its path; other such files cause a warning.
    """
    written: dict[str, list[Path]] = {}
    unsure: list[Path] = []
    for role, paths in result.arguments.changed_files().items():
        if not result.description.may_write(role.partition("-")[0]):
            continue
        for path in paths:
            is_own = True if path in returned or result.opened is None else result.opened.is_own(path)
            if is_own is None:
                unsure.append(path)
            elif is_own and (is_key_file(path) or holds_secret(path)):
                result.logger.warning(
                    "%s is left out of the result of %s: it holds keys or a secret", path.name, result.description.name
                )
            elif is_own:
                written.setdefault(role, []).append(path)
    if unsure:
        names = ", ".join(path.name for path in unsure[:5])
        result.logger.warning(
            "cannot tell which call wrote %s: several wrote there at once, by a library that opens files by itself; "
            "return the paths, or say lineage.wrote(path)",
            names,
        )
    return written


def relative_paths(document: JsonObject, roots: Mapping[str, Path]) -> JsonObject:
    """Make paths in a document relative to the arguments that contain them, so that they hold in another folder."""
    if "parts" in document:
        return {**document, "parts": [relative_paths(part, roots) for part in document["parts"]]}
    if "path" not in document:
        return document
    path = Path(document["path"])
    for role, root in roots.items():
        if path == root or root in path.parents:
            return {**{k: v for k, v in document.items() if k != "path"}, "at": [role, str(path.relative_to(root))]}
    return document


def absolute_paths(document: JsonObject, roots: Mapping[str, Path]) -> JsonObject:
    """Undo `relative_paths`."""
    if "parts" in document:
        return {**document, "parts": [absolute_paths(part, roots) for part in document["parts"]]}
    if "at" not in document:
        return document
    role, relative = document["at"]
    return {**document, "path": str(roots[role] / relative) if relative != "." else str(roots[role])}


def paths_of(document: JsonObject, metadata: JsonMapping, roots: Mapping[str, Path]) -> list[Path]:
    """Return the paths of the files that were restored with a result."""
    paths = [roots[role] / relative if relative else roots[role] for role, relative, _ in metadata.get("written", ())]
    for part in document.get("parts", [document]) if document else ():
        if "path" in part and Path(part["path"]).is_file():
            paths.append(Path(part["path"]))
    return list(dict.fromkeys(paths))


def learned_output_roles(result: TaskResult) -> list[str]:
    """Return the arguments that named output paths in earlier calls of this task."""
    return [role for role in _read_roles(result).split() if role in result.arguments.paths]


def learn_output_roles(result: TaskResult, roles: set[str]) -> None:
    """Note the arguments that named output paths in this call."""
    known = set(_read_roles(result).split())
    if roles - known:
        path = _roles_path(result)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(sorted(known | roles)), encoding="utf-8")


def _read_roles(result: TaskResult) -> str:
    try:
        return _roles_path(result).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _roles_path(result: TaskResult) -> Path:
    folder = result.recording.session.settings.data / "flows" / "places"
    return folder / f"{file_stem(result.description.name)}-{fingerprint(result)[:32].replace(':', '-')}"
