"""Selection of what is drawn of a graph, and how: folded siblings, omitted results and links, colours."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import networkx

from crucible_lineage.lineage.graph import LineageGraph, generations
from crucible_lineage.lineage.model import CANDIDATE, CURRENT, DOUBTFUL, RAW, SUPERSEDED, Edge, Node
from crucible_lineage.lineage.records import (
    chosen_in_time,
    declared_step,
    equal_parents,
    parents_as_used,
    used_roles,
)
from crucible_lineage.refs import MEASURED
from crucible_lineage.text.amounts import amount

EQUAL = "equal bytes"  # note on the edge from a parent with the same bytes as the one used
MOST_BOXES = 40  # that a page shows at a readable size; beyond, fewer siblings are folded
FOLD_BEYOND = 4  # siblings that are still drawn individually: chosen by eye, a batch of four scans is readable

# M. Okabe and K. Ito, "Color Universal Design" (2008), without black, and vermilion, which marks a bad state.
_PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442")
OTHER_COLOUR = "#8A8A8A"
STATE_COLOURS: Mapping[str, str] = {  # of alarming states, the most alarming first
    "failed": "#D55E00",
    "missing": "#D55E00",
    "incomplete": "#D55E00",
    "stale": "#D55E00",
    "blocked": "#D55E00",
    DOUBTFUL: "#B34700",
    CANDIDATE: "#B34700",
}


@dataclass(frozen=True)
class DrawnItem:
    """One thing to draw: a node, or several siblings of one step."""

    nodes: tuple[Node, ...]

    @property
    def node(self) -> Node:
        """The node, or the first of the siblings."""
        return self.nodes[0]

    @property
    def is_group(self) -> bool:
        """Whether several nodes are folded into this item."""
        return len(self.nodes) > 1

    @property
    def state(self) -> str:
        """The state of all nodes, or the most alarming one: a group with one incomplete member is incomplete."""
        states = {node.state for node in self.nodes}
        return next((state for state in STATE_COLOURS if state in states), self.node.state)

    @property
    def state_text(self) -> str:
        """The state in words, for a group with the number of nodes; empty if complete or unknown."""
        state = self.state
        if state in ("", "complete", CURRENT, RAW):
            return ""
        return f"{sum(node.state == state for node in self.nodes)} {state}" if self.is_group else state


@dataclass(frozen=True)
class View:
    """Items and edges (with relationships) by number; `notes` are labels, `left_out` counts superseded results."""

    items: tuple[DrawnItem, ...]
    edges: dict[tuple[int, int], str]
    number_of: dict[str, int]
    left_out: int = 0
    notes: dict[tuple[int, int], str] = field(default_factory=dict)


def view(
    graph: LineageGraph, focus: str | None = None, *, fold_beyond: int | None = FOLD_BEYOND, superseded: bool = False
) -> View:
    """Select the items and edges to draw. More than `fold_beyond` siblings become one item; None folds nothing.

    Fewer do if there would be more than MOST_BOXES items.

    Siblings have the same parents after folding, the same roles in their children, and the same step of one pipeline,
    or the same kind of data if no step made them. The `focus`, and its ancestors if few, stay single.
    Superseded results are omitted, unless requested or needed by a drawn one.
    """
    omitted = frozenset() if superseded else dispensable(graph, focus)
    if omitted:
        graph = graph.subgraph(graph.nodes.keys() - omitted)
    edges = [edge for edge in graph.edges.values() if _is_drawn(graph, edge)]
    groups = {mfid: mfid for mfid in graph.nodes}
    for most in range(fold_beyond or 0, 0, -1):
        groups = _folded(graph, edges, most, _with_parents(graph, focus, most))
        if len(set(groups.values())) <= MOST_BOXES:
            break
    members: dict[str, list[Node]] = {}
    for mfid, node in graph.nodes.items():
        members.setdefault(groups[mfid], []).append(node)
    number_of_group = {group: number for number, group in enumerate(members)}
    number_of = {mfid: number_of_group[groups[mfid]] for mfid in graph.nodes}
    drawn: dict[tuple[int, int], str] = {}
    notes: dict[tuple[int, int], str] = {}
    for edge in edges:
        ends = number_of[edge.source], number_of[edge.target]
        drawn[ends] = edge.relationship if drawn.get(ends, edge.relationship) == edge.relationship else ""
        note = note_of(graph, edge)
        notes[ends] = note if notes.get(ends, note) == note else ""
    items = tuple(DrawnItem(tuple(nodes)) for nodes in members.values())
    return View(items, drawn, number_of, len(omitted), {ends: note for ends, note in notes.items() if note})


def _is_drawn(graph: LineageGraph, edge: Edge) -> bool:
    """Return False for a sample of a dataset whose parent was measured from the same sample."""
    others = (parent for parent in graph.parents(edge.target) if parent != edge.target)
    return edge.relationship != MEASURED or all((edge.source, parent) not in graph.edges for parent in others)


def _folded(graph: LineageGraph, edges: list[Edge], fold_beyond: int, single: set[str]) -> dict[str, str]:
    """Return the group of each node: its own id, or that of its first sibling."""
    parents: defaultdict[str, list[str]] = defaultdict(list)
    for edge in edges:
        parents[edge.target].append(edge.source)
    roles = roles_of(graph)
    group_of: dict[str, str] = {}
    found = generations(graph.nx)
    sorted_ids = {mfid for generation in found for mfid in generation}
    for generation in [*found, [mfid for mfid in graph.nodes if mfid not in sorted_ids]]:
        siblings: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
        for mfid in generation:
            node = graph.nodes[mfid]
            groups_above = frozenset(group_of.get(parent, parent) for parent in parents[mfid])
            kind = node.step or (node.measurement, node.data_type), declared_step(node.record)
            key: tuple[object, ...] = (groups_above, node.kind, kind, node.state == SUPERSEDED)
            siblings[(*key, mfid) if mfid in single or mfid not in sorted_ids else key].append(mfid)
        for members in siblings.values():
            by_role: defaultdict[frozenset[str], list[str]] = defaultdict(list)
            for mfid in members:
                by_role[roles.get(mfid, frozenset())].append(mfid)
            # Those without children stay with the others, if these all have the same roles.
            for same in [members] if len(by_role.keys() - {frozenset()}) <= 1 else by_role.values():
                group_of.update((mfid, same[0] if len(same) > fold_beyond else mfid) for mfid in same)
    return group_of


def note_of(graph: LineageGraph, edge: Edge) -> str:
    """Return the label of an edge: that bytes are equal to those used, or a distance in time; empty for most."""
    record = graph.nodes[edge.target].record
    return EQUAL if edge.source in equal_parents(record) else edge.note or chosen_in_time(record, edge.source)


def roles_of(graph: LineageGraph) -> dict[str, frozenset[str]]:
    """Return the roles in which each node was used, by its children's records. Numbered roles count as one."""
    roles_by_id: defaultdict[str, set[str]] = defaultdict(set)
    for node in graph.nodes.values():
        equal = equal_parents(node.record)
        for role, mfids in used_roles(node.record).items():
            for mfid in (*mfids, *(other for other, used in equal.items() if used in mfids)):
                roles_by_id[mfid].add(role.rstrip("0123456789"))
    return {mfid: frozenset(roles) for mfid, roles in roles_by_id.items()}


