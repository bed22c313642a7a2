"""What of a graph is drawn, and how: siblings of a step folded, superseded results and idle links left out, colours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from crucible_lineage.amounts import amount
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import CANDIDATE, CURRENT, DOUBTFUL, MEASURED, RAW, SUPERSEDED, Edge, Node
from crucible_lineage.lineage.records import chosen_in_time, equal_parents, parents_as_used, used_roles

EQUAL = "equal bytes"  # beside the edge from a parent that stands for the one used
FOLD_BEYOND = 4  # siblings that are still drawn one by one: chosen by eye, a batch of four scans stays readable


# M. Okabe and K. Ito, "Color Universal Design" (2008), without black and the vermilion that marks a bad state.
_PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442")
OTHER_COLOUR = "#8A8A8A"
STATE_COLOURS: Mapping[str, str] = {
    "incomplete": "#D55E00",
    "failed": "#D55E00",
    "missing": "#D55E00",
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
        """True if several nodes are folded into this item."""
        return len(self.nodes) > 1

    @property
    def state(self) -> str:
        """The state of all nodes, or the most alarming one: a group with one incomplete member is incomplete."""
        states = {node.shown_state for node in self.nodes}
        alarming = ("failed", "missing", "incomplete", "stale", DOUBTFUL, CANDIDATE)
        return next((state for state in alarming if state in states), self.node.state)

    @property
    def remade_said(self) -> str:
        """Say how often a dataset was reproduced elsewhere, or how many of a group were; empty if none."""
        if self.is_group:
            count = sum(node.remade > 0 for node in self.nodes)
            return f"{count} of {len(self.nodes)} remade" if count else ""
        return f"remade {amount(self.node.remade, 'time')}" if self.node.remade else ""

    @property
    def state_said(self) -> str:
        """The state in words, of a group with how many are in it; empty for what is complete, or of no known state."""
        state = self.state
        if state in ("", "complete", CURRENT, RAW):
            return ""
        return f"{sum(node.shown_state == state for node in self.nodes)} {state}" if self.is_group else state


@dataclass(frozen=True)
class View:
    """Items by number, in the graph's order, and the relationship of each edge by the numbers of its ends.

    `notes` are what is said beside edges; `left_out` superseded results are not among the items.
    """

    items: tuple[DrawnItem, ...]
    edges: dict[tuple[int, int], str]
    number_of: dict[str, int]
    left_out: int = 0
    notes: dict[tuple[int, int], str] = field(default_factory=dict)


def view(
    graph: LineageGraph,
    *,
    fold_beyond: int | None = FOLD_BEYOND,
    keep: Collection[str] = (),
    superseded: bool = False,
) -> View:
    """The items and edges to draw. More than `fold_beyond` siblings are one item, None folds nothing.

    Siblings have the same parents, after folding, the same roles in what was made of them, and the same step, or the
    same kind of data where no step made them. The nodes in `keep`, and those few that they come from, stay single. What
    is superseded is left out, unless it is asked for, or something that is drawn comes from it.
    """
    gone = frozenset() if superseded else dispensable(graph, keep)
    if gone:
        graph = graph.subgraph(graph.nodes.keys() - gone)
    edges = list(_telling(graph))
    if fold_beyond is None:
        groups = {mfid: mfid for mfid in graph.nodes}
    else:
        groups = _folded(graph, edges, fold_beyond, _with_parents(graph, keep, fold_beyond))
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
    said = {ends: note for ends, note in notes.items() if note}
    return View(tuple(DrawnItem(tuple(nodes)) for nodes in members.values()), drawn, number_of, len(gone), said)


def _telling(graph: LineageGraph) -> Iterator[Edge]:
    """The edges but for those from a sample to a dataset whose parent was measured from the same sample."""
    for (source, target), edge in graph.edges.items():
        inherited = edge.relationship == MEASURED and any(
            parent != target and (source, parent) in graph.edges for parent in graph.parents(target)
        )
        if not inherited:
            yield edge


def _folded(graph: LineageGraph, edges: list[Edge], fold_beyond: int, single: set[str]) -> dict[str, str]:
    """The id of the group that each node is in: its own, or that of its first sibling."""
    parents: defaultdict[str, list[str]] = defaultdict(list)
    for edge in edges:
        parents[edge.target].append(edge.source)
    roles = roles_of(graph)
    group_of: dict[str, str] = {}
    generations = graph.generations()
    placed = {mfid for generation in generations for mfid in generation}
    for generation in [*generations, [mfid for mfid in graph.nodes if mfid not in placed]]:
        siblings: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
        for mfid in generation:
            node = graph.nodes[mfid]
            above = frozenset(group_of.get(parent, parent) for parent in parents[mfid])
            kind = node.step or (node.measurement, node.data_type)
            key: tuple[object, ...] = (above, node.kind, kind, node.state == SUPERSEDED)
            siblings[(*key, mfid) if mfid in single or mfid not in placed else key].append(mfid)
        for members in _by_role(siblings.values(), roles):
            folds = len(members) > fold_beyond
            group_of.update((mfid, members[0] if folds else mfid) for mfid in members)
    return group_of


def _by_role(siblings: Iterable[list[str]], roles: Mapping[str, frozenset[str]]) -> Iterator[list[str]]:
    """Part siblings by their roles. Those that nothing was made of stay with the others, if these have one role."""
    for members in siblings:
        parted: defaultdict[frozenset[str], list[str]] = defaultdict(list)
        for mfid in members:
            parted[roles.get(mfid, frozenset())].append(mfid)
        yield from [members] if len(parted.keys() - {frozenset()}) <= 1 else parted.values()


def note_of(graph: LineageGraph, edge: Edge) -> str:
    """Return what is said beside an edge: that bytes are equal to those used, or how far in time; empty for most."""
    record = graph.nodes[edge.target].record
    return EQUAL if edge.source in equal_parents(record) else edge.note or chosen_in_time(record, edge.source)


def roles_of(graph: LineageGraph) -> dict[str, frozenset[str]]:
    """Return in which roles each node was used, by the records of what was made of it. Numbered roles are one."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for node in graph.nodes.values():
        equal = equal_parents(node.record)
        for role, mfids in used_roles(node.record).items():
            for mfid in (*mfids, *(now for now, was in equal.items() if was in mfids)):
                found[mfid].add(role.rstrip("0123456789"))
    return {mfid: frozenset(roles) for mfid, roles in found.items()}


