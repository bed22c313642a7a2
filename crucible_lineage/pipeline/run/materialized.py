"""What came of a step that was to be made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from crucible_lineage.refs import DatasetRef

__all__ = ["Materialized"]


@dataclass(frozen=True)
class Materialized:
    """The datasets of a step's outputs; `executed` is False if they were there already.

    `note` is what whoever ran the step should know.
    """

    outputs: Mapping[str, DatasetRef]
    executed: bool
    note: str = ""
