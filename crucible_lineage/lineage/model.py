"""What a lineage graph is made of: nodes and edges, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["DERIVED", "KNOWN_RELATIONSHIPS", "MEASURED", "PART", "Edge", "Kind", "Node"]

Kind = Literal["dataset", "sample", "step", "hidden"]

DERIVED = "is_derived_from"
PART = "is_part_of"
MEASURED = "measured-from"  # Crucible's association of a dataset with a sample, drawn sample -> dataset
KNOWN_RELATIONSHIPS = frozenset({DERIVED, PART, MEASURED})


@dataclass(frozen=True, slots=True)
class Node:
    """A dataset, a sample, a step of a declared pipeline, or the place of something the reader may not see.

    `state` is "complete" or "incomplete" where provenance says so, one of a plan's words (fresh, stale, missing) where
    a plan was drawn, else empty. `record` is the whole record as Crucible gave it, or None where it was not fetched.
    """

    id: str
    kind: Kind = "dataset"
    name: str = ""
    measurement: str = ""
    data_type: str = ""
    project: str = ""
    state: str = ""
    step: str = ""
    record: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Edge:
    """A link from a parent (`source`) to its child (`target`); `relationship` is empty where Crucible stores none."""

    source: str
    target: str
    relationship: str = DERIVED
