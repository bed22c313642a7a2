"""Datasets out of `.crux` recipes, the official client's declarations, as inputs of a pipeline.

    spectrum: {crux: session.crux, id: pol_1}

If the recipe was applied already, its lock file names the dataset's MFID, and that dataset is the input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.document import read_documents
from crucible_lineage.pipeline.input_spec import located

__all__ = ["crux_input", "lock_of"]

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
_KIN = ("children", "parents")


def crux_input(declared: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The input that a dataset of a recipe stands for: a `dataset:` once it was made, else a `file:`."""
    path = located(str(declared["crux"]), folder)
    others = {key: value for key, value in declared.items() if key not in ("crux", "id")}
    datasets = dict(_datasets(path))
    if not datasets:
        raise InputError(f"{path} declares no dataset")
    name = str(declared.get("id", next(iter(datasets))))
    if name not in datasets or ("id" not in declared and len(datasets) > 1):
        raise InputError(f"{path}: say which dataset with `id:`; it declares {', '.join(datasets)}")
    made = _locked(path)
    if (mfid := made.get(name)) is not None:
        kept = {key: value for key, value in others.items() if key in ("match", "each")}
        return {"dataset": mfid, **kept}
    body = datasets[name]
    if not body.get("files"):
        raise InputError(f"{path}: dataset {name!r} has no files, and was not made yet")
    fields = {ours: body[theirs] for theirs, ours in _FIELDS.items() if body.get(theirs) is not None}
    if isinstance(fields.get("metadata"), str):
        fields["metadata"] = json.loads((path.parent / fields["metadata"]).read_text(encoding="utf-8"))
    named = [item for item in body.get("samples") or () if isinstance(item, dict)]
    samples = [mfid for item in named if (mfid := item.get("mfid") or made.get(str(item.get("ref"))))]
    return {
        "file": [str(path.parent.absolute() / file) for file in body["files"]],
        **fields,
        **({"samples": samples} if samples else {}),
        **others,
    }


def _datasets(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each dataset of the recipe under its local id, also those declared within another one."""
    seen: set[str] = set()
    for document in read_documents(path):
        if not isinstance(document.data, dict):
            raise InputError("", [document.finding((), "a recipe's document is a mapping")])
        body = document.data.get("dataset")
        if isinstance(body, dict):
            yield from _with_kin(body, seen)


def _with_kin(body: Mapping[str, Any], seen: set[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    name = str(body.get("id") or _unique(str(body.get("name", "entity")), seen))
    seen.add(name)
    yield name, body
    for item in (item for key in _KIN for item in body.get(key) or ()):
        if isinstance(item, dict) and set(item) not in ({"ref"}, {"mfid"}):
            yield from _with_kin(item, seen)


def _unique(name: str, seen: set[str]) -> str:
    """The local id that the official client gives to a dataset without one."""
    base = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "entity"
    numbered = (f"{base}_{number}" for number in range(2, len(seen) + 3))
    return base if base not in seen else next(candidate for candidate in numbered if candidate not in seen)


def lock_of(path: Path) -> Path:
    """The file in which the official client notes what it made of a recipe."""
    return path.with_suffix(path.suffix + ".lock")


def _locked(path: Path) -> Mapping[str, Any]:
    """Local id -> MFID of what was made already."""
    lock = lock_of(path)
    try:
        said = json.loads(lock.read_text(encoding="utf-8"))
        return {name: entry["server_id"] for name, entry in said["ids"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{lock} cannot be read: {type(error).__name__}: {error}") from error
