"""The recipe of a dataset, from which its id is derived. Pure values; docs/identity.md explains each part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from crucible_lineage.errors import InputError
from crucible_lineage.ids import canonical_json, derive_mfid, has_derived_id, youngest
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.refs import DatasetRef, FileRef

NO_MOMENT = datetime(1970, 1, 1, tzinfo=UTC)
VERSION = 2  # of recipes with inputs, which are named by bytes and origin


@dataclass(frozen=True)
class UsedDataset:
    """A parent in its role, with the files that the step receives; `chosen` is the record's entry if chosen in time."""

    role: str
    dataset: DatasetRef
    files: tuple[FileRef, ...]
    chosen: JsonMapping | None = field(default=None, compare=False)


@dataclass(frozen=True)
class StepCode:
    """Identity of a step's code: its fingerprint or declared version, and the versions of listed packages."""

    step: str
    fingerprint: str
    packages: Mapping[str, str]


@dataclass(frozen=True)
class PlannedOutput:
    """An output of a step before it is made: its future dataset, and the one that it replaces."""

    output: str
    mfid: str
    recipe: JsonMapping
    supersedes: str | None = None


def raw_recipe(
    project: str, files: Iterable[FileRef], parents: Sequence[DatasetRef] = (), salt: str | None = None
) -> dict[str, object]:
    """Return the recipe of measured files, or with `parents` of a result made by hand. A `salt` changes the id."""
    recipe: JsonObject = {"kind": "files", "project": project, "files": {file.name: file.sha256 for file in files}}
    if salt:
        recipe["salt"] = salt
    if parents:
        origins = sorted({parent.source for parent in parents})
        recipe |= {"version": VERSION, "inputs": {"parent": [{"origin": origin, "files": {}} for origin in origins]}}
    return recipe


