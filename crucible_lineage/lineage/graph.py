"""LineageGraph: who descends from whom, as an immutable graph with edges from parent to child."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from crucible_lineage.collector import collector_paused
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.labels import short_id
from crucible_lineage.lineage.model import PART, Edge, Node
from crucible_lineage.lineage.records import run_ids
from crucible_lineage.lineage.sources import (
    described,
    nodes_and_edges_of_api,
    nodes_and_edges_of_records,
)
from crucible_lineage.statements import Doubt

if TYPE_CHECKING:
    import networkx

__all__ = ["Direction", "LineageGraph", "in_turns"]

Direction = Literal["ancestors", "descendants", "both"]
TURN = 100  # nodes whose records are read in one go
Neighbours = Mapping[str, tuple[str, ...]]


class LineageGraph:
    """Datasets and samples with their links, parent -> child.

    `nodes` is by id and `edges` by (source, target), both in the order they came. An id that only an edge names is a
    hidden node: it exists, but the reader may not see it. Every method that changes something returns a new graph.
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
            self._parents, self._children = _neighbours(by_id, by_ends)

    @classmethod
    def from_api(cls, payload: Mapping[str, object]) -> LineageGraph:
        """The graph in an answer of Crucible's graph endpoints (node-link JSON)."""
        with collector_paused():
            return cls(*nodes_and_edges_of_api(payload))

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, object]]) -> LineageGraph:
        """The graph that records show by their links, or by their provenance where links were not fetched."""
        with collector_paused():
            return cls(*nodes_and_edges_of_records(records))

    def with_records(self, records: Mapping[str, Mapping[str, object]]) -> LineageGraph:
        """The same links, with each node described by its record; records of unknown ids are left out."""
        nodes = (described(node, records[node.id]) if node.id in records else node for node in self.nodes.values())
        return LineageGraph(nodes, self.edges.values())

    def with_states(self, states: Mapping[str, tuple[str, tuple[str, ...]]]) -> LineageGraph:
        """The same links, with {id: (state, what holds in its stead)} of datasets; others stay as they are."""
        nodes = (
            replace(node, state=states[node.id][0], superseded_by=states[node.id][1]) if node.id in states else node
            for node in self.nodes.values()
        )
        return LineageGraph(nodes, self.edges.values())

    def with_doubts(self, doubts: Mapping[str, Doubt]) -> LineageGraph:
        """The same links, with why datasets are doubtful; the others are not."""
        if not doubts:
            return self
        nodes = (replace(node, doubt=doubts[node.id]) if node.id in doubts else node for node in self.nodes.values())
        return LineageGraph(nodes, self.edges.values())

    def __len__(self) -> int:
        return len(self.nodes)

    def __contains__(self, mfid: object) -> bool:
        return mfid in self.nodes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LineageGraph) and self.nodes == other.nodes and self.edges == other.edges

    __hash__ = None  # type: ignore[assignment]  # equal by content

    def __repr__(self) -> str:
        return f"<LineageGraph: {len(self.nodes)} nodes, {len(self.edges)} edges>"

    @cached_property
    def nx(self) -> networkx.DiGraph[str]:
        """The graph as a frozen networkx DiGraph; nodes carry their Node as `node`, edges their `relationship`."""
        import networkx  # 0.2 s, which those who only walk the graph need not pay

        with collector_paused():
            graph: networkx.DiGraph[str] = networkx.DiGraph()
            graph.add_nodes_from((node.id, {"node": node}) for node in self.nodes.values())
            graph.add_edges_from((e.source, e.target, {"relationship": e.relationship}) for e in self.edges.values())
            networkx.freeze(graph)
            return graph

    def node(self, mfid: str) -> Node:
        """The node of that id. InputError if the graph has none."""
        try:
            return self.nodes[mfid]
        except KeyError:
            raise InputError(f"look up {mfid} in a lineage graph of {len(self)} nodes: it is not among them") from None

    def label(self, mfid: str) -> str:
        """A node in a sentence: its name and short id, and nothing of what the reader may not see."""
        node = self.nodes.get(mfid)
        if node is None or node.kind == "hidden":
            return "a dataset that is not visible to you"
        return f"{node.name} ({short_id(mfid)})" if node.name and node.name != mfid else short_id(mfid)

    def parents(self, mfid: str) -> tuple[str, ...]:
        """The ids that have an edge to `mfid`. InputError if the graph has no `mfid`, as in all that asks about one."""
        return self._parents[self.node(mfid).id]

    def children(self, mfid: str) -> tuple[str, ...]:
        """The ids that have an edge from `mfid`."""
        return self._children[self.node(mfid).id]

    def ancestors(self, mfid: str, depth: int | None = None) -> frozenset[str]:
        """All that `mfid` comes from, within `depth` edges if given; on a cycle `mfid` itself is not in it."""
        return frozenset(_reach(self.node(mfid).id, self._parents, depth))

    def descendants(self, mfid: str, depth: int | None = None) -> frozenset[str]:
        """All that comes from `mfid`, within `depth` edges if given; on a cycle `mfid` itself is not in it."""
        return frozenset(_reach(self.node(mfid).id, self._children, depth))

    def roots(self) -> tuple[str, ...]:
        """The nodes without parents: samples and raw datasets."""
        return tuple(mfid for mfid, parents in self._parents.items() if not parents)

    def generations(self) -> list[list[str]]:
        """The ids by topological generation, roots first; what lies on a cycle or behind one is left out."""
        waiting = {mfid: len(parents) for mfid, parents in self._parents.items()}
        generation, found = [mfid for mfid, count in waiting.items() if not count], []
        while generation:
            found.append(generation)
            following: list[str] = []
            for mfid in generation:
                for child in self._children[mfid]:
                    waiting[child] -= 1
                    if not waiting[child]:
                        following.append(child)
            generation = following
        return found

    def subgraph(self, mfids: Collection[str]) -> LineageGraph:
        """The graph of those nodes and the edges among them."""
        wanted = frozenset(mfids)
        nodes = [node for mfid, node in self.nodes.items() if mfid in wanted]
        inner = (self.edges[node.id, c] for node in nodes for c in self._children[node.id] if c in wanted)
        return LineageGraph(nodes, inner)

    def derivations(self) -> LineageGraph:
        """The same nodes without the links that only say what is part of what: a collection, or a run."""
        return LineageGraph(self.nodes.values(), (e for e in self.edges.values() if e.relationship != PART))

    def around(self, focus: str, depth: int | None = None, direction: Direction = "both") -> LineageGraph:
        """The part that `focus` comes from, the part that comes from it, or both, within `depth` edges."""
        wanted = {focus}
        if direction != "descendants":
            wanted |= self.ancestors(focus, depth)
        if direction != "ancestors":
            wanted |= self.descendants(focus, depth)
        return self.subgraph(wanted)

    def of_measurement(self, measurement: str) -> LineageGraph:
        """The datasets of that measurement and the links among them."""
        return self.subgraph([mfid for mfid, node in self.nodes.items() if node.measurement == measurement])

    def of_run(self, run: str) -> LineageGraph:
        """The datasets that the run of that id made, their parents, and the links among them."""
        made = {mfid for mfid, node in self.nodes.items() if run in run_ids(node.record)}
        return self.subgraph(made.union(*(self._parents[mfid] for mfid in made)))


