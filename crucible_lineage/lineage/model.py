"""Nodes and edges of a lineage graph, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from crucible_lineage.statements import Doubt

Kind = Literal["dataset", "sample", "hidden"]

DERIVED = "is_derived_from"
PART = "is_part_of"
MEASURED = "measured-from"  # Crucible's association of a dataset with a sample, drawn sample -> dataset
CANDIDATE = "candidate"  # how a result is shown that waits for a signature
DOUBTFUL = "doubtful"  # how current and measured data are shown that are on hold, or come from what is
CURRENT, SUPERSEDED, RAW = "current", "superseded", "raw"  # states that no record tells by itself
WITHDRAWN = "withdrawn"  # to be deleted: it is in no list, and an earlier one holds
KNOWN_RELATIONSHIPS = frozenset({DERIVED, PART, MEASURED})


@dataclass(frozen=True, slots=True)
class Node:
    """A dataset, a sample, or the place of something the reader may not see.

    `state` is current, superseded, incomplete or raw where what holds now was looked up; else "complete" or
    "incomplete" where provenance says so, else empty. `superseded_by` are the datasets that hold in its place.
    `record` is the whole record as Crucible gave it, or None where it was not fetched; `doubt` says why it is doubtful,
    `remade` how often it was made again elsewhere, with the same outcome.
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
    superseded_by: tuple[str, ...] = ()
    doubt: Doubt | None = field(default=None, compare=False)
    remade: int = field(default=0, compare=False)

    @property
    def shown_state(self) -> str:
        """Its state, or that it is doubtful."""
        if not self.doubt or self.state not in ("", "complete", CURRENT, RAW):
            return self.state
        return CANDIDATE if self.doubt.is_candidate and self.doubt.source == self.id else DOUBTFUL


@dataclass(frozen=True, slots=True)
class Edge:
    """A link from a parent (`source`) to its child (`target`); `relationship` is empty where Crucible stores none.

    `note` is what a picture says beside it.
    """

    source: str
    target: str
    relationship: str = DERIVED
    note: str = field(default="", compare=False)
