"""Each check and each impact query against its plain definition, on random graphs with random faults."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from crucible_lineage.ids import derive_mfid, mfid_time
from crucible_lineage.lineage.checks import check
from crucible_lineage.lineage.compare import impact_of_code, impact_of_dataset, impact_of_file, impact_of_instrument
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Edge, Node
from crucible_lineage.text.times import measured_at

MANY = settings(max_examples=60, deadline=None)
START = datetime(2026, 3, 1, tzinfo=UTC)
SIZE = 7
DERIVED, PART = "is_derived_from", "is_part_of"

numbers = st.integers(0, SIZE - 1)
HASHES = [f"{n:064x}" for n in range(3)]


@st.composite
def graphs(draw):
    """Draw seven datasets, samples and hidden nodes at random times with random links and records that may disagree."""
    times = [START + timedelta(seconds=draw(st.integers(0, 3))) for _ in range(SIZE)]
    mfids = [derive_mfid({"n": n}, time) for n, time in enumerate(times)]
    kinds = [draw(st.sampled_from(["dataset", "dataset", "dataset", "sample", "hidden"])) for _ in range(SIZE)]
    links = draw(st.dictionaries(st.tuples(numbers, numbers), st.sampled_from([DERIVED, PART, "", "odd"]), max_size=12))
    nodes = []
    for n, (mfid, kind) in enumerate(zip(mfids, kinds, strict=True)):
        if kind != "dataset":
            nodes.append(Node(mfid, kind, f"node {n}"))
            continue
        record = draw(records(mfids, times[n]))
        written = record["scientific_metadata"].get("crucible_lineage", {})
        state = written.get("status", "")
        nodes.append(Node(mfid, "dataset", f"node {n}", "m", "raw", record["project_id"], state, "", record))
    return LineageGraph(nodes, [Edge(mfids[s], mfids[t], relationship) for (s, t), relationship in links.items()])


@st.composite
def records(draw, mfids, time):
    record = {
        "project_id": draw(st.sampled_from(["demo", "demo", "other"])),
        "timestamp": time.isoformat(),
        "instrument_name": draw(st.sampled_from(["beamline", None])),
        "scientific_metadata": {},
    }
    if not draw(st.booleans()):
        return record
    used = draw(
        st.lists(st.tuples(numbers, st.sampled_from([*HASHES, None])), max_size=3, unique_by=lambda use: use[0])
    )
    written = {
        "status": draw(st.sampled_from(["complete", "complete", "incomplete"])),
        "used": [
            {"role": "r", "mfid": mfids[n], "files": [{"name": "x", "sha256": sha256}] if sha256 else []}
            for n, sha256 in used
        ],
        "generated": [{"name": "x", "sha256": draw(st.sampled_from(HASHES))}],
        "activity": {"code": {"fingerprint": draw(st.sampled_from(["good", "bad"]))}},
    }
    if draw(st.booleans()):
        written["recipe"] = {"n": draw(st.integers(0, 2))}
    else:
        written["attached"] = {"used": len(used) + draw(st.integers(0, 1))}
    record["scientific_metadata"]["crucible_lineage"] = written
    return record


def written_of(node):
    return ((node.record or {}).get("scientific_metadata") or {}).get("crucible_lineage") or {}


def used_of(node):
    return {entry["mfid"] for entry in written_of(node).get("used", ())}


def expected(graph):
    """Return {check: ids of each finding} by definition; for orphans only their ids. Cycles have a separate test."""
    found = defaultdict(list)
    nodes = graph.nodes
    for (source, target), edge in graph.edges.items():
        if source == target:
            found["self-link"].append((source,))
        if nodes[source].kind == "hidden":
            found["dangling-parent"].append((source, target))
        are_datasets = "sample" not in (nodes[source].kind, nodes[target].kind)
        if are_datasets and edge.relationship != PART and mfid_time(target) < mfid_time(source):
            found["older-than-parent"].append((source, target))
        if edge.relationship not in (DERIVED, PART) and source not in used_of(nodes[target]):
            found["unknown-relationship"].append((source, target))
    for mfid, node in nodes.items():
        written = written_of(node)
        links = {source: edge.relationship for (source, target), edge in graph.edges.items() if target == mfid}
        for parent in used_of(node):
            if nodes[parent].kind == "hidden":
                found["dangling-parent"].append((parent, mfid))
            elif links.get(parent) != DERIVED:
                found["mismatch"].append((parent, mfid))
        knows_all = written.get("attached", {}).get("used", 0) <= len(written.get("used", ()))
        if written and knows_all:
            surplus = [parent for parent, relationship in links.items() if relationship != PART]
            found["mismatch"] += [(parent, mfid) for parent in surplus if parent not in used_of(node)]
        if written.get("status") == "incomplete":
            found["incomplete"].append((mfid,))
        projects = {nodes[p].project for p, relationship in links.items() if relationship != PART} - {""}
        if node.project and projects and node.project not in projects:
            found["wrong-project"].append((mfid,))
    for number in range(3):
        same = [mfid for mfid, node in nodes.items() if written_of(node).get("recipe") == {"n": number}]
        if len(same) > 1:
            found["duplicate-recipe"].append(tuple(same))
    return {name: sorted(set(ids)) for name, ids in found.items() if ids}


@MANY
@given(graphs())
def test_checks_find_what_they_say_they_find_and_nothing_else(graph):
    found = defaultdict(list)
    for finding in check(graph):
        if finding.check != "cycle":
            found[finding.check].append(finding.ids)

    assert {name: sorted(ids) for name, ids in found.items()} == expected(graph)


def below(graph, starts):
    """Return `starts` and all their descendants, without samples."""
    reached, before = set(starts), None
    while reached != before:
        before = set(reached)
        reached |= {target for source, target in graph.edges if source in before}
    return {mfid for mfid in reached if graph.nodes[mfid].kind != "sample"}


def children(graph, mfids):
    return {target for source, target in graph.edges if source in mfids}


@MANY
@given(graphs(), numbers, st.sampled_from(HASHES), st.integers(0, 3))
def test_impact_is_what_is_below_the_cause(graph, number, sha256, second):
    mfid = list(graph.nodes)[number]
    found = impact_of_dataset(graph, mfid).ids
    assert set(found) == below(graph, children(graph, {mfid}))
    assert len(found) == len(set(found))

    made = {m for m, node in graph.nodes.items() if written_of(node).get("activity", {}).get("code")}
    bad = {m for m in made if written_of(graph.nodes[m])["activity"]["code"]["fingerprint"] == "bad"}
    found = impact_of_code(graph, "bad").ids
    assert set(found) == below(graph, bad)
    assert len(found) == len(set(found))

    until = START + timedelta(seconds=second)
    taken = {
        m for m, node in graph.nodes.items()
        if (node.record or {}).get("instrument_name") == "beamline" and measured_at(node.record) <= until
    }  # fmt: skip
    assert set(impact_of_instrument(graph, "beamline", until=until).ids) == below(graph, children(graph, taken))

    assert set(impact_of_file(graph, sha256).ids) == below(graph, set(wronged(graph, sha256)))


def wronged(graph, sha256):
    """Return the users of the file, and children of its owners unless their records list other files of these."""
    for mfid, node in graph.nodes.items():
        entries = written_of(node).get("used", ())
        used = {(entry["mfid"], file["sha256"]) for entry in entries for file in entry["files"]}
        if sha256 in {used_sha256 for _, used_sha256 in used}:
            yield mfid
            continue
        for source, target in graph.edges:
            owned = [file["sha256"] for file in written_of(graph.nodes[source]).get("generated", ())]
            names_none = not any(of == source for of, _ in used)
            if target == mfid and sha256 in owned and names_none:
                yield mfid
