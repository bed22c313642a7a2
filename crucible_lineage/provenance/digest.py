"""Hashes of what was registered with a dataset: its scientific metadata and its list of files.

The id of a dataset follows from its recipe, and its result is known only later. These hashes in the provenance record
reveal later edits. Ingestion may add keys, so only the registered ones are compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from crucible_lineage.ids import canonical_json
from crucible_lineage.json_types import JsonMapping

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
