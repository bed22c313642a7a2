"""Renderings are reproducible, without active content from names, and without anything hidden from the reader."""

from __future__ import annotations

import json
import math
import re
from xml.etree import ElementTree

import networkx
import pydot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Edge, Node
from crucible_lineage.lineage.page import render_html
from crucible_lineage.lineage.prov import render_prov_json, shareable
from crucible_lineage.lineage.svg import render_svg
from crucible_lineage.lineage.text import render_dot, render_graphml, render_mermaid, render_tree, to_node_link
from crucible_lineage.refs import DERIVED, MEASURED, PART
from crucible_lineage.statements.statements import About, Doubt, Statement
from tests.golden.stored import compare
from tests.page import page_data


def whole_page(graph):
    """Return the page with its packed data in plain text."""
    page = render_html(graph)
    return page + json.dumps(page_data(page), ensure_ascii=False)


RENDERERS = {
    "tree": lambda graph: "\n".join(render_tree(graph)),
    "svg": render_svg,
    "svg-superseded": lambda graph: render_svg(graph, superseded=True),
    "html": whole_page,
    "mermaid": lambda graph: "\n".join(render_mermaid(graph)),
    "node-link": lambda graph: json.dumps(to_node_link(graph)),
    "graphml": render_graphml,
    "dot": render_dot,
    "prov-json": render_prov_json,
}
SVG = "{http://www.w3.org/2000/svg}"
EVIL = "<script>alert(1)</script>\"'&]]>\x1b[2J\uffff\u2028--><img src=x onerror=alert(1)>#;%\\{}"
SECRET = "0td40y80027sn1w6x3snqzzzzz"  # an id that the reader may not see
every_renderer = pytest.mark.parametrize("render", RENDERERS.values(), ids=RENDERERS)


@every_renderer
def test_rendering_twice_gives_the_same(render, tomography):
    assert render(tomography(2)[0].graph) == render(tomography(2)[0].graph)


@pytest.mark.parametrize("render", [RENDERERS[name] for name in ("tree", "svg", "html", "mermaid")])
@pytest.mark.parametrize(
    ("relationship", "read"),
    [(DERIVED, ""), (PART, PART), (MEASURED, MEASURED), ("caused_by", "caused_by"), ("", "untyped link")],
)
def test_a_relationship_is_read_alike_everywhere_and_derivation_needs_no_word(render, relationship, read):
    drawn = render(LineageGraph([Node("a"), Node("b")], [Edge("a", "b", relationship)]))
    assert read in drawn
    assert read == relationship or relationship == "" or relationship not in drawn


@pytest.fixture
def everything(lab):
    """A lineage with all that is drawn in some way of its own, in which one dataset is hidden."""
    lab.tomography(1)
    wafer = lab.sample("wafer 8 <thin>", sample_type="Si wafer", description="half of wafer 7")
    scan, dark = lab.raw("scan", sample=wafer, instrument_name="beamline"), lab.raw("dark", "dark", timestamp="soon")
    old = lab.derived("corrected", "correct", scan, dark, params={"degree": 2})
    fixed = lab.derived("corrected", "correct", scan, SECRET, supersedes=old, params={"degree": 3})
    written = lab.records[fixed]["scientific_metadata"]
    written |= {"note": f"from {SECRET}/scan.h5", SECRET: [SECRET], "rms": 1 / 3, "small": 1e-9 / 7, "many": 123456.75}
    for number, item in enumerate("abcdefghij"):
        gaps = [f"scan {item} has no dark field"] * (number % 3)
        made = lab.derived(f"frame {item} of a name that is too long for a box", "split", fixed, status="incomplete")
        lab.records[made]["scientific_metadata"]["crucible_lineage"]["activity"]["gaps"] = gaps
    graph = lab.graph
    hold = Statement(fixed, "demo", "hold", About((scan,)), "ada", "2026-03-02T10:00:00Z", "the lamp drifted")
    linked = [*graph.edges.values(), Edge(scan, dark, PART), Edge(dark, made, ""), Edge(scan, made, "caused_by")]
    fields = {
        old: {"state": "superseded", "superseded_by": (fixed,), "swept": "degree=2"},
        fixed: {"state": "doubtful", "doubt": Doubt(scan, hold)},
    }
    return LineageGraph(graph.nodes.values(), linked).with_fields(fields)


@pytest.mark.parametrize(
    "name", ["tree", "svg", "svg-superseded", "html", "mermaid", "node-link"]
)  # libraries write the others
def test_what_can_be_drawn_is_drawn_as_it_was_and_without_the_hidden(name, everything):
    shown = RENDERERS[name](everything)
    assert SECRET not in shown
    assert SECRET[-6:] not in shown
    compare(f"lineage/{name}.txt", json.dumps(page_data(shown), indent=1) if name == "html" else f"{shown}\n")


