"""Results that were reproduced elsewhere are marked in every picture, and groups show how many were."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Edge, Node
from crucible_lineage.lineage.page import render_html
from crucible_lineage.lineage.svg import render_svg
from crucible_lineage.lineage.text import render_mermaid, render_tree, to_node_link
from tests.page import page_data

RAW, MADE, HIDDEN = Node("raw", name="raw"), Node("made", name="made", step="scale"), Node("h", "hidden")
GRAPH = LineageGraph([RAW, MADE, HIDDEN], [Edge("raw", "made"), Edge("h", "made")])

FORMATS: dict[str, Callable[[LineageGraph], str]] = {
    "tree": lambda graph: "\n".join(render_tree(graph)),
    "svg": render_svg,
    "mermaid": lambda graph: "".join(render_mermaid(graph)),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_each_picture_says_how_often(kind: str) -> None:
    draw = FORMATS[kind]
    assert "remade" not in draw(GRAPH)
    assert "remade 1 time" in draw(GRAPH.with_fields({"made": {"remade": 1}}))
    assert "remade 3 times" in draw(GRAPH.with_fields({"made": {"remade": 3}, "elsewhere": {"remade": 2}}))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_group_says_how_many_were(kind: str) -> None:
    many = [Node(f"m{number}", name=f"m{number}", step="scale") for number in range(9)]
    graph = LineageGraph([RAW, *many], [Edge("raw", node.id) for node in many]).with_fields(
        {"m2": {"remade": 1}, "m3": {"remade": 4}}
    )
    drawn = FORMATS[kind](graph) if kind != "tree" else "\n".join(render_tree(graph, fold_beyond=4))
    if kind in ("tree", "svg"):  # the others fold nothing
        assert "2 of 9 remade" in drawn
    else:
        assert "remade" in drawn


def test_data_for_programs_and_pages_have_the_number() -> None:
    graph = GRAPH.with_fields({"made": {"remade": 3}})
    (made,) = [node for node in to_node_link(graph)["nodes"] if node["id"] == "made"]
    assert made["remade"] == 3
    columns = page_data(render_html(graph))["nodes"]
    assert isinstance(columns, dict)
    assert dict(zip(columns["id"], columns["remade"], strict=True)) == {"raw": 0, "made": 3, "hidden-1": 0}
    assert "remade" not in json.dumps(to_node_link(GRAPH))


def test_records_keep_the_mark() -> None:
    graph = GRAPH.with_fields({"made": {"remade": 2}}).with_records(
        {"made": {"unique_id": "made", "dataset_name": "better"}}
    )
    assert (graph.nodes["made"].name, graph.nodes["made"].remade) == ("better", 2)
