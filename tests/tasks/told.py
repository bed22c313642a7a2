"""All that flows have left in the projects of Crucible and at Prefect, as text, with names in place of ids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crucible_lineage.lineage.records import is_support
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.eventually import eventually
from tests.golden.stored import normal

WARNING = re.compile(r"^.*\| WARNING +\| (?:(?:Task|Flow) run '.*?' - |.* - )?")
MADE = "prefect.asset.materialization"


def told(data: Path, folder: Path, stderr: str, prefect: Any = None) -> str:
    """Return all datasets with what is known of them, artifacts and events about them at Prefect, and the warnings."""
    ids: dict[str, str] = {}
    with Session(Settings(data)) as session:
        lines = [line for one in session.client.projects.list() for line in _project(session, one.project_id, ids)]
    if prefect is not None:
        lines += [*_artifacts(prefect, ids, folder), "", "== events", *_events(prefect, ids, lines)]
    warnings = (WARNING.sub("", line) for line in stderr.splitlines() if WARNING.match(line))
    lines += ["", "== warnings", *sorted(line for line in warnings if "Still processing items" not in line)]
    return normal("\n".join(lines), ids, folder)


def _project(session: Session, project: str, ids: dict[str, str]) -> Iterator[str]:
    client = session.client
    found = client.datasets.list(project_id=project, include_metadata=True, limit=None)
    found = [one for one in found if not is_support(one.model_dump())]
    ids |= {one.unique_id: str(one.dataset_name) for one in found}
    yield f"\n== {project}"
    for text in sorted(json.dumps(_dataset(client, one, ids)) for one in found):
        (_, name), *fields = json.loads(text).items()
        yield f"\n{name}:"
        yield from (f"  {key}: {json.dumps(value)}" for key, value in fields if value not in (None, "", [], {}, False))


def _dataset(client: Any, one: Any, ids: Mapping[str, str]) -> dict[str, Any]:
    metadata = dict(one.scientific_metadata or {})
    record, slots = metadata.pop("crucible_lineage"), metadata.pop("crucible_lineage_places", {})
    recipe, activity = record["recipe"], record.get("activity", {})
    return {
        "name": one.dataset_name,
        **{name: getattr(one, name) for name in ("measurement", "data_type", "session_name", "public")},
        "keywords": sorted(word.keyword for word in client.datasets.get_keywords(one.unique_id)),
        "files": sorted(_file(file.filename, file.size) for file in client.files.list(one.unique_id)),
        "parents": sorted(ids[parent.unique_id] for parent in client.datasets.list_parents(one.unique_id)),
        **metadata,
        "slots": sorted(slots),
        "used": [f"{use['role']}: {ids[use['mfid']]} {_names(use['files'])}" for use in record["used"]],
        "origins": [
            f"{role}: {ids[use['origin']]} {[*use['files']]}"
            for role, uses in recipe.get("inputs", {}).items()
            for use in uses
        ],
        "params": dict(sorted(recipe.get("params", {}).items())),
        "salted": "salt" in recipe,
        "function": activity.get("function"),
        "note": activity.get("note"),
    }


def _file(name: str, size: int) -> str:
    return name if name.endswith(".parquet") else f"{name} of {size}"  # whose size depends on the libraries


def _names(files: Any) -> list[str]:
    return [file["name"] for file in files]


def _artifacts(prefect: Any, ids: Mapping[str, str], folder: Path) -> Iterator[str]:
    found = prefect.post("artifacts/filter", {"artifacts": {"key": {"any_": ["lineage"]}}})
    for text in sorted(normal(re.sub(r"\(data:.*\)", "(...)", one["data"]), ids, folder) for one in found):
        if any(f"<{name}>" in text for name in ids.values()):  # tests share a server
            yield from ("", "== artifact", *sorted(filter(None, text.splitlines())))


def _events(prefect: Any, ids: Mapping[str, str], lines: list[str]) -> list[str]:
    count = sum("  used: " in line and "parent: " not in line for line in lines)

    def found() -> list[Any]:
        return list(prefect.events(MADE, lambda event: _name(event["resource"], ids) in ids.values()))

    eventually(lambda: len(found()) >= count, 20)
    told = []
    for event in found():
        parents = sorted(filter(None, (_name(one, ids) for one in event["related"])))
        told.append(f"{event['resource']['prefect.resource.name']} of {parents}: {json.dumps(event['payload'])}")
    return sorted(told)


def _name(resource: Mapping[str, str], ids: Mapping[str, str]) -> str | None:
    return ids.get(resource["prefect.resource.id"].removeprefix("crucible://dataset/"))
