"""Checks: each fault is found exactly where it was planted, with its ids and the command that repairs it."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from itertools import pairwise

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crucible_lineage.ids import canonical_json, derive_mfid, mfid_bytes, mfid_from_bytes, mfid_time
from crucible_lineage.lineage.checks import check
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Edge, Node

SOME = settings(max_examples=60, deadline=None)


def found(graph, name):
    return [finding for finding in check(graph) if finding.check == name]


def provenance_of(lab, mfid):
    return lab.records[mfid]["scientific_metadata"]["crucible_lineage"]


def test_a_sound_lineage_has_no_findings(tomography):
    assert check(tomography(3)[0].graph) == []


def test_a_cycle_is_named_as_a_path_and_the_command_takes_its_last_link_away():
    graph = LineageGraph([], [Edge("b", "c"), Edge("c", "a"), Edge("a", "b"), Edge("a", "d"), Edge("r", "b")])

    [finding] = found(graph, "cycle")

    assert finding.ids == ("a", "b", "c", "a")
    assert finding.command == "crucible unlink c a"


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


def test_a_hidden_parent_is_reported_without_its_id_in_the_message(lab):
    scan = lab.raw("scan")
    graph = LineageGraph(lab.graph.nodes.values(), [Edge("secret", scan)])

    [finding] = found(graph, "dangling-parent")

    assert (finding.severity, finding.ids) == ("warning", ("secret", scan))
    assert "secret" not in finding.message


def test_a_used_parent_without_link_and_a_linked_one_that_was_not_used_are_mismatches(lab):
    used, linked = lab.raw("used"), lab.raw("linked")
    fixed = lab.derived("corrected", "correct", used)
    lab.records[fixed]["links"] = [lab._link(linked, "source", "is_derived_from")]

    missing, surplus = found(lab.graph, "mismatch")

    assert missing.command == f"crucible link -p {used} -c {fixed} --relationship-type is_derived_from"
    assert surplus.command == f"crucible unlink {linked} {fixed}"


def test_a_child_with_an_earlier_id_is_older_than_its_parent(lab):
    scan = lab.raw("scan")
    early = derive_mfid({"early": True}, mfid_time(scan) - timedelta(seconds=1))
    same = derive_mfid({"same": True}, scan)
    random_of_same_moment = mfid_from_bytes(mfid_bytes(scan)[:6] + b"\x70" + bytes(9))
    children = [early, same, random_of_same_moment]
    part = derive_mfid({"part": True}, early)
    edges = [Edge("no mfid", scan), Edge(scan, part, "is_part_of"), *(Edge(scan, child) for child in children)]
    graph = LineageGraph([], edges)

    assert [finding.ids for finding in found(graph, "older-than-parent")] == [(scan, early)]


def test_being_part_of_something_is_no_word_on_how_a_dataset_was_made(lab):
    scan = lab.raw("scan")
    fixed = lab.derived("corrected", "correct", scan)
    collection = lab.raw("all of March")
    elsewhere = lab.raw("collection of another project", project_id="other")
    lab.records[fixed]["links"] += [
        lab._link(collection, "source", "is_part_of"),
        lab._link(elsewhere, "source", "is_part_of"),
    ]

    assert check(lab.graph) == []


def test_a_long_record_and_a_short_one_of_the_same_recipe_are_duplicates(lab):
    scan = lab.raw("scan")
    one = lab.derived("corrected", "correct", scan)
    written = provenance_of(lab, one)
    attached = {"attached": {"recipe_sha256": hashlib.sha256(canonical_json(written["recipe"])).hexdigest()}}
    long = {key: value for key, value in written.items() if key != "recipe"} | attached
    twin = lab.raw("corrected again", scientific_metadata={"crucible_lineage": long})

    assert [finding.ids for finding in found(lab.graph, "duplicate-recipe")] == [(one, twin)]


@pytest.mark.parametrize(
    ("relationship", "severity"),
    [("", "notice"), ("caused_by", "warning"), ("is_part_of", None), ("is_derived_from", None)],
)
def test_a_relationship_is_known_or_reported(relationship, severity):
    findings = found(LineageGraph([], [Edge("a", "b", relationship)]), "unknown-relationship")

    assert [finding.severity for finding in findings] == ([severity] if severity else [])


def test_an_unfinished_registration_is_incomplete(lab):
    scan = lab.raw("scan")
    fixed = lab.derived("corrected", "correct", scan, status="incomplete")

    [finding] = found(lab.graph, "incomplete")

    assert (finding.ids, finding.command) == ((fixed,), f"crucible-lineage rerun {fixed}")


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


def test_a_dataset_elsewhere_than_its_record_says_is_reported_also_in_no_project(lab):
    scan = lab.raw("scan")
    here, nowhere, elsewhere = (lab.derived(name, name, scan) for name in ("here", "nowhere", "elsewhere"))
    for mfid, project in ((here, "Demo"), (nowhere, None), (elsewhere, "other")):
        lab.records[mfid]["project_id"] = project
        lab.records[mfid]["scientific_metadata"]["crucible_lineage"]["recipe"]["project"] = "demo"

    assert {finding.ids for finding in found(lab.graph, "wrong-project")} >= {(nowhere,), (elsewhere,)}
    assert "no project" in next(f.message for f in found(lab.graph, "wrong-project") if f.ids == (nowhere,))
