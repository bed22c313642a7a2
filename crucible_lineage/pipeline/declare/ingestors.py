"""The ingestors that a declaration names: whether Crucible has them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from crucible_lineage.errors import Fault, nearest
from crucible_lineage.pipeline.declare.load import Declaration
from crucible_lineage.pipeline.spec.inputs import EachInput, FileInput
from crucible_lineage.pipeline.spec.pipeline import PipelineSpec

__all__ = ["ingestor_faults", "named_ingestors"]


def named_ingestors(spec: PipelineSpec) -> dict[tuple[str | int, ...], str]:
    """{place in the declaration: the ingestor named there}."""
    return {place: name for place, name in _named(spec) if name}


def ingestor_faults(declared: Declaration, known: Collection[str]) -> list[Fault]:
    """A fault for each ingestor that is named and is none of those that Crucible has."""
    named = named_ingestors(declared.spec) if declared.spec else {}
    return [
        declared.document.fault(place, f"Crucible has no ingestor {name!r}; {nearest(name, known)}")
        for place, name in named.items()
        if name not in known
    ]


def _named(spec: PipelineSpec) -> Iterator[tuple[tuple[str | int, ...], str | None]]:
    for name, given in spec.inputs.items():
        if isinstance(given, FileInput):
            yield ("inputs", name, "ingestor"), given.ingestor
        elif isinstance(given, EachInput):
            for number, entry in enumerate(given.each):
                yield ("inputs", name, "each", number, "ingestor"), getattr(entry, "ingestor", None)
    for name, step in spec.steps.items():
        yield ("steps", name, "output", "ingestor"), step.output.ingestor
