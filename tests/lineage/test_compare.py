"""Differences of two lineages."""

from __future__ import annotations

import copy

from crucible_lineage.lineage import Edge, LineageGraph, Node, diff


def test_a_lineage_does_not_differ_from_itself(tomography):
    graph = tomography(2)[0].graph

    assert not diff(graph, graph)


def test_what_one_lineage_lacks_is_added_or_removed():
    old = LineageGraph([Node("a"), Node("b")], [Edge("a", "b")])
    new = LineageGraph([Node("a"), Node("c", "sample")], [Edge("a", "c")])

    difference = diff(old, new)

    assert difference.removed == (Node("b"),)
    assert difference.added == (Node("c", "sample"),)
    assert (difference.removed_edges, difference.added_edges) == ((Edge("a", "b"),), (Edge("a", "c"),))


def test_a_field_that_changed_is_named_with_both_values(lab):
    fixed = lab.derived("corrected", "correct", lab.raw("scan"))
    old = LineageGraph.from_records(copy.deepcopy(list(lab.records.values())))
    lab.records[fixed]["scientific_metadata"]["crucible_lineage"]["status"] = "incomplete"

    [change] = diff(old, lab.graph).changed

    assert (change.old_id, change.field, change.old, change.new) == (fixed, "state", "complete", "incomplete")


def test_a_rerun_with_another_parameter_reads_as_that_parameter_changed(lab, tomography):
    scan = lab.raw("scan")
    before = lab.derived("corrected", "correct", scan, params={"degree": 3})
    after = lab.derived("corrected", "correct", scan, params={"degree": 4})
    other = lab.derived("renamed", "correct", scan, params={"degree": 5}, supersedes=before)
    old, new, latest = (lab.graph.subgraph([scan, mfid]) for mfid in (before, after, other))

    difference = diff(old, new)

    assert [(c.old_id, c.new_id, c.field, c.old, c.new) for c in difference.changed] == [
        (before, after, "params.degree", 3, 4)
    ]
    assert (difference.added, difference.removed) == ((), ())
    assert (difference.added_edges, difference.removed_edges) == ((), ())
    assert {c.field for c in diff(old, latest).changed} == {"name", "params.degree", "files.out.h5"}


def test_a_link_whose_type_changed_is_removed_and_added():
    ends = [Node("a"), Node("b")]

    difference = diff(LineageGraph(ends, [Edge("a", "b")]), LineageGraph(ends, [Edge("a", "b", "is_part_of")]))

    assert difference.removed_edges == (Edge("a", "b"),)
    assert difference.added_edges == (Edge("a", "b", "is_part_of"),)