def _with_parents(graph: LineageGraph, focus: str | None, most: int) -> set[str]:
    """Return the node to keep single with its ancestors, up to nodes with more parents than `most`."""
    few = networkx.subgraph_view(graph.nx, filter_edge=lambda _, child: len(graph.nx.pred[child]) <= most)
    return {focus, *networkx.ancestors(few, focus)} if focus is not None else set()


def dispensable(graph: LineageGraph, focus: str | None) -> frozenset[str]:
    """Return the superseded results without a current or requested descendant.

    A parent replaced by one with equal bytes is not needed. A superseded `focus` is shown with all its ancestors
    and descendants.
    """
    superseded = {mfid for mfid, node in graph.nodes.items() if node.state == SUPERSEDED}
    if not superseded:
        return frozenset()
    upwards = networkx.DiGraph((child, parent) for child in graph.nodes for parent in _needed_parents(graph, child))
    upwards.add_edges_from(("", mfid) for mfid in graph.nodes.keys() - superseded)
    needed = networkx.descendants(upwards, "") if "" in upwards else set[str]()
    if focus in superseded:
        needed |= graph.around(focus).nodes.keys()
    return frozenset(superseded - needed)


def left_out_note(count: int) -> str:
    """Return the note about omitted results; empty if there are none."""
    return f"{amount(count, 'superseded result')} not shown" if count else ""


def _needed_parents(graph: LineageGraph, child: str) -> Iterable[str]:
    """Return the parents without superseded ones that another parent with equal bytes, not superseded, replaces."""
    record, parents = graph.nodes[child].record, graph.parents(child)
    if not equal_parents(record):
        return parents
    equal = ({used, *others} for used, others in parents_as_used(record, parents).items())
    groups = [(mfids, {mfid for mfid in mfids if graph.nodes[mfid].state == SUPERSEDED}) for mfids in equal]
    return set(parents).difference(*(superseded for mfids, superseded in groups if superseded < mfids))


def kind_of_data(node: Node) -> str:
    """Return the kind of data that decides a node's colour: measurement, else data type; empty if not a dataset."""
    return (node.measurement or node.data_type) if node.kind == "dataset" else ""


def colours(nodes: Iterable[Node]) -> dict[str, str]:
    """Return the colour of each kind of data: the most frequent first, those beyond the palette grey."""
    counts = Counter(filter(None, map(kind_of_data, nodes)))
    ranked = sorted(counts, key=lambda kind: (-counts[kind], kind))
    return {kind: _PALETTE[rank] if rank < len(_PALETTE) else OTHER_COLOUR for rank, kind in enumerate(ranked)}