def step_recipe(
    project: str,
    code: StepCode,
    output: str,
    params: Mapping[str, object],
    used: Sequence[UsedDataset],
    attempt: int = 0,
    salt: str | None = None,
    facts: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return the recipe of one output of a step; `attempt` counts forced reruns, a `salt` changes the id."""
    inputs: dict[str, list[JsonObject]] = {}
    for part in used:
        entry = {"origin": part.dataset.source, "files": {file.name: file.sha256 for file in part.files}}
        inputs.setdefault(part.role, []).append(entry)
    recipe: JsonObject = {
        "kind": "step",
        "version": VERSION,
        "project": project,
        "step": code.step,
        "output": output,
        "code": code.fingerprint,
        "params": dict(params),
        "inputs": inputs,
    }
    if code.packages:
        recipe["packages"] = dict(code.packages)
    if facts is not None:
        recipe["facts"] = dict(facts)
    if salt:
        recipe["salt"] = salt
    if attempt:
        recipe["attempt"] = attempt
    return recipe


def planned_outputs(
    project: str,
    code: StepCode,
    outputs: Sequence[str],
    params: JsonMapping,
    used: Sequence[UsedDataset],
    *,
    attempt: int = 0,
    salt: str | None = None,
    facts: JsonMapping | None = None,
) -> tuple[PlannedOutput, ...]:
    """Return the outputs of a step for these datasets, with their ids."""
    recipes = {output: step_recipe(project, code, output, params, used, attempt, salt, facts) for output in outputs}
    return tuple(PlannedOutput(output, derived_mfid(recipe), recipe) for output, recipe in recipes.items())


def raw_mfid(recipe: Mapping[str, object], acquired: datetime | None) -> str:
    """Return the id of files measured at that moment; without one, its time bits are zero."""
    return derive_mfid(recipe, acquired or NO_MOMENT)


def derived_mfid(recipe: Mapping[str, object]) -> str:
    """Return the id of an output of a step, which sorts beside its youngest origin."""
    return derive_mfid(recipe, youngest(source for _, source, _ in recipe_inputs(recipe)))


def gives_id(recipe: JsonMapping, mfid: str) -> bool:
    """Return whether the recipe gives the id; True also for an id from the clock, which somebody gave to files."""
    try:
        if recipe.get("inputs"):
            return derived_mfid(recipe) == mfid
        return not has_derived_id(mfid) or derive_mfid(recipe, mfid) == mfid
    except (InputError, ValueError):  # a step without a parent, or not a valid recipe
        return False


def without_salt(recipe: Mapping[str, object]) -> dict[str, object]:
    """Return the recipe without its salt."""
    return {key: value for key, value in recipe.items() if key != "salt"}


def recipe_sha256(recipe: JsonMapping) -> str:
    """Return SHA-256 of the recipe's canonical JSON."""
    return hashlib.sha256(canonical_json(recipe)).hexdigest()


def first_attempt(recipe: JsonMapping) -> tuple[str, int]:
    """Return the id of the recipe's first attempt, and the number of this one."""
    first = {key: value for key, value in recipe.items() if key != "attempt"}
    return derived_mfid(first), int(recipe.get("attempt", 0))


def origin_of(recipe: JsonMapping) -> str:
    """Return the common origin of a result's inputs, or an id that stands for all; empty for measured files."""
    if not recipe.get("inputs"):
        return ""
    origins = sorted({source for _, source, _ in recipe_inputs(recipe)})
    if len(origins) == 1:
        return origins[0]
    return derive_mfid({"kind": "origins", "version": VERSION, "origins": origins}, youngest(origins))


def recipe_inputs(recipe: JsonMapping) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """Yield (role, origin, {file name: SHA-256}) of each input."""
    for role, entries in (recipe.get("inputs") or {}).items():
        for entry in entries:
            yield role, entry["origin"], entry["files"]


MOST_KEYS = 1000  # chosen: if metadata have more values, their outermost keys are listed instead
_ABSENT = object()


def result_of(metadata: Mapping[str, object], generated: Iterable[Mapping[str, object]]) -> dict[str, object]:
    """Return the `result` part of a provenance record for the registered `metadata`, without the record itself."""
    keys = [_pointer(path) for path, _ in _leaves(metadata)]
    if len(keys) > MOST_KEYS:
        keys = [_pointer((key,)) for key in metadata]
    keys.sort()
    return {
        "keys": keys,
        "metadata_sha256": _metadata_sha256(keys, metadata),
        "generated_sha256": generated_sha256(generated),
    }


def changed_keys(result: JsonMapping, metadata: JsonMapping) -> list[str]:
    """Return the missing keys, or all registered ones if a value has changed; empty if nothing has."""
    keys = list(result["keys"])
    if missing := [key for key in keys if _value(metadata, key) is _ABSENT]:
        return missing
    return keys if _metadata_sha256(keys, metadata) != result["metadata_sha256"] else []


def generated_sha256(generated: Iterable[Mapping[str, object]]) -> str:
    """Return a hash of a record's list of files, whose order does not matter."""
    entries = sorted((dict(file) for file in generated), key=lambda file: str(file["name"]))
    return hashlib.sha256(canonical_json(entries)).hexdigest()


def _metadata_sha256(keys: Iterable[str], metadata: Mapping[str, object]) -> str:
    pairs = [[key, _one_spelling(_value(metadata, key))] for key in keys]
    return hashlib.sha256(canonical_json(pairs)).hexdigest()


def _leaves(document: Mapping[str, object], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield (path, value) of everything that is not an object."""
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*above, str(key)))
        else:
            yield (*above, str(key)), value


def _pointer(path: tuple[str, ...]) -> str:
    """Return a path as JSON Pointer (RFC 6901)."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)


def _value(document: Mapping[str, object], pointer: str) -> object:
    value: Any = document
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(value, Mapping) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def _one_spelling(value: object) -> object:
    """Return a value with numbers in one spelling: databases may return 1e22 as a whole number."""
    if isinstance(value, Mapping):
        return {str(key): _one_spelling(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_one_spelling(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        return float(value) if abs(value) < 10**300 and int(float(value)) == value else value
    return value
