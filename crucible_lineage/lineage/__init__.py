"""Lineage of datasets: the graph, its checks and queries, and ways to show it. Pure: no I/O, no client, no Prefect.

The pictures are in their own modules: `svg`, `page`, `text`. The names here are imported on first use, so that a
label imports neither the checks nor networkx, which takes 0.2 s.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crucible_lineage.lineage.checks import Finding, check
    from crucible_lineage.lineage.compare import (
        Change,
        Difference,
        Impact,
        diff,
        impact_of_code,
        impact_of_dataset,
        impact_of_file,
        impact_of_instrument,
    )
    from crucible_lineage.lineage.graph import LineageGraph
    from crucible_lineage.lineage.model import Edge, Node
    from crucible_lineage.lineage.text import render_tree

__all__ = [
    "Change",
    "Difference",
    "Edge",
    "Finding",
    "Impact",
    "LineageGraph",
    "Node",
    "check",
    "diff",
    "impact_of_code",
    "impact_of_dataset",
    "impact_of_file",
    "impact_of_instrument",
    "render_tree",
]

_MODULES = {
    "checks": ("Finding", "check"),
    "compare": (
        *("Change", "Difference", "diff"),
        *("Impact", "impact_of_code", "impact_of_dataset", "impact_of_file", "impact_of_instrument"),
    ),
    "graph": ("LineageGraph",),
    "model": ("Edge", "Node"),
    "text": ("render_tree",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