def test_what_is_shared_names_nothing_hidden(everything):
    fields = {mfid: {"superseded_by": (SECRET, "a")} for mfid in everything.nodes}
    shared = shareable(everything.with_fields(fields)).nodes.values()
    assert SECRET not in repr([(node.record, node.superseded_by) for node in shared if node.kind != "hidden"])


@every_renderer
def test_no_control_character_of_a_name_gets_through(render):
    shown = render(LineageGraph([Node("a", name=EVIL, measurement=EVIL, step=EVIL), Node("b")], [Edge("a", "b", EVIL)]))

    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u2028\u202e\uffff]", shown.replace("\\u001b", ""))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=2, max_size=5), st.text(max_size=12))
def test_whatever_the_names_the_picture_is_xml_and_its_titles_say_them(names, relationship):
    nodes = [Node(f"d{number}", name=name) for number, name in enumerate(names)]
    graph = LineageGraph(nodes, [Edge("d0", node.id, relationship) for node in nodes[1:]])

    root = ElementTree.fromstring(render_svg(graph))

    assert {element.tag for element in root.iter()} <= {
        SVG + name for name in ("svg", "defs", "marker", "path", "rect", "g", "title", "text")
    }
    assert len(root.findall(f".//{SVG}title")) == len(names)


def test_the_page_holds_a_name_as_data_only():
    page = render_html(LineageGraph([Node("a", name=EVIL)]), "a")

    assert "alert(1)</script>" not in page
    assert page.count("<script") == 2
    assert "<img" not in page
    (name,) = page_data(page)["nodes"]["name"]
    assert name.startswith("<script>alert(1)</script>")


def test_the_page_asks_nothing_of_a_network_and_allows_its_own_script_only(tomography):
    page = render_html(tomography(1)[0].graph)

    assert not re.search(r"<[^<>]*\b(src|href|action)\s*=|https?://(?!www\.w3\.org)|@import|url\((?!#)", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_the_page_holds_every_record_whole(lab):
    scan = lab.raw("scan")
    odd = {"list": [1, 1.5, True, None, "", [], {}], "__proto__": {"a": "b"}, "lone": "\ud800", "infinite": math.inf}
    fixed = lab.derived("corrected", "correct", scan, params={"degree": 3})
    lab.records[fixed]["scientific_metadata"] |= odd

    data = page_data(render_html(lab.graph))

    details = dict(zip(data["nodes"]["id"], data["details"], strict=True))
    assert details[fixed]["metadata"] == {"score": 0.5} | odd | {"infinite": "inf"}
    assert details[fixed]["params"] == {"degree": 3}
    assert details[fixed]["files"] == lab.files(fixed)
    written = lab.records[fixed]["scientific_metadata"]["crucible_lineage"]
    assert details[fixed]["provenance"] == {key: value for key, value in written.items() if key != "generated"}
    assert details[scan]["files"] == lab.files(scan)


def test_a_deep_chain_is_no_trouble():
    ids = [f"d{number}" for number in range(3000)]
    graph = LineageGraph(map(Node, ids), map(Edge, ids, ids[1:]))

    assert len(list(render_tree(graph))) == 3000
    assert render_svg(graph).count("<title>") == 3000


def test_node_link_json_comes_back_as_the_same_graph(tomography):
    graph = tomography(2)[0].graph
    exported = json.loads(json.dumps(to_node_link(graph)))

    assert LineageGraph.from_api(exported) == graph
    again = networkx.node_link_graph(exported, edges="edges")
    assert (type(again), set(again.edges)) == (networkx.DiGraph, set(graph.edges))


def test_mermaid_charts_stay_within_its_limits_and_miss_no_edge():
    ids = [f"dataset-{number:04d}" for number in range(1200)]
    graph = LineageGraph([Node(mfid, name=mfid * 3) for mfid in ids], map(Edge, ids, ids[1:]))

    charts = render_mermaid(graph)

    assert len(charts) > 1
    assert all(chart.count("-->") < 500 and len(chart) < 50_000 for chart in charts)
    assert sum(chart.count("-->") for chart in charts) == 1199
    for chart in charts:
        named = set(re.findall(r"n\d+(?=[\[(])", chart))
        assert set(re.findall(r"(n\d+) -->|--> (n\d+)", chart)[0]) - {""} <= named


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pydot's parser
def test_graphml_and_dot_come_back_with_every_link_and_field(tomography):
    graph = tomography(2)[0].graph
    names = {mfid: node.name for mfid, node in graph.nodes.items()}
    links = {ends: edge.relationship for ends, edge in graph.edges.items()}

    again = networkx.parse_graphml(render_graphml(graph))
    assert {ends: entry["relationship_type"] for ends, entry in again.edges.items()} == links
    assert {mfid: entry["name"] for mfid, entry in again.nodes.items()} == names

    drawn = networkx.nx_pydot.from_pydot(pydot.graph_from_dot_data(render_dot(graph))[0])
    assert {ends: json.loads(entry["relationship_type"]) for ends, entry in drawn.edges.items()} == links
    assert {mfid: json.loads(entry["label"]) for mfid, entry in drawn.nodes.items()} == names
