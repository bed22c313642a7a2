"""How nodes look in every drawing: colours that colour-blind readers and printers keep apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from crucible_lineage.lineage.model import CANDIDATE, DOUBTFUL, Node

__all__ = ["OTHER_COLOUR", "STATE_COLOURS", "colours", "kind_of_data"]

# M. Okabe and K. Ito, "Color Universal Design" (2008), without black and the vermilion that marks a bad state.
_PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442")
OTHER_COLOUR = "#8A8A8A"
STATE_COLOURS: Mapping[str, str] = {
    "incomplete": "#D55E00",
    "failed": "#D55E00",
    "missing": "#D55E00",
    "stale": "#D55E00",
    "blocked": "#D55E00",
    DOUBTFUL: "#B34700",
    CANDIDATE: "#B34700",
}


def kind_of_data(node: Node) -> str:
    """Return the subject of a node's colour: a dataset's measurement, else its data type; empty for other kinds."""
    return (node.measurement or node.data_type) if node.kind == "dataset" else ""


def colours(nodes: Iterable[Node]) -> dict[str, str]:
    """The colour of each kind of data among the nodes: the most frequent first, those beyond the palette all grey."""
    counts: dict[str, int] = {}
    for node in nodes:
        if kind := kind_of_data(node):
            counts[kind] = counts.get(kind, 0) + 1
    ranked = sorted(counts, key=lambda kind: (-counts[kind], kind))
    return {kind: _PALETTE[rank] if rank < len(_PALETTE) else OTHER_COLOUR for rank, kind in enumerate(ranked)}