def _neighbours(nodes: Iterable[str], edges: Iterable[tuple[str, str]]) -> tuple[Neighbours, Neighbours]:
    parents: dict[str, list[str]] = {mfid: [] for mfid in nodes}
    children: dict[str, list[str]] = {mfid: [] for mfid in parents}
    for source, target in edges:
        parents[target].append(source)
        children[source].append(target)
    return (
        {mfid: tuple(found) for mfid, found in parents.items()},
        {mfid: tuple(found) for mfid, found in children.items()},
    )


def _reach(start: str, neighbours: Neighbours, depth: int | None) -> set[str]:
    """Return what can be reached from `start` within `depth` edges, `start` itself left out."""
    seen, frontier, distance = {start}, [start], 0
    while frontier and (depth is None or distance < depth):
        distance += 1
        following = []
        for mfid in frontier:
            for other in neighbours[mfid]:
                if other not in seen:
                    seen.add(other)
                    following.append(other)
        frontier = following
    seen.discard(start)
    return seen


def in_turns(graph: LineageGraph) -> Iterator[Node | None]:
    """The nodes, and None after every TURN of them: where who reads all records lets the next one read the same."""
    for count, node in enumerate(graph.nodes.values(), 1):
        yield node
        if count % TURN == 0:
            yield None
