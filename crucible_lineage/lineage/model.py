"""Nodes and edges of a lineage graph, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from crucible_lineage.json_types import JsonMapping
from crucible_lineage.refs import DERIVED
from crucible_lineage.statements.statements import Doubt

Kind = Literal["dataset", "sample", "hidden"]

CANDIDATE = "candidate"  # a result that waits for a signature
DOUBTFUL = "doubtful"  # current or raw data that are on hold, or descend from such data
CURRENT, SUPERSEDED, RAW = "current", "superseded", "raw"
INCOMPLETE = "incomplete"
WITHDRAWN = "withdrawn"  # to be deleted: not in lists, and an earlier result is current
IN_PLACE = (CURRENT, DOUBTFUL)  # the result that a slot has, whether anybody doubts it or not
STANDINGS = frozenset({CURRENT, SUPERSEDED, RAW, CANDIDATE, DOUBTFUL, WITHDRAWN})  # they depend on more than one record


@dataclass(frozen=True, slots=True)
class Node:
    """A dataset, a sample, or a placeholder for a resource that the reader may not see.

    `state` is where the dataset stands, if that was looked up; else "complete" or "incomplete" from provenance, or
    empty. `superseded_by` are the current datasets in its slots. `record` is the whole record from Crucible, or None if
    it was not fetched; `doubt` is why it is doubtful. `swept` is the combination of swept
    parameters that it is of, as in order=2.
    """

    id: str
    kind: Kind = "dataset"
    name: str = ""
    measurement: str = ""
    data_type: str = ""
    project: str = ""
    state: str = ""
    step: str = ""
    record: JsonMapping | None = field(default=None, compare=False, repr=False)
    superseded_by: tuple[str, ...] = ()
    doubt: Doubt | None = field(default=None, compare=False)
    swept: str = field(default="", compare=False)
    json_keys: ClassVar = "mfid=visible_id kind name step"

    @property
    def instance(self) -> str:
        """The step that made it, with what was swept; empty if no step did."""
        return f"{self.step}[{self.swept}]" if self.step and self.swept else self.step

    @property
    def visible_id(self) -> str | None:
        """The id; None if the reader may not see it."""
        return None if self.kind == "hidden" else self.id


NODE_TEXTS: Mapping[str, str] = {  # attributes of a node by their keys in node-link JSON
    **{key: key for key in ("name", "measurement", "data_type")},
    **{"project_id": "project", "state": "state", "step": "step", "swept": "swept"},
}


@dataclass(frozen=True, slots=True)
class Edge:
    """A link from parent to child; `relationship` is empty if Crucible stores none, `note` is shown in pictures."""

    source: str
    target: str
    relationship: str = DERIVED
    note: str = field(default="", compare=False)
    json_keys: ClassVar = "source target relationship_type=relationship"
