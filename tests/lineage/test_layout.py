"""Folding and layout: which boxes are drawn, and where."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import ellipsised, plain, text_width, wrapped
from crucible_lineage.lineage.layout import layout
from crucible_lineage.lineage.model import Edge, Node
from crucible_lineage.lineage.view import view

SOME = settings(max_examples=60, deadline=None)
numbers = st.integers(0, 11)
links = st.lists(st.tuples(numbers, numbers), max_size=25)
sizes = st.lists(st.tuples(st.floats(20, 200), st.floats(20, 90)), min_size=12, max_size=12)


@SOME
@given(sizes, links)
def test_boxes_never_overlap_and_stay_inside_the_picture(boxes, edges):
    drawing = layout(boxes, edges)

    spans = [
        (x - w / 2, x + w / 2, y - h / 2, y + h / 2) for (x, y), (w, h) in zip(drawing.centres, boxes, strict=True)
    ]
    for at, (left, right, top, bottom) in enumerate(spans):
        assert left >= -0.01
        assert top >= -0.01
        assert right <= drawing.width + 0.01
        assert bottom <= drawing.height + 0.01
        for other_left, other_right, other_top, other_bottom in spans[at + 1 :]:
            assert right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top


@SOME
@given(links)
def test_without_cycles_every_line_runs_from_left_to_right(edges):
    forward = [(min(ends), max(ends)) for ends in edges if ends[0] != ends[1]]

    drawing = layout([(50, 20)] * 12, forward)

    for source, target in forward:
        assert drawing.centres[source][0] < drawing.centres[target][0]
        xs = [x for x, _ in drawing.courses[source, target]]
        assert xs == sorted(xs)


def test_many_siblings_of_a_step_fold_and_so_do_their_children(tomography):
    lab, _ = tomography(23)

    drawn = view(lab.graph)

    assert sorted(len(item.nodes) for item in drawn.items) == [1, 1, 23, 23, 92, 92, 92]


def used_as(lab, child, **roles):
    """Set the roles in which the parents of a dataset were used."""
    used = [{"role": role, "mfid": mfid, "files": []} for role, mfids in roles.items() for mfid in mfids]
    lab.records[child]["scientific_metadata"]["crucible_lineage"]["used"] = used


def test_what_has_another_role_in_what_follows_is_not_folded_together(lab):
    spectra = [lab.raw(f"spectrum {number}", "UV-vis") for number in range(6)]
    dark, reference = lab.raw("dark", "UV-vis"), lab.raw("reference", "UV-vis")
    unused = lab.raw("not used yet", "UV-vis")
    for number, spectrum in enumerate(spectra):
        child = lab.derived(f"absorbance {number}", "absorbance", spectrum, dark, reference)
        used_as(lab, child, spectrum=[spectrum], dark=[dark], reference=[reference])
    drawn = [[node.id for node in item.nodes] for item in view(lab.graph).items]
    assert [dark] in drawn
    assert [reference] in drawn
    assert spectra in drawn
    assert [unused] in drawn


def test_results_of_different_pipelines_or_steps_are_not_folded_together(lab):
    raw = lab.raw("spectrum", "UV-vis")
    made = [
        [
            lab.derived(f"{name} {step} {number}", "scale", raw, pipeline={"name": name, "hash": "0", "step": step})
            for number in range(6)
        ]
        for name, step in (("one", "scaled"), ("two", "scaled"), ("two", "again"))
    ]
    assert [[node.id for node in item.nodes] for item in view(lab.graph).items] == [[raw], *made]


def test_a_parent_with_equal_bytes_stands_for_the_superseded_one(lab):
    raw = lab.raw("spectrum", "UV-vis")
    old, new = lab.derived("baseline", "baseline", raw), lab.derived("baseline", "baseline", raw, code="other")
    fit = lab.derived("fit", "fit", old)
    lab.records[fit]["scientific_metadata"]["crucible_lineage"]["equal_parents"] = {new: old}
    links = lab.records[fit]["links"]
    links.append({**links[0], "unique_id": new})
    graph = lab.graph.with_fields(
        {old: {"state": "superseded", "superseded_by": (new,)}, new: {"state": "current"}, fit: {"state": "current"}}
    )
    drawn = view(graph)
    assert {node.id for item in drawn.items for node in item.nodes} == {raw, new, fit}
    assert (drawn.left_out, drawn.notes) == (1, {(drawn.number_of[new], drawn.number_of[fit]): "equal bytes"})
    assert old in {node.id for item in view(graph, superseded=True).items for node in item.nodes}
    assert old in {node.id for item in view(graph.subgraph({raw, old, fit})).items for node in item.nodes}


def test_the_node_that_is_looked_at_and_what_it_comes_from_stay_single(tomography):
    lab, _ = tomography(23)
    graph = lab.graph
    volume = next(mfid for mfid, node in graph.nodes.items() if node.name == "scan 7-2 volume")

    drawn = view(graph, volume)

    for mfid in {volume, *graph.ancestors(volume)}:
        assert len(drawn.items[drawn.number_of[mfid]].nodes) == 1


@SOME
@given(links, st.none() | st.integers(0, 5), st.none() | numbers)
def test_every_node_is_in_one_item_and_every_edge_between_items_is_drawn(edges, fold_beyond, focus):
    graph = LineageGraph([Node(str(n)) for n in range(12)], [Edge(str(s), str(t)) for s, t in edges])

    drawn = view(graph, None if focus is None else str(focus), fold_beyond=fold_beyond)

    assert sorted(node.id for item in drawn.items for node in item.nodes) == sorted(graph.nodes)
    assert set(drawn.edges) == {(drawn.number_of[s], drawn.number_of[t]) for s, t in graph.edges}


@pytest.mark.parametrize("state", ["incomplete", "blocked", "stale", "missing"])
def test_a_group_with_one_alarming_member_has_its_state(state):
    graph = LineageGraph([Node(str(n), state=state if n == 3 else "complete") for n in range(9)])

    assert view(graph).items[0].state == state


@SOME
@given(st.text(max_size=60), st.floats(20, 200))
def test_shortened_texts_fit(text, width):
    assert text_width(ellipsised(text, width, 12), 12) <= max(width, text_width("…", 12))
    assert len(wrapped(text, width, 12)) <= 2


def test_control_and_direction_characters_are_spelled_out():
    assert plain("a\x1b[31m\u202eb\nc\ud800") == "a\\x1b[31m\\u202eb\\nc\\ud800"
    assert plain("größe 膜 µm") == "größe 膜 µm"
