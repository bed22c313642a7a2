"""Checks: each fault is found exactly where it was planted, with its ids and the command that repairs it."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import networkx
from hypothesis import given, settings
from hypothesis import strategies as st

from crucible_lineage.ids import canonical_json
from crucible_lineage.lineage.checks import check
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Edge, Node

SOME = settings(max_examples=60, deadline=None)


def found(graph, name):
    return [finding for finding in check(graph) if finding.check == name]


def provenance_of(lab, mfid):
    return lab.records[mfid]["scientific_metadata"]["crucible_lineage"]


names = st.integers(0, 9).map(lambda number: f"d{number}")


@SOME
@given(st.lists(st.tuples(names, names), max_size=18))
def test_every_knot_of_cycles_is_found_once_with_a_path_that_exists(ends):
    graph = LineageGraph([Node(f"d{n}") for n in range(10)], [Edge(*pair) for pair in ends])

    findings = found(graph, "cycle")

    knots = [knot for knot in networkx.strongly_connected_components(graph.nx) if len(knot) > 1]
    assert len(findings) == len(knots)
    for finding in findings:
        assert finding.ids[0] == finding.ids[-1]
        assert len(set(finding.ids)) == len(finding.ids) - 1
        assert all(pair in graph.edges for pair in pairwise(finding.ids))
        assert any(set(finding.ids) <= knot for knot in knots)
    assert {f.ids[0] for f in found(graph, "self-link")} == {
        source for source, target in graph.edges if source == target
    }


def test_a_long_record_and_a_short_one_of_the_same_recipe_are_duplicates(lab):
    scan = lab.raw("scan")
    one = lab.derived("corrected", "correct", scan)
    written = provenance_of(lab, one)
    attached = {"attached": {"recipe_sha256": hashlib.sha256(canonical_json(written["recipe"])).hexdigest()}}
    long = {key: value for key, value in written.items() if key != "recipe"} | attached
    twin = lab.raw("corrected again", scientific_metadata={"crucible_lineage": long})

    assert [finding.ids for finding in found(lab.graph, "duplicate-recipe")] == [(one, twin)]


def test_a_registration_that_another_one_overtook_is_incomplete_until_its_own_end(lab):
    fixed = lab.derived("corrected", "correct", lab.raw("scan"), registrar="b", completed={"a": "2026-03-01"})
    assert [finding.ids for finding in found(lab.graph, "incomplete")] == [(fixed,)]

    provenance_of(lab, fixed)["completed"]["b"] = "2026-03-02"
    assert found(lab.graph, "incomplete") == []


def test_what_looks_derived_and_has_no_parent_is_an_orphan(lab):
    scan = lab.raw("Si wafer")
    by_name, by_type = lab.raw("Si wafer (calibrated)"), lab.raw("map", data_type="normalized map")
    lab.raw("map 3 (corrected)", links=[lab._link(scan, "source", "is_part_of")])

    orphans = {finding.ids: finding for finding in found(lab.graph, "orphan")}

    assert orphans.keys() == {(by_name,), (by_type,)}
    assert "its data type contains 'normalized'" in orphans[(by_type,)].message
