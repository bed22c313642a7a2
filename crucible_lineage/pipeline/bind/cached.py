"""A bound pipeline, made from its file or taken as it was kept when it was last bound.

What was kept holds as long as nothing it rests on has changed: the declaration with what it includes, and the source
files of its steps, by size, modification time and inode. It saves reading, checking and importing all of them again.
It lies in the local store beside the inspections of single steps, as JSON: to read it runs no code.
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
from crucible_lineage.pipeline.bind.model import BoundPipeline, BoundStep, Variant, declared_step
from crucible_lineage.pipeline.functions.inspection import RULES, Inspection
from crucible_lineage.pipeline.spec.inputs import EachInput, FileInput, ResultInput
from crucible_lineage.pipeline.spec.pipeline import PipelineSpec

if TYPE_CHECKING:
    from crucible_lineage.pipeline.declare.yaml import Document


def bind_file(path: Path, store: Store | None = None, overrides: Mapping[str, object] | None = None) -> BoundPipeline:
    """The pipeline declared in a file, bound. InputError with every fault in it.

    `overrides` holds parameters for one run, as in {"axis.degree": 4}. With a store, what was bound before is used
    again while nothing it rests on has changed.
    """
    asked = _asked(path, overrides or {}) if store else None
    if store is not None and asked is not None and (found := _cached(store, asked)) is not None:
        return found
    # An unchanged pipeline needs neither the reader nor the fingerprints.
    from crucible_lineage.pipeline.bind.binder import bind
    from crucible_lineage.pipeline.declare.load import read_declaration

    declared = read_declaration(path, overrides)
    bound = bind(declared, store)
    if store is not None and asked is not None and _is_cacheable(bound):
        _keep(store, asked, bound, declared.document)
    return bound


def _asked(path: Path, overrides: Mapping[str, object]) -> str | None:
    """Return the key of a pipeline in the cache: its path and this run's parameters."""
    try:
        asked = canonical_json(["pipeline", str(path.absolute()), dict(overrides)])
    except (TypeError, ValueError):  # a value that is refused later, with its place
        return None
    return hashlib.sha256(asked).hexdigest()


def _cached(store: Store, asked: str) -> BoundPipeline | None:
    """The pipeline that was kept, if all it rests on is unchanged."""
    bound = _read(store.inspection(asked, RULES))
    return bound if bound and all(path.is_file() for path in _needed(bound.spec)) else None


def _keep(store: Store, asked: str, bound: BoundPipeline, document: Document) -> None:
    """The pipeline is kept, if what is read again is the same: JSON does not hold all that YAML can say."""
    try:
        written = _written(bound)
    except (TypeError, ValueError):
        return
    if _read(written) != bound:
        return
    sources = (name for step in bound.steps.values() for variant in step.variants for name in variant.inspection.files)
    store.keep_inspection(asked, RULES, dict.fromkeys((*map(str, document.files), *sources)), written)


def _written(bound: BoundPipeline) -> dict[str, object]:
    """The pipeline as JSON values. What many steps have in common, their function, is there once."""
    functions: dict[str, int] = {}
    numbers: dict[tuple[int, ...], int] = {}
    steps = []
    for step in bound.steps.values():
        variants = []
        for variant in step.variants:
            inspection = vars(variant.inspection)
            same = tuple(
                id(value) for name, value in inspection.items() if name != "params"
            )  # which `bound` keeps alive
            if same not in numbers:
                numbers[same] = functions.setdefault(json.dumps({**inspection, "params": {}}), len(functions))
            number = numbers[same]
            variants.append([variant.label, number, dict(variant.given), dict(variant.inspection.params)])
        needs, collected, dimensions = list(step.needs), sorted(step.collected), list(step.dimensions)
        steps.append([step.name, variants, needs, collected, dimensions, dict(step.places)])
    return {
        "spec": bound.spec.model_dump_json(by_alias=True, exclude_defaults=True),
        "functions": [json.loads(function) for function in functions],
        "steps": steps,
    }


@collector_paused()
def _read(written: Any) -> BoundPipeline | None:
    """The pipeline that was written; None if it was written in another way."""
    try:
        spec = PipelineSpec.model_validate_json(written["spec"])
        functions = [vars(_inspection(function)) for function in written["functions"]]
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
                places=places,
            )
            for name, variants, needs, collected, dimensions, places in written["steps"]
        }
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return BoundPipeline(spec, steps)


def _inspection(stored: dict[str, Any]) -> Inspection:
    inspection = Inspection.from_json(stored)
    if inspection is None:
        raise ValueError("it was written by another version")
    return inspection


def _is_cacheable(bound: BoundPipeline) -> bool:
    """Not if it rests on more than files: on the environment, on programs, on versions of packages, or on a secret."""
    if bound.faults:
        return False
    inspections = (variant.inspection for step in bound.steps.values() for variant in step.variants)
    return not bound.spec.env and all(inspection.keepable for inspection in inspections)


def _needed(spec: PipelineSpec) -> Iterable[Path]:
    """The files that have to be there for the declaration to be without fault."""
    for declared in spec.inputs.values():
        if isinstance(declared, ResultInput):
            yield declared.path
        for entry in declared.each if isinstance(declared, EachInput) else (declared,):
            if isinstance(entry, FileInput):
                yield from entry.paths or ([] if entry.optional or entry.remote else [Path("no file fits the pattern")])