def _with_parents(graph: LineageGraph, keep: Collection[str], most: int) -> set[str]:
    """The nodes to keep single and what they come from, as far as no node on the way has more parents than `most`."""
    single: set[str] = set()
    waiting = [mfid for mfid in keep if mfid in graph]
    while waiting:
        mfid = waiting.pop()
        if mfid not in single:
            single.add(mfid)
            parents = graph.parents(mfid)
            waiting.extend(parents if len(parents) <= most else ())
    return single


def dispensable(graph: LineageGraph, asked_for: Iterable[str] = ()) -> frozenset[str]:
    """Return the superseded results from which nothing comes that holds, or is asked for.

    A parent whose place another one with equal bytes has taken is not needed. A superseded one that is asked for is
    shown with all that it comes from and all that was made of it.
    """
    superseded = {mfid for mfid, node in graph.nodes.items() if node.state == SUPERSEDED}
    needed = _with_ancestors(graph, graph.nodes.keys() - superseded)
    for mfid in superseded.intersection(asked_for):
        needed |= {mfid, *graph.ancestors(mfid), *graph.descendants(mfid)}
    return frozenset(superseded - needed)


def left_out_note(count: int) -> str:
    """Return the note on those that a picture leaves out; empty if there are none."""
    return f"{count} superseded {'result' if count == 1 else 'results'} not shown" if count else ""


def _with_ancestors(graph: LineageGraph, mfids: Iterable[str]) -> set[str]:
    found = set(mfids)
    waiting = list(found)
    while waiting:
        child = waiting.pop()
        stood_for = _stood_for(graph, child)
        for parent in graph.parents(child):
            if parent not in found and parent not in stood_for:
                found.add(parent)
                waiting.append(parent)
    return found


def _stood_for(graph: LineageGraph, child: str) -> set[str]:
    """Return the superseded parents for which another parent stands that is not superseded."""
    record = graph.nodes[child].record
    if not equal_parents(record):
        return set()
    alike = ({was, *others} for was, others in parents_as_used(record, graph.parents(child)).items())
    old = [(mfids, {mfid for mfid in mfids if graph.nodes[mfid].state == SUPERSEDED}) for mfids in alike]
    return {mfid for mfids, superseded in old if superseded < mfids for mfid in superseded}


def kind_of_data(node: Node) -> str:
    """Return the subject of a node's colour: a dataset's measurement, else its data type; empty for other kinds."""
    return (node.measurement or node.data_type) if node.kind == "dataset" else ""


def colours(nodes: Iterable[Node]) -> dict[str, str]:
    """The colour of each kind of data among the nodes: the most frequent first, those beyond the palette all grey."""
    counts: dict[str, int] = {}
    for node in nodes:
        if kind := kind_of_data(node):
            counts[kind] = counts.get(kind, 0) + 1
    ranked = sorted(counts, key=lambda kind: (-counts[kind], kind))
    return {kind: _PALETTE[rank] if rank < len(_PALETTE) else OTHER_COLOUR for rank, kind in enumerate(ranked)}
