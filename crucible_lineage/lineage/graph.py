"""LineageGraph: the lineage of datasets as an immutable graph with edges from parent to child."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from sys import intern
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import networkx

from crucible_lineage.errors import InputError
from crucible_lineage.ids import canonical_json
from crucible_lineage.json_types import JsonMapping, text
from crucible_lineage.lineage.labels import short_id
from crucible_lineage.lineage.model import NODE_TEXTS, STANDINGS, Edge, Kind, Node
from crucible_lineage.lineage.records import (
    provenance,
    slot_keys,
    state,
    swept_in,
    unknown_inputs,
    used_mfids,
)
from crucible_lineage.machine.process import collector_paused
from crucible_lineage.marks import KEY
from crucible_lineage.refs import DERIVED, MEASURED, PART

T = TypeVar("T", bound=Hashable)
Direction = Literal["ancestors", "descendants", "both"]


class LineageGraph:
    """Datasets and samples with their links, parent -> child.

    `nodes` is by id and `edges` by (source, target), both in their original order. `nx` is the same as a frozen
    networkx graph, whose nodes carry their Node as `node`, and edges their `relationship`. An id that only an edge
    names is a hidden node: it exists, but the reader may not see it. Methods with changes return a new graph.
    """

    def __init__(self, nodes: Iterable[Node], edges: Iterable[Edge] = ()) -> None:
        with collector_paused():
            by_id = {node.id: node for node in nodes}
            by_ends: dict[tuple[str, str], Edge] = {}
            for edge in edges:
                by_ends.setdefault((edge.source, edge.target), edge)
            for source, target in by_ends:
                for end in (source, target):
                    if end not in by_id:
                        by_id[end] = Node(end, "hidden")
            self.nodes: Mapping[str, Node] = MappingProxyType(by_id)
            self.edges: Mapping[tuple[str, str], Edge] = MappingProxyType(by_ends)
            self.nx: networkx.DiGraph[str] = networkx.DiGraph()
            self.nx.add_nodes_from((mfid, {"node": node}) for mfid, node in by_id.items())
            self.nx.add_edges_from((*ends, {"relationship": edge.relationship}) for ends, edge in by_ends.items())
            networkx.freeze(self.nx)

    @classmethod
    @collector_paused()
    def from_api(cls, payload: JsonMapping) -> LineageGraph:
        """Create a graph from an answer of Crucible's graph endpoints (node-link JSON)."""
        entries = payload.get("nodes")
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            raise InputError(f"read a lineage graph: its `nodes` are {type(entries).__name__}, a list was expected")
        nodes = {node.id: node for node in map(_api_node, entries)}
        return cls(nodes.values(), [_api_edge(link, nodes) for link in payload.get("edges") or ()])

    @classmethod
    @collector_paused()
    def from_records(cls, records: Iterable[JsonMapping]) -> LineageGraph:
        """Create a graph from records of datasets and samples, with the far ends of their links.

        Fetched links (`links` is a list) are the edges. Without them, the parents are those in the provenance. A far
        end without a record has the name in the link, and is hidden if there is none. Of two records of one id, the
        first counts. A child's record takes precedence over its parents': a link changes only the child's modification
        time, so the parent's record may be outdated.
        """
        nodes: dict[str, Node] = {}
        far_ends: dict[str, Node] = {}
        edges: dict[tuple[str, str], Edge] = {}
        claimed: dict[tuple[str, str], Edge] = {}  # by a parent's record, not by the child's
        linked: set[str] = set()  # ids whose records have links
        same: dict[str, str] = {}  # a million links with their own copies of ids take 140 MB more
        for record in records:
            mfid = _required_id(record, "unique_id")
            if mfid in nodes:
                continue
            mfid = same.setdefault(mfid, mfid)
            nodes[mfid] = node = with_record(Node(mfid), record)
            if isinstance(record.get("links"), list | tuple):
                linked.add(mfid)
            for edge, far_end in _record_edges(node, record):
                source, target = (same.setdefault(end, end) for end in (edge.source, edge.target))
                ends = source, target
                if far_end.id not in far_ends or far_ends[far_end.id].kind == "hidden":
                    far_ends[far_end.id] = far_end
                if source is mfid is not target and edge.relationship != MEASURED:
                    claimed[ends] = Edge(source, target, intern(edge.relationship))
                elif ends not in edges or not edges[ends].relationship:
                    edges[ends] = Edge(source, target, intern(edge.relationship))
        edges |= {ends: edge for ends, edge in claimed.items() if edge.target not in linked and ends not in edges}
        others = (node for mfid, node in far_ends.items() if mfid not in nodes)
        return cls([*nodes.values(), *others], edges.values())

    def with_records(self, records: Mapping[str, Mapping[str, object]]) -> LineageGraph:
        """Return the same links, with each node described by its record; records of unknown ids are ignored."""
        return self._with(lambda node: with_record(node, records[node.id]) if node.id in records else node)

    def with_fields(self, fields: Mapping[str, Mapping[str, Any]]) -> LineageGraph:
        """Return the same links, with other values of fields by id; other nodes are unchanged."""
        return self._with(lambda node: replace(node, **fields[node.id]) if node.id in fields else node)

    def _with(self, change: Callable[[Node], Node]) -> LineageGraph:
        return LineageGraph(map(change, self.nodes.values()), self.edges.values())

    def __len__(self) -> int:
        return len(self.nodes)

    def __contains__(self, mfid: object) -> bool:
        return mfid in self.nodes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LineageGraph) and self.nodes == other.nodes and self.edges == other.edges

    __hash__ = None  # type: ignore[assignment]  # equal by content

    def __repr__(self) -> str:
        return f"<LineageGraph: {len(self.nodes)} nodes, {len(self.edges)} edges>"

    def node(self, mfid: str) -> Node:
        """Return the node of an id. Raises InputError if the graph has none."""
        try:
            return self.nodes[mfid]
        except KeyError:
            raise InputError(f"look up {mfid} in a lineage graph of {len(self)} nodes: it is not among them") from None

    def label(self, mfid: str) -> str:
        """Return a node's name and short id for use in a sentence, without those of a hidden node."""
        node = self.nodes.get(mfid)
        if node is None or node.kind == "hidden":
            return "a dataset that is not visible to you"
        return f"{node.name} ({short_id(mfid)})" if node.name and node.name != mfid else short_id(mfid)

    def parents(self, mfid: str) -> tuple[str, ...]:
        """Return the ids with an edge to `mfid`. Like similar methods, raises InputError if the graph has no `mfid`."""
        return tuple(self.nx.pred[self.node(mfid).id])

    def children(self, mfid: str) -> tuple[str, ...]:
        """Return the ids with an edge from `mfid`."""
        return tuple(self.nx.succ[self.node(mfid).id])

    def ancestors(self, mfid: str, depth: int | None = None) -> frozenset[str]:
        """Return all ancestors of `mfid`, within `depth` edges if given; even on a cycle without `mfid` itself."""
        edges = networkx.bfs_edges(self.nx, self.node(mfid).id, reverse=True, depth_limit=depth)
        return frozenset(parent for _, parent in edges)

    def descendants(self, mfid: str, depth: int | None = None) -> frozenset[str]:
        """Return all descendants of `mfid`, within `depth` edges if given; even on a cycle without `mfid` itself."""
        edges = networkx.bfs_edges(self.nx, self.node(mfid).id, depth_limit=depth)
        return frozenset(child for _, child in edges)

    @cached_property
    def hidden(self) -> frozenset[str]:
        """The ids that the reader may not see."""
        return frozenset(mfid for mfid, node in self.nodes.items() if node.kind == "hidden")

    def subgraph(self, mfids: Collection[str]) -> LineageGraph:
        """Return the graph of these nodes and the edges among them."""
        selected = frozenset(mfids)
        nodes = [node for mfid, node in self.nodes.items() if mfid in selected]
        inner = (self.edges[node.id, c] for node in nodes for c in self.nx.succ[node.id] if c in selected)
        return LineageGraph(nodes, inner)

    def derivations(self) -> LineageGraph:
        """Return the same nodes without links of type `is_part_of`, as of collections and runs."""
        return LineageGraph(self.nodes.values(), (e for e in self.edges.values() if e.relationship != PART))

    def around(self, focus: str | None, depth: int | None = None, direction: Direction = "both") -> LineageGraph:
        """Return the ancestors of `focus`, its descendants, or both, within `depth` edges; all if it is None."""
        if focus is None:
            return self
        selected = {focus}
        if direction != "descendants":
            selected |= self.ancestors(focus, depth)
        if direction != "ancestors":
            selected |= self.descendants(focus, depth)
        return self.subgraph(selected)

    def with_parents(self, mfids: Iterable[str]) -> LineageGraph:
        """Return these datasets, as far as they are nodes, their parents, and the derivations among them."""
        found = self.nodes.keys() & set(mfids)
        graph = self.derivations()
        return graph.subgraph(found.union(*(graph.parents(mfid) for mfid in found)))


