"""Datasets from `.crux` recipes, the official client's declarations, as inputs of a pipeline.

    spectrum: {crux: session.crux, id: pol_1}

If the recipe was applied before, its lock file has the MFID of the dataset, and that dataset is the input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.pipeline.declare.yaml import read_documents
from crucible_lineage.pipeline.spec.inputs import located

_FIELDS = {  # in the recipe -> in a declaration
    "name": "dataset_name",
    "measurement": "measurement",
    "instrument": "instrument_name",
    "session": "session_name",
    "public": "public",
    "keywords": "keywords",
    "metadata": "metadata",
    "timestamp": "timestamp",
    "ingestor": "ingestor",
}
_KIN = {  # kinds that may be nested in each kind, in the official client's order
    "dataset": {"children": "dataset", "parents": "dataset", "samples": "sample"},
    "sample": {"children": "sample", "parents": "sample", "datasets": "dataset"},
}


def crux_input(declared: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Return a recipe's dataset as an input: a `dataset:` if it has been created, else a `file:`."""
    path = recipe_path(declared, folder)
    others = {key: value for key, value in declared.items() if key not in ("crux", "id")}
    recipe = _read(path)
    if not recipe.datasets:
        raise InputError(f"{path} declares no dataset")
    name = str(declared.get("id", next(iter(recipe.datasets))))
    if name not in recipe.datasets or ("id" not in declared and len(recipe.datasets) > 1):
        raise InputError(f"{path}: select a dataset with `id:`; it declares {', '.join(recipe.datasets)}")
    created = _created(path)
    if (mfid := created.get(name)) is not None:
        options = {key: value for key, value in others.items() if key in ("match", "each")}
        return {"dataset": mfid, **options}
    body = recipe.datasets[name]
    if not body.get("files"):
        raise InputError(f"{path}: dataset {name!r} has no files, and has not been created yet")
    if not isinstance(body["files"], list):
        raise InputError(f"{path}: `files` of dataset {name!r} is a list, as in [scan.txt]")
    fields = {field: body[key] for key, field in _FIELDS.items() if body.get(key) is not None}
    if isinstance(fields.get("metadata"), str):
        fields["metadata"] = _metadata(path.parent / fields["metadata"])
    linked = (created.get(sample, sample) for sample in recipe.samples.get(name, ()))
    samples = [mfid for mfid in dict.fromkeys(linked) if is_mfid(mfid)]
    return {
        "file": [str(path.parent.absolute() / str(file)) for file in body["files"]],
        **fields,
        **({"samples": samples} if samples else {}),
        **others,
    }


def recipe_datasets(path: Path) -> Mapping[str, Mapping[str, object]]:
    """Return the datasets of a recipe by local id, nested ones included."""
    return _read(path).datasets


def recipe_path(declared: Mapping[str, object], folder: Path) -> Path:
    """Return the path of an input's recipe. Raises InputError if it names none."""
    if not isinstance(declared["crux"], str):
        raise InputError("crux takes the name of a file")
    return located(declared["crux"], folder)


def recipe_files(declared: Mapping[str, object], folder: Path) -> list[Path]:
    """Return all files that an input from a recipe depends on, apart from the data."""
    path = recipe_path(declared, folder)
    metadata = [body.get("metadata") for body in _read(path).datasets.values()]
    return [path, _lock_of(path), *(path.parent / name for name in metadata if isinstance(name, str))]


@dataclass(frozen=True)
class _Recipe:
    """A recipe: datasets by local id, and the samples (local id or MFID) that each was measured on."""

    datasets: dict[str, JsonMapping] = field(default_factory=dict)
    samples: dict[str, list[str]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def add(self, kind: str, body: JsonMapping) -> str:
        """Add an entity and everything nested in it; return its local id."""
        name = str(body.get("id") or self._unique(str(body.get("name", "entity"))))
        if name in self.seen:
            raise InputError(f"the id {name!r} is given twice in the recipe")
        self.seen.add(name)
        if kind == "dataset":
            self.datasets[name] = body
        for key, other in _KIN[kind].items():
            for item in body[key] if isinstance(body.get(key), list) else ():
                if isinstance(item, dict):
                    self._link(name, key, self._resolved(other, item))
        return name

    def _resolved(self, kind: str, item: Mapping[str, object]) -> str:
        return str(next(iter(item.values()))) if set(item) in ({"ref"}, {"mfid"}) else self.add(kind, item)

    def _link(self, name: str, key: str, other: str) -> None:
        if key == "samples":
            self.samples.setdefault(name, []).append(other)
        elif key == "datasets":
            self.samples.setdefault(other, []).append(name)

    def _unique(self, name: str) -> str:
        """Return the local id that the official client gives to an entity without one."""
        base = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "entity"
        numbered = (f"{base}_{number}" for number in range(2, len(self.seen) + 3))
        return base if base not in self.seen else next(name for name in numbered if name not in self.seen)


def _read(path: Path) -> _Recipe:
    recipe = _Recipe()
    for document in read_documents(path):
        if not isinstance(document.data, dict):
            raise InputError("", [document.fault((), "a recipe's document is a mapping")])
        for kind in _KIN:
            if isinstance(body := document.data.get(kind), dict):
                recipe.add(kind, body)
    return recipe


def _metadata(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error


def _lock_of(path: Path) -> Path:
    """Return the lock file, in which the official client stores the ids of what it created."""
    return path.with_suffix(path.suffix + ".lock")


def _created(path: Path) -> Mapping[str, str]:
    """Return the MFIDs of entities that have been created, by local id."""
    lock = _lock_of(path)
    try:
        content = json.loads(lock.read_text(encoding="utf-8"))
        return {name: entry if isinstance(entry, str) else entry["server_id"] for name, entry in content["ids"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{lock} cannot be read: {type(error).__name__}: {error}") from error
