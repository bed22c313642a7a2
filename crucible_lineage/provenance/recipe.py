"""The recipe of a dataset: the text that its id is derived from. Pure values; docs/identity.md says why each part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crucible_lineage.ids import derive_mfid, youngest
from crucible_lineage.refs import DatasetRef, FileRef

__all__ = ["Code", "UsedDataset", "derived_mfid", "first_attempt", "raw_mfid", "raw_recipe", "step_recipe"]


@dataclass(frozen=True)
class UsedDataset:
    """A parent in its role: the dataset, and those of its files that the step is given."""

    role: str
    dataset: DatasetRef
    files: tuple[FileRef, ...]


@dataclass(frozen=True)
class Code:
    """What a step does: the fingerprint of its code or its declared version, and the packages it lists."""

    step: str
    fingerprint: str
    packages: Mapping[str, str]


def raw_recipe(project: str, files: Iterable[FileRef], parents: Sequence[str] = ()) -> dict[str, Any]:
    """The recipe of a dataset of measured files, or, with `parents`, of a result that was made of them by hand."""
    recipe: dict[str, Any] = {
        "kind": "files",
        "project": project,
        "files": {file.name: file.sha256 for file in files},
    }
    if parents:
        recipe["inputs"] = {"parent": [{"mfid": mfid, "files": {}} for mfid in parents]}
    return recipe


def step_recipe(
    project: str,
    code: Code,
    output: str,
    params: Mapping[str, Any],
    used: Sequence[UsedDataset],
    attempt: int = 0,
) -> dict[str, Any]:
    """The recipe of one output of a step. `params` are in canonical form; `attempt` counts forced reruns."""
    inputs: dict[str, list[dict[str, Any]]] = {}
    for part in used:
        entry = {"mfid": part.dataset.mfid, "files": {file.name: file.sha256 for file in part.files}}
        inputs.setdefault(part.role, []).append(entry)
    recipe: dict[str, Any] = {
        "kind": "step",
        "project": project,
        "step": code.step,
        "output": output,
        "code": code.fingerprint,
        "params": dict(params),
        "inputs": inputs,
    }
    if code.packages:
        recipe["packages"] = dict(code.packages)
    if attempt:
        recipe["attempt"] = attempt
    return recipe


def raw_mfid(recipe: Mapping[str, Any], acquired: datetime) -> str:
    """The id of measured files taken at that moment."""
    return derive_mfid(recipe, acquired)


def first_attempt(recipe: Mapping[str, Any]) -> tuple[str, int]:
    """The id that the recipe's first attempt has, and which attempt this one is."""
    first = {key: value for key, value in recipe.items() if key != "attempt"}
    return derived_mfid(first), int(recipe.get("attempt", 0))


def derived_mfid(recipe: Mapping[str, Any]) -> str:
    """The id of an output of a step: it sorts beside the youngest of its parents."""
    parents = [entry["mfid"] for entries in recipe["inputs"].values() for entry in entries]
    return derive_mfid(recipe, youngest(parents))