def generations(graph: networkx.DiGraph[T]) -> list[list[T]]:
    """Return the nodes by topological generation, roots first; those on or behind a cycle are omitted."""
    found = []
    with suppress(networkx.NetworkXUnfeasible):  # raised after all generations before a cycle
        for generation in networkx.topological_generations(graph):
            found.append(generation)
    return found


def executions(recipes: Mapping[str, JsonMapping], links: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Group results by the execution that made them, as their recipes tell; sort the groups, parents first."""
    groups: dict[bytes, list[str]] = {}
    for mfid, recipe in recipes.items():
        key = canonical_json({name: part for name, part in recipe.items() if name != "output"})
        groups.setdefault(key, []).append(mfid)
    found = list(groups.values())
    number = {mfid: n for n, group in enumerate(found) for mfid in group}
    graph: networkx.DiGraph[int] = networkx.DiGraph()
    graph.add_nodes_from(range(len(found)))
    ends = ((number[parent], number[child]) for parent, child in links if {parent, child} <= number.keys())
    graph.add_edges_from((parent, child) for parent, child in ends if parent != child)
    order = (n for generation in generations(graph) for n in sorted(generation))
    return [found[n] for n in dict.fromkeys((*order, *graph))]  # those on a cycle last


_KINDS: Mapping[str, Kind] = {"sample": "sample", "hidden": "hidden"}


def with_record(node: Node, record: JsonMapping) -> Node:
    """Return the node with the fields in its record; missing fields are unchanged."""
    kind: Kind = "sample" if record.get("resource_type") == "sample" or "sample_name" in record else "dataset"
    written = provenance(record)
    known_state = state(record)
    if node.state in STANDINGS and known_state != "incomplete":
        known_state = node.state
    if not known_state and KEY not in (record.get("scientific_metadata") or ()):
        known_state = node.state
    return replace(
        node,
        kind=kind,
        name=text(record.get(f"{kind}_name")) or node.name,
        # Texts of many records are in memory once.
        measurement=intern(text(record.get("measurement")) or node.measurement),
        data_type=intern(text(record.get("sample_type" if kind == "sample" else "data_type")) or node.data_type),
        project=intern(text(record.get("project_id")) or node.project),
        state=intern(known_state),
        step=intern(text(written.get("step")) or unknown_inputs(written) or node.step),
        swept=intern(swept_in(slot_keys(record)) or node.swept),
        record=record,
    )


def _api_node(entry: Any) -> Node:
    """Return a node of the graph endpoint, or of our export."""
    mfid = _required_id(entry, "id")
    texts: dict[str, Any] = {attribute: text(entry.get(key)) for key, attribute in NODE_TEXTS.items()}
    superseded_by = tuple(filter(None, map(text, entry.get("superseded_by") or ())))
    return Node(mfid, _KINDS.get(text(entry.get("entity_type")), "dataset"), superseded_by=superseded_by, **texts)


def _api_edge(entry: Any, nodes: Mapping[str, Node]) -> Edge:
    """Return an edge; an association of sample and dataset is directed from the sample to the dataset."""
    source, target = _required_id(entry, "source"), _required_id(entry, "target")
    ends = [nodes[end].kind if end in nodes else "hidden" for end in (source, target)]
    if ends == ["dataset", "sample"]:
        return Edge(target, source, MEASURED)
    return Edge(source, target, MEASURED if ends == ["sample", "dataset"] else text(entry.get("relationship_type")))


def _record_edges(node: Node, record: JsonMapping) -> Iterator[tuple[Edge, Node]]:
    """Yield the links of one record, each with the node at its far end."""
    links = record.get("links")
    if not isinstance(links, list | tuple):
        for mfid in used_mfids(record):
            yield Edge(mfid, node.id, DERIVED), Node(mfid, "hidden")
        return
    for link in links:
        mfid, relationship = _required_id(link, "unique_id"), text(link.get("relationship_type"))
        match link.get("direction"):
            case "source":
                yield Edge(mfid, node.id, relationship), _far_end(link)
            case "target":
                yield Edge(node.id, mfid, relationship), _far_end(link)
            case "undirected" if node.kind == "sample":
                yield Edge(node.id, mfid, MEASURED), _far_end(link)
            case "undirected":
                yield Edge(mfid, node.id, MEASURED), _far_end(link)
            case other:
                raise InputError(f"read the link to {mfid}: its direction is {other!r}, not source or target")


def _far_end(link: JsonMapping) -> Node:
    name = text(link.get("name"))
    kind: Kind = "sample" if link.get("resource_type") == "sample" else "dataset"
    return Node(text(link["unique_id"]), kind, name) if name else Node(text(link["unique_id"]), "hidden")


def _required_id(entry: object, key: str) -> str:
    mfid = text(entry.get(key)) if isinstance(entry, Mapping) else ""
    if not mfid:
        raise InputError(f"read a lineage graph: an entry has no {key!r}: {str(entry)[:80]}")
    return mfid
