"""LineageGraph: construction, traversal and subgraphs."""

from __future__ import annotations

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Edge, Node

API_ANSWER = {
    "directed": True,
    "multigraph": False,
    "graph": {},
    "nodes": [
        {"id": "wafer", "entity_type": "sample", "name": "wafer 7"},
        {"id": "scan", "entity_type": "dataset", "name": "scan of wafer 7", "project_id": "demo"},
        {"id": "fixed", "entity_type": "dataset", "name": "scan (drift corrected)"},
    ],
    "edges": [
        {"source": "scan", "target": "wafer", "relationship_type": None},
        {"source": "scan", "target": "fixed", "relationship_type": "is_derived_from"},
        {"source": "private", "target": "fixed", "relationship_type": "is_derived_from"},
    ],
}


def test_api_answer_becomes_a_graph():
    graph = LineageGraph.from_api(API_ANSWER)

    assert graph.nodes["scan"] == Node("scan", "dataset", "scan of wafer 7", project="demo")
    assert graph.nodes["fixed"].name == "scan (drift corrected)"
    assert graph.parents("fixed") == ("scan", "private")


def test_an_association_runs_from_the_sample_to_the_dataset_whichever_way_it_came():
    graph = LineageGraph.from_api(API_ANSWER)

    assert graph.edges["wafer", "scan"] == Edge("wafer", "scan", "measured-from")
    assert ("scan", "wafer") not in graph.edges


@pytest.mark.parametrize("answer", [{}, {"nodes": "abc"}, {"nodes": [{"name": "no id"}]}, {"nodes": [], "edges": [{}]}])
def test_an_answer_that_is_no_graph_is_refused(answer):
    with pytest.raises(InputError, match="lineage graph"):
        LineageGraph.from_api(answer)


def test_records_with_fetched_links_show_those_links(lab):
    wafer = lab.sample("wafer 7")
    scan = lab.raw("scan of wafer 7", sample=wafer)
    fixed = lab.derived("scan (drift corrected)", "correct", scan)

    graph = lab.graph

    assert set(graph.edges.values()) == {Edge(wafer, scan, "measured-from"), Edge(scan, fixed)}
    assert (graph.nodes[fixed].step, graph.nodes[fixed].state) == ("correct", "complete")


def test_records_without_fetched_links_show_what_their_provenance_names(lab):
    scan = lab.raw("scan of wafer 7")
    fixed = lab.derived("scan (drift corrected)", "correct", scan)
    lab.records[fixed]["links"] = None

    assert set(lab.graph.edges) == {(scan, fixed)}


def test_what_a_child_is_made_of_its_own_record_says_where_an_older_one_of_its_parent_says_else(lab):
    scan = lab.raw("scan")
    child = lab.raw("child", links=[])
    lab.records[scan]["links"] = [lab._link(child, "target", "is_derived_from"), lab._link("gone", "target", None)]

    for records in (list(lab.records.values()), list(reversed(lab.records.values()))):
        assert list(LineageGraph.from_records(records).edges) == [(scan, "gone")]


def test_the_far_end_of_a_link_is_known_by_its_name_and_hidden_without_one(lab):
    fixed = lab.derived("scan (drift corrected)", "correct")
    lab.records[fixed]["links"] = [
        {"unique_id": "named", "resource_type": "dataset", "name": "scan", "direction": "source"},
        {"unique_id": "secret", "resource_type": "dataset", "name": None, "direction": "source"},
    ]

    graph = lab.graph

    assert (graph.nodes["named"].kind, graph.nodes["named"].name) == ("dataset", "scan")
    assert graph.nodes["secret"].kind == "hidden"


def test_records_fill_in_what_the_api_answer_left_out(lab):
    scan = lab.raw("scan of wafer 7")
    bare = LineageGraph([Node(scan, "hidden"), Node("other", name="kept")])

    described = bare.with_records(lab.records | {"unknown": {"unique_id": "unknown"}})

    assert described.nodes[scan].name == "scan of wafer 7"
    assert described.nodes[scan].record is lab.records[scan]
    assert described.nodes["other"].name == "kept"
    assert bare.nodes[scan].kind == "hidden"


@pytest.mark.parametrize(
    "metadata", [None, [], {"crucible_lineage": "text"}, {"crucible_lineage": {"used": [1, None]}}]
)
def test_odd_provenance_reads_as_absent(metadata):
    graph = LineageGraph.from_records([{"unique_id": "scan", "scientific_metadata": metadata, "dataset_name": 7}])

    assert graph.nodes["scan"] == Node("scan")
