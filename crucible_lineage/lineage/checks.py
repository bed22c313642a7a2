"""Rules of a lineage graph. Each finds one kind of fault, the ids concerned, and the command that repairs it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import networkx

from crucible_lineage.ids import is_mfid, is_timed, mfid_time
from crucible_lineage.json_types import mapping, text
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import IN_PLACE, SUPERSEDED, Node
from crucible_lineage.lineage.records import equal_parents, lists_all_used, provenance, recipe_digest, used_mfids
from crucible_lineage.machine.process import collector_paused
from crucible_lineage.refs import DERIVED, MEASURED, PART
from crucible_lineage.text.amounts import amount

Severity = Literal["error", "warning", "notice"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)  # worst first


@dataclass(frozen=True)
class Finding:
    """One fault: `ids` may include hidden nodes, which `message` does not name; `command` repairs it or shows more."""

    check: str
    severity: Severity
    ids: tuple[str, ...]
    message: str
    command: str = ""

    json_keys: ClassVar = "class=check severity mfids=ids message command"


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by severity; those of equal severity stay in the order in which they were found."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def link_command(parent: str, child: str) -> str:
    """Return the command that links a child to its parent, or corrects the type of their link."""
    return f"crucible link -p {parent} -c {child} --relationship-type {DERIVED}"


def check(graph: LineageGraph, mfids: Collection[str] | None = None) -> list[Finding]:
    """Find the faults of a graph: of each node, or of those in `mfids`, then those of several datasets."""
    with collector_paused():
        nodes = [node for mfid, node in graph.nodes.items() if mfids is None or mfid in mfids]
        found = [finding for node in nodes for rule in RULES for finding in rule(graph, node)]
        return [*found, *cycles(graph), *duplicate_recipes(graph, nodes)]


def cycles(graph: LineageGraph) -> Iterator[Finding]:
    """Find one cycle in each group of datasets that descend from themselves, as a path from its smallest id."""
    knots = (knot for knot in networkx.strongly_connected_components(graph.nx) if len(knot) > 1)
    for knot in sorted(map(sorted, knots)):
        within, start = graph.nx.subgraph(knot), knot[0]
        ways = (networkx.shortest_path(within, child, start) for child in sorted(within.succ[start]) if child != start)
        path = (start, *min(ways, key=len))
        message = (
            f"these descend from themselves: {' -> '.join(graph.label(mfid) for mfid in path)}; "
            "check which link is the wrong way round"
        )
        yield Finding("cycle", "error", path, message, f"crucible unlink {path[-2]} {path[-1]}")


def duplicate_recipes(graph: LineageGraph, nodes: Iterable[Node]) -> Iterator[Finding]:
    """Find groups of datasets with the same recipe: the same work was registered more than once."""
    by_digest: defaultdict[str, list[str]] = defaultdict(list)
    for node in nodes:
        if digest := recipe_digest(node.record):
            by_digest[digest].append(node.id)
    for same in by_digest.values():
        if len(same) > 1:
            names = ", ".join(graph.label(mfid) for mfid in same)
            what = f"{amount(len(same), 'dataset')} record the same recipe: {names}"
            message = f"{what}; keep one and request deletion of the others"
            yield Finding("duplicate-recipe", "warning", tuple(same), message, f"crucible deletion request {same[-1]}")


def self_link(graph: LineageGraph, node: Node) -> Iterator[Finding]:
    """Find that a dataset is linked to itself."""
    if (node.id, node.id) in graph.edges:
        message = f"{graph.label(node.id)} is linked to itself"
        yield Finding("self-link", "error", (node.id,), message, f"crucible unlink {node.id} {node.id}")


def dangling_parents(graph: LineageGraph, node: Node) -> Iterator[Finding]:
    """Find parents in links or the provenance record that are hidden from the reader, or do not exist."""
    for parent in dict.fromkeys((*graph.parents(node.id), *used_mfids(node.record))) if graph.hidden else ():
        if parent in graph.hidden:
            message = f"a parent of {graph.label(node.id)} is not visible to you or does not exist"
            yield Finding("dangling-parent", "warning", (parent, node.id), message, f"crucible get {node.id}")


def mismatches(graph: LineageGraph, node: Node) -> Iterator[Finding]:
    """Find links that differ from the parents in the provenance: missing, of another type, or superfluous.

    Hidden parents do not count, since their links are unknown, nor do links of type `is_part_of` without a parent in
    the provenance. A long record may name only some of its parents: then no link is superfluous.
    """
    if not provenance(node.record):
        return
    used, name = set(used_mfids(node.record)), graph.label(node.id)
    links = {mfid: graph.edges[mfid, node.id].relationship for mfid in graph.parents(node.id)}
    for mfid in used_mfids(node.record):
        if mfid not in graph.hidden and links.get(mfid) != DERIVED:
            kind = links.get(mfid) or "of no type"
            link = f"the link between them is {kind}" if mfid in links else "there is no link between them"
            message = f"{name} was made from {graph.label(mfid)}, but {link}"
            yield Finding("mismatch", "error", (mfid, node.id), message, link_command(mfid, node.id))
    for mfid, relationship in links.items():
        if mfid not in used and relationship not in (MEASURED, PART) and lists_all_used(node.record):
            message = f"{name} is linked to {graph.label(mfid)}, which its provenance does not name"
            yield Finding("mismatch", "warning", (mfid, node.id), message, f"crucible unlink {mfid} {node.id}")


def older_than_parents(graph: LineageGraph, node: Node) -> Iterator[Finding]:
    """Find that the id is older than a parent's, which is no fault for a part or a measurement of a sample."""
    for parent in graph.parents(node.id):
        # The first ten symbols contain the 48 time bits; comparing them first avoids decoding nearly every pair.
        if (
            node.id[:10] < parent[:10]
            and graph.edges[parent, node.id].relationship not in (MEASURED, PART)
            and all(is_mfid(mfid) and graph.nodes[mfid].kind != "sample" for mfid in (node.id, parent))
            and is_timed(node.id)
            and mfid_time(node.id) < mfid_time(parent)
        ):
            message = (
                f"{graph.label(node.id)} of {mfid_time(node.id):%Y-%m-%d %H:%M:%S} UTC is older than its parent "
                f"{graph.label(parent)} of {mfid_time(parent):%Y-%m-%d %H:%M:%S} UTC; check which was derived from the "
                "other"
            )
            yield Finding("older-than-parent", "warning", (parent, node.id), message, f"crucible get {node.id}")


