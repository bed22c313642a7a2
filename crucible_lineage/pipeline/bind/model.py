"""A pipeline bound to its functions, and how one is come by: from its file, or as it was kept when it was last bound.

What was kept holds as long as nothing it rests on has changed: the declaration with what it includes, and the source
files of its steps, by size, modification time and inode. It saves reading, checking and importing all of them again.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.hashing import stamp
from crucible_lineage.ids import canonical_json
from crucible_lineage.local.store import Store
from crucible_lineage.pipeline.spec.inputs import EachInput, FileInput, ResultInput
from crucible_lineage.pipeline.spec.pipeline import PipelineSpec, Source, StepSpec

if TYPE_CHECKING:
    from crucible_lineage.pipeline.bind.inspection import Inspection
    from crucible_lineage.pipeline.declare.yaml import Document

__all__ = ["BoundPipeline", "BoundStep", "Variant", "bind_file"]

_OWN = Path(__file__).parent.parent


@dataclass(frozen=True)
class Variant:
    """A step with one combination of its swept parameters; the label tells them, and is empty if none is swept."""

    label: str
    given: Mapping[str, Any]
    inspection: Inspection


@dataclass(frozen=True)
class BoundStep:
    """A declared step with what is known of its function. `needs` are the steps it waits for.

    `dimensions` are the inputs with `each`, and the steps with a matrix, that it has one instance for each value of.
    `collected` are the roles that are given all instances of their sources as one list. `declared` is what records say
    of the declaration: name and hash of the pipeline, and what the step is called in it.
    """

    name: str
    spec: StepSpec
    variants: tuple[Variant, ...]
    sources: Mapping[str, tuple[Source, ...]]
    needs: tuple[str, ...]
    collected: frozenset[str] = frozenset()
    dimensions: tuple[str, ...] = ()
    declared: Mapping[str, str] | None = None

    @property
    def inspection(self) -> Inspection:
        """The step as its function is; of its parameters, those of the first variant."""
        return self.variants[0].inspection


@dataclass(frozen=True)
class BoundPipeline:
    """A pipeline that can be planned and run. `steps` stand in the order in which they can run."""

    spec: PipelineSpec
    steps: Mapping[str, BoundStep]

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.spec.pipeline


def bind_file(path: Path, store: Store | None = None, overrides: Mapping[str, Any] | None = None) -> BoundPipeline:
    """The pipeline declared in a file, bound. InputError with every fault in it.

    `overrides` holds parameters for one run, as in {"axis.degree": 4}. With a store, what was bound before is used
    again while nothing it rests on has changed.
    """
    kept = _kept_file(path, store, overrides or {}) if store else None
    if kept is not None and (found := _kept(kept)) is not None:
        return found
    # An unchanged pipeline needs neither the reader nor the fingerprints.
    from crucible_lineage.pipeline.bind.binder import bind
    from crucible_lineage.pipeline.declare.load import load_pipeline

    spec, document = load_pipeline(path, overrides)
    bound = bind(spec, document, store)
    if kept is not None and _may_be_kept(bound):
        _keep(kept, bound, document)
    return bound


def _kept_file(path: Path, store: Store, overrides: Mapping[str, Any]) -> Path | None:
    """Where such a pipeline is kept: by its path, this run's parameters, and the versions of Python and this code."""
    own = sorted((file.name, *stamp(file)) for file in _OWN.rglob("*.py"))
    try:
        asked = canonical_json([str(path.absolute()), dict(overrides), sys.version, own])
    except (TypeError, ValueError):  # a value that is refused later, with its place
        return None
    return store.path.parent / "declarations" / f"{hashlib.sha256(asked).hexdigest()[:32]}.pickle"


def _kept(file: Path) -> BoundPipeline | None:
    """The pipeline that was kept, if all it rests on is unchanged. The folder is as much the user's as the code is."""
    try:
        files, bound = pickle.loads(file.read_bytes())  # noqa: S301 (written by us, into the user's own data folder)
    except Exception:  # absent, or of another version: it is made anew
        return None
    if any(_stamp(Path(name)) != seen for name, seen in files.items()):
        return None
    return bound if all(path.is_file() for path in _needed(bound.spec)) else None


def _keep(file: Path, bound: BoundPipeline, document: Document) -> None:
    sources = (name for step in bound.steps.values() for variant in step.variants for name in variant.inspection.files)
    files = {name: _stamp(Path(name)) for name in (*map(str, document.files), *dict.fromkeys(sources))}
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{id(bound)}.part")
    part.write_bytes(pickle.dumps((files, bound), protocol=5))
    part.replace(file)


def _may_be_kept(bound: BoundPipeline) -> bool:
    """Not if it rests on more than files: on the environment, on programs, on versions of packages, or on a secret."""
    inspections = (variant.inspection for step in bound.steps.values() for variant in step.variants)
    return not bound.spec.env and all(inspection.keepable for inspection in inspections)


def _needed(spec: PipelineSpec) -> Iterable[Path]:
    """The files that have to be there for the declaration to be without fault."""
    for declared in spec.inputs.values():
        if isinstance(declared, ResultInput):
            yield declared.path
        for entry in declared.each if isinstance(declared, EachInput) else (declared,):
            if isinstance(entry, FileInput):
                yield from entry.paths or ([] if entry.each or entry.remote else [Path("no file fits the pattern")])


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        return stamp(path)
    except OSError:
        return None
