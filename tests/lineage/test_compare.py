"""Differences of two lineages."""

from __future__ import annotations

import copy

from crucible_lineage.lineage.compare import diff
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Edge, Node


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


def test_an_input_that_was_replaced_is_named_and_one_with_a_successor_is_not(lab):
    scan, other, dark = lab.raw("scan"), lab.raw("other scan"), lab.raw("dark")
    before = lab.derived("corrected", "correct", scan, dark)
    below_before = lab.derived("volume", "reconstruct", before)
    after = lab.derived("corrected", "correct", other, dark)
    below_after = lab.derived("volume", "reconstruct", after)
    old, new = (lab.graph.around(mfid, direction="ancestors") for mfid in (below_before, below_after))

    difference = diff(old, new)

    changes = [(c.new_id, c.field, c.old, c.new) for c in difference.changed]
    assert changes == [(after, "inputs.input0", (scan,), (other,))]
    assert ([n.id for n in difference.removed], [n.id for n in difference.added]) == ([scan], [other])


def test_what_is_asked_to_be_compared_is_paired_whatever_its_name(lab):
    scan = lab.raw("scan")
    before = lab.derived("first try", "correct", scan, params={"degree": 3})
    after = lab.derived("second try", "fit", scan, params={"degree": 4})
    old, new = (lab.graph.around(mfid, direction="ancestors") for mfid in (before, after))

    assert diff(old, new).removed
    paired = diff(old, new, {before: after})

    assert not paired.removed
    assert {c.field for c in paired.changed} >= {"name", "step", "params.degree"}


def test_after_an_early_cut_off_it_is_still_the_code_that_changed(lab):
    scan = lab.raw("scan")
    made_of = lab.derived("read", "read", scan, code="1")
    same_bytes = lab.derived("read", "read", scan, code="2")
    other_bytes = lab.derived("read", "read", scan, code="3")
    old = lab.derived("peaks", "peaks", made_of)
    new = lab.derived("peaks", "peaks", other_bytes)
    lab.records[old]["scientific_metadata"]["crucible_lineage"]["equal_parents"] = {same_bytes: made_of}
    before = lab.graph.subgraph([scan, made_of, same_bytes, old])

    difference = diff(before, lab.graph.subgraph([scan, other_bytes, new]))

    assert [(c.old_id, c.new_id, c.field) for c in difference.changed] == [(made_of, other_bytes, "code")]
    assert (difference.added, difference.removed, difference.removed_edges) == ((), (), ())
    of_same = lab.derived("fit", "fit", same_bytes)
    beside = diff(before, lab.graph.subgraph([scan, same_bytes, of_same]), {old: of_same})
    assert [node.id for node in beside.removed] == [made_of], "what the other lineage contains is compared"


def test_another_file_used_of_the_same_dataset_is_a_change(lab):
    scan = lab.raw("scan")
    fixed = lab.derived("corrected", "correct", scan)
    old = LineageGraph.from_records(copy.deepcopy(list(lab.records.values())))
    used = lab.records[fixed]["scientific_metadata"]["crucible_lineage"]["used"]
    used[0]["files"][0]["sha256"] = "other"

    [change] = diff(old, lab.graph).changed

    assert (change.field, change.new) == (f"used.{scan}.scan.h5", "other")