def unknown_relationships(graph: LineageGraph, node: Node) -> Iterator[Finding]:
    """Find links to parents not in the record that have no type, or one that Crucible does not know."""
    for parent in graph.parents(node.id):
        relationship = graph.edges[parent, node.id].relationship
        if relationship in (DERIVED, PART, MEASURED) or parent in used_mfids(node.record):
            continue
        ends = f"the link from {graph.label(parent)} to {graph.label(node.id)}"
        command = link_command(parent, node.id)
        if relationship:
            message = f"{ends} is of type {relationship!r}, but must be {DERIVED} or {PART}"
            yield Finding("unknown-relationship", "warning", (parent, node.id), message, command)
        else:
            message = f"{ends} does not say what it means"
            yield Finding("unknown-relationship", "notice", (parent, node.id), message, command)


def incomplete(graph: LineageGraph, node: Node) -> Iterator[Finding]:
    """Find that the registration was begun and not finished."""
    if node.state == "incomplete":
        message = (
            f"{graph.label(node.id)} is incomplete: its registration is under way, or was interrupted; "
            "run its pipeline, or register it again, to continue"
        )
        files = f"crucible-lineage register FILES --project {node.project or 'PROJECT'}"
        command = f"crucible-lineage rerun {node.id}" if node.step else files
        yield Finding("incomplete", "error", (node.id,), message, command)


