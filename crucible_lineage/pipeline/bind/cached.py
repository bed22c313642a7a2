"""Bound pipelines, from their file or from the cache.

A cached pipeline is valid while everything it depends on is unchanged: the declaration with its includes, and the
source files of its steps, by size, modification time and inode. This saves reading, checking and importing them again.
It is stored as JSON in the local store, beside the inspections of single steps: reading it runs no code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.collector import collector_paused
from crucible_lineage.core.store import Store
from crucible_lineage.ids import canonical_json
from crucible_lineage.json_types import JsonObject
from crucible_lineage.pipeline.bind.model import BoundPipeline, BoundStep, Variant, declared_step
from crucible_lineage.pipeline.functions.inspection import RULES, Inspection
from crucible_lineage.pipeline.spec.inputs import EachInput, FileInput, ResultInput
from crucible_lineage.pipeline.spec.pipeline import PipelineSpec

if TYPE_CHECKING:
    from crucible_lineage.pipeline.declare.yaml import Document


def bind_file(path: Path, store: Store | None = None, overrides: Mapping[str, object] | None = None) -> BoundPipeline:
    """Bind the pipeline declared in a file. Raises InputError with every fault in it.

    `overrides` holds parameters for one run, as in {"axis.degree": 4}. With a store, an earlier binding is used again
    while everything it depends on is unchanged.
    """
    key = _cache_key(path, overrides or {}) if store else None
    if store is not None and key is not None and (cached := _cached(store, key)) is not None:
        return cached
    # An unchanged pipeline needs neither the reader nor the fingerprints.
    from crucible_lineage.pipeline.bind.binder import bind
    from crucible_lineage.pipeline.declare.load import read_declaration

    declared = read_declaration(path, overrides)
    bound = bind(declared, store)
    if store is not None and key is not None and _is_cacheable(bound):
        _store(store, key, bound, declared.document)
    return bound


def _cache_key(path: Path, overrides: Mapping[str, object]) -> str | None:
    """Return the key of a pipeline in the cache: its path and this run's parameters."""
    try:
        key = canonical_json(["pipeline", str(path.absolute()), dict(overrides)])
    except (TypeError, ValueError):  # an invalid value is reported later, with its location
        return None
    return hashlib.sha256(key).hexdigest()


def _cached(store: Store, key: str) -> BoundPipeline | None:
    """Return the cached pipeline, if everything it depends on is unchanged."""
    bound = _read(store.inspection(key, RULES))
    return bound if bound and all(path.is_file() for path in _needed(bound.spec)) else None


def _store(store: Store, key: str, bound: BoundPipeline, document: Document) -> None:
    """Cache a pipeline if it survives the round trip: JSON cannot represent all of YAML."""
    try:
        stored = _to_json(bound)
    except (TypeError, ValueError):
        return
    if _read(stored) != bound:
        return
    sources = (name for step in bound.steps.values() for variant in step.variants for name in variant.inspection.files)
    store.keep_inspection(key, RULES, dict.fromkeys((*map(str, document.files), *sources)), stored)


def _to_json(bound: BoundPipeline) -> dict[str, object]:
    """Return the pipeline as JSON values. A function that many steps share is stored once."""
    functions: dict[str, int] = {}
    numbers: dict[tuple[int, ...], int] = {}
    steps = []
    for step in bound.steps.values():
        variants = []
        for variant in step.variants:
            inspection = vars(variant.inspection)
            ids = tuple(id(value) for name, value in inspection.items() if name != "params")  # `bound` keeps them alive
            if ids not in numbers:
                numbers[ids] = functions.setdefault(json.dumps({**inspection, "params": {}}), len(functions))
            number = numbers[ids]
            variants.append([variant.label, number, dict(variant.given), dict(variant.inspection.params)])
        needs, collected, dimensions = list(step.needs), sorted(step.collected), list(step.dimensions)
        steps.append([step.name, variants, needs, collected, dimensions, dict(step.locations)])
    return {
        "spec": bound.spec.model_dump_json(by_alias=True, exclude_defaults=True),
        "functions": [json.loads(function) for function in functions],
        "steps": steps,
    }


@collector_paused()
def _read(stored: Any) -> BoundPipeline | None:
    """Return the stored pipeline; None if it has another format."""
    try:
        spec = PipelineSpec.model_validate_json(stored["spec"])
        functions = [vars(_inspection(function)) for function in stored["functions"]]
        steps = {
            name: BoundStep(
                name=name,
                spec=spec.steps[name],
                variants=tuple(
                    Variant(label, given, Inspection(**{**functions[number], "params": params}))
                    for label, number, given, params in variants
                ),
                sources=spec.steps[name].sources,
                needs=tuple(needs),
                collected=frozenset(collected),
                dimensions=tuple(dimensions),
                declared=declared_step(spec, name),
                locations=locations,
            )
            for name, variants, needs, collected, dimensions, locations in stored["steps"]
        }
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return BoundPipeline(spec, steps)


def _inspection(stored: JsonObject) -> Inspection:
    inspection = Inspection.from_json(stored)
    if inspection is None:
        raise ValueError("it was written by another version")
    return inspection


def _is_cacheable(bound: BoundPipeline) -> bool:
    """Return whether it depends on files only, not on the environment, programs, package versions or secrets."""
    if bound.faults:
        return False
    inspections = (variant.inspection for step in bound.steps.values() for variant in step.variants)
    return not bound.spec.env and all(inspection.keepable for inspection in inspections)


def _needed(spec: PipelineSpec) -> Iterable[Path]:
    """Yield the files that must exist for the declaration to be valid."""
    for declared in spec.inputs.values():
        if isinstance(declared, ResultInput):
            yield declared.path
        for entry in declared.each if isinstance(declared, EachInput) else (declared,):
            if isinstance(entry, FileInput):
                yield from entry.paths or ([] if entry.optional or entry.remote else [Path("no file matches")])
