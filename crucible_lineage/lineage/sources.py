"""Nodes and edges out of what Crucible answers and what a pipeline declares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from sys import intern
from typing import Any, Literal, cast

from crucible_lineage.errors import InputError
from crucible_lineage.lineage.model import CURRENT, DERIVED, MEASURED, RAW, SUPERSEDED, Edge, Kind, Node
from crucible_lineage.lineage.records import PROVENANCE_KEY, provenance, state, text, used_mfids

__all__ = ["described", "nodes_and_edges_of_api", "nodes_and_edges_of_records"]

Parts = tuple[list[Node], list[Edge]]
Record = Mapping[str, Any]
_KINDS: Mapping[str, Kind] = {"sample": "sample", "hidden": "hidden"}


def nodes_and_edges_of_api(payload: Record) -> Parts:
    """The parts of a node-link object of Crucible's graph endpoints; edges are read from `edges`, else from `links`.

    Crucible does not say which end of an association is the source: it is turned to sample -> dataset.
    """
    entries = payload.get("nodes")
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise InputError(f"read a lineage graph: its `nodes` are {type(entries).__name__}, a list was expected")
    nodes = {node.id: node for node in map(_api_node, entries)}
    links = payload.get("edges") or payload.get("links") or ()
    return list(nodes.values()), [_directed(_api_edge(link), nodes) for link in links]


def nodes_and_edges_of_records(records: Iterable[Record]) -> Parts:
    """The parts that records of datasets and samples show, with the far ends of their links.

    Links that were fetched (`links` is a list) are the edges. Where they were not, the parents are those that the
    provenance names. A far end without a record is known by the name in the link, and hidden if there is none. Of two
    records of one id, the first counts. What a child was made of, its own record says, where there is one: a link moves
    the child's time of modification and not the parent's, so that of the parent an older record may be at hand.
    """
    nodes: dict[str, Node] = {}
    far_ends: dict[str, Node] = {}
    edges: dict[tuple[str, str], Edge] = {}
    claimed: dict[tuple[str, str], Edge] = {}  # by a parent, of a child that has not said it
    tells: set[str] = set()  # whose record has its links
    same: dict[str, str] = {}  # a million links that each have a copy of their ids take 140 MB more
    for record in records:
        mfid = _required_id(record, "unique_id")
        if mfid in nodes:
            continue
        mfid = same.setdefault(mfid, mfid)
        nodes[mfid] = node = described(Node(mfid), record)
        if isinstance(record.get("links"), list | tuple):
            tells.add(mfid)
        for edge, far_end in _record_edges(node, record):
            ends = source, target = same.setdefault(edge.source, edge.source), same.setdefault(edge.target, edge.target)
            if far_end.id not in far_ends or far_ends[far_end.id].kind == "hidden":
                far_ends[far_end.id] = far_end
            if source is mfid is not target and edge.relationship != MEASURED:
                if ends not in edges:
                    claimed[ends] = Edge(source, target, intern(edge.relationship))
                continue
            claimed.pop(ends, None)
            if ends not in edges or not edges[ends].relationship:
                edges[ends] = Edge(source, target, intern(edge.relationship))
    edges |= {ends: edge for ends, edge in claimed.items() if edge.target not in tells}
    others = (node for mfid, node in far_ends.items() if mfid not in nodes)
    return [*nodes.values(), *others], list(edges.values())


def described(node: Node, record: Record) -> Node:
    """The same node with what its record says; what the record leaves out stays as it was."""
    kind: Kind = "sample" if record.get("resource_type") == "sample" or "sample_name" in record else "dataset"
    written = provenance(record)
    known_state = state(record)
    if node.state in (CURRENT, SUPERSEDED, RAW) and known_state != "incomplete":
        known_state = node.state
    if not known_state and PROVENANCE_KEY not in (record.get("scientific_metadata") or ()):
        known_state = node.state
    return Node(
        id=node.id,
        kind=kind,
        name=text(record.get(f"{kind}_name")) or node.name,
        # What many records say is in memory once.
        measurement=intern(text(record.get("measurement")) or node.measurement),
        data_type=intern(text(record.get("sample_type" if kind == "sample" else "data_type")) or node.data_type),
        project=intern(text(record.get("project_id")) or node.project),
        state=intern(known_state),
        step=intern(text(written.get("step")) or node.step),
        superseded_by=node.superseded_by,
        doubt=node.doubt,
        record=record,
    )


def _api_node(entry: Any) -> Node:
    """A node of the graph endpoint, where older services say `dataset_name` or `sample_name`, or of our export."""
    mfid = _required_id(entry, "id")
    kind = _KINDS.get(text(entry.get("entity_type")), "dataset")
    return Node(
        id=mfid,
        kind=kind,
        name=text(entry.get("name")) or text(entry.get(f"{kind}_name")),
        measurement=text(entry.get("measurement")),
        data_type=text(entry.get("data_type")),
        project=text(entry.get("project_id")),
        state=text(entry.get("state")),
        step=text(entry.get("step")),
        superseded_by=tuple(filter(None, map(text, entry.get("superseded_by") or ()))),
    )


def _api_edge(entry: Any) -> Edge:
    source, target = _required_id(entry, "source"), _required_id(entry, "target")
    return Edge(source, target, text(entry.get("relationship_type")))


def _directed(edge: Edge, nodes: Mapping[str, Node]) -> Edge:
    """The edge itself, or an association of a sample and a dataset from the sample to the dataset."""
    ends = [nodes[end].kind if end in nodes else "hidden" for end in (edge.source, edge.target)]
    if ends == ["dataset", "sample"]:
        return Edge(edge.target, edge.source, MEASURED)
    if ends == ["sample", "dataset"]:
        return Edge(edge.source, edge.target, MEASURED)
    return edge


def _record_edges(node: Node, record: Record) -> Iterator[tuple[Edge, Node]]:
    """The links of one record, each with the node at its far end."""
    links = record.get("links")
    if not isinstance(links, list | tuple):
        for mfid in used_mfids(record):
            yield Edge(mfid, node.id, DERIVED), Node(mfid, "hidden")
        return
    for link in links:
        mfid, relationship = _required_id(link, "unique_id"), text(link.get("relationship_type"))
        match _link_direction(link):
            case "source":
                yield Edge(mfid, node.id, relationship), _far_end(link)
            case "target":
                yield Edge(node.id, mfid, relationship), _far_end(link)
            case "undirected" if node.kind == "sample":
                yield Edge(node.id, mfid, MEASURED), _far_end(link)
            case "undirected":
                yield Edge(mfid, node.id, MEASURED), _far_end(link)


def _link_direction(link: Record) -> Literal["source", "target", "undirected"]:
    """The link's direction; older services said it as a `relationship` (parent, child, associated)."""
    older = {"parent": "source", "child": "target", "associated": "undirected"}
    direction = text(link.get("direction")) or older.get(text(link.get("relationship")), "undirected")
    if direction not in ("source", "target", "undirected"):
        raise InputError(
            f"read the link to {link.get('unique_id')}: its direction is {direction!r}, not source or target"
        )
    return cast(Literal["source", "target", "undirected"], direction)


def _far_end(link: Record) -> Node:
    name = text(link.get("name"))
    kind: Kind = "sample" if link.get("resource_type") == "sample" else "dataset"
    return Node(text(link["unique_id"]), kind, name) if name else Node(text(link["unique_id"]), "hidden")


def _required_id(entry: object, key: str) -> str:
    found = text(entry.get(key)) if isinstance(entry, Mapping) else ""
    if not found:
        raise InputError(f"read a lineage graph: an entry has no {key!r}: {str(entry)[:80]}")
    return found