def orphan(graph: LineageGraph, node: Node) -> Iterator[Finding]:
    """Find that a dataset looks derived, but no parent is named; its collection may be its origin (a split file)."""
    has_parent = any(graph.nodes[mfid].kind != "sample" for mfid in graph.parents(node.id))
    if node.kind != "dataset" or has_parent or provenance(node.record).get("used"):
        return
    for field, value in (("data type", node.data_type), ("measurement", node.measurement), ("name", node.name)):
        if word := _PROCESSED.search(value):
            reason = f"its {field} contains {word.group().lower()!r}"
            message = f"{graph.label(node.id)} looks derived ({reason}) and has no parent"
            yield Finding("orphan", "warning", (node.id,), message, link_command("PARENT", node.id))
            return


def wrong_project(graph: LineageGraph, node: Node) -> Iterator[Finding]:
    """Find that a dataset is outside its recorded project, or in one without any parent; not so for parts."""
    if node.kind != "dataset":
        return
    recorded = text(mapping(provenance(node.record).get("recipe")).get("project"))
    command = f"crucible get {node.id}"
    if recorded and recorded.casefold() != node.project.casefold():
        location = f"project {node.project}" if node.project else "no project"
        message = f"{graph.label(node.id)} was made in project {recorded} according to its record, but is in {location}"
        yield Finding("wrong-project", "warning", (node.id,), message, command)
    elif node.project:
        parents = (mfid for mfid in graph.parents(node.id) if graph.edges[mfid, node.id].relationship != PART)
        projects = {graph.nodes[mfid].project for mfid in parents if graph.nodes[mfid].kind == "dataset"} - {""}
        if projects and node.project not in projects:
            others = ", ".join(sorted(projects))
            message = f"{graph.label(node.id)} is in project {node.project}, its parents are in {others}"
            yield Finding("wrong-project", "warning", (node.id,), message, command)


def made_of_superseded(graph: LineageGraph, node: Node) -> Iterator[Finding]:
    """Find superseded parents of a current result that would differ if made from the current ones."""
    parents = [mfid for mfid in graph.parents(node.id) if graph.edges[mfid, node.id].relationship != PART]
    old = [mfid for mfid in parents if graph.nodes[mfid].state == SUPERSEDED] if node.state in IN_PLACE else []
    if not old:
        return
    used, same = used_mfids(node.record), equal_parents(node.record)
    replaced = {was for now, was in same.items() if now in graph and graph.nodes[now].state in IN_PLACE}
    for parent in old:
        if parent in used and parent not in replaced and parent not in same:
            by = graph.nodes[parent].superseded_by
            instead = " and ".join(graph.label(other) if other in graph else other for other in by) or "another result"
            remedy, command = _remedy(node, by)
            message = (
                f"{graph.label(node.id)} is current, but was made from {graph.label(parent)}, which {instead} "
                f"{'have' if len(by) > 1 else 'has'} replaced; {remedy}"
            )
            yield Finding("made-of-superseded", "warning", (node.id, parent), message, command)


def _remedy(node: Node, by: Sequence[str]) -> tuple[str, str]:
    """Return what renews a result that was made from a superseded one, in words and as a command."""
    recorded = provenance(node.record)
    if recorded.get("pipeline"):
        way = "run its pipeline again, or rerun its step with current parents"
        return way, f"crucible-lineage rerun {node.id}"
    if recorded.get("step"):
        return "run its flow again", f"crucible-lineage why {node.id}"
    options = f"--parent {by[0] if len(by) == 1 else 'MFID'} --supersedes {node.id} --note TEXT"
    return (
        "if it is valid for that too, or is made again, register it with that parent",
        f"crucible-lineage register FILES --project {node.project or 'PROJECT'} {options}",
    )


RULES: tuple[Callable[[LineageGraph, Node], Iterator[Finding]], ...] = (
    self_link,
    dangling_parents,
    mismatches,
    older_than_parents,
    unknown_relationships,
    incomplete,
    orphan,
    wrong_project,
    made_of_superseded,
)
_PROCESSED = re.compile(
    r"\b(analy[sz]ed|analysis|background[- ]subtracted|calibrated|corrected|derived|filtered|fit|fitted|normali[sz]ed"
    r"|processed|reconstructed|reconstruction|reduced|segmented|smoothed)\b",
    re.IGNORECASE,
)
