"""A lineage as text: node-link JSON, GraphML, DOT, Mermaid charts, and a tree for the terminal, raw data on top."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import networkx

from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import detail, group_title, plain, short_id, title
from crucible_lineage.lineage.model import DOUBTFUL, NODE_TEXTS, SUPERSEDED, Edge, Node
from crucible_lineage.lineage.view import DrawnItem, left_out_note, view
from crucible_lineage.refs import DERIVED, relation_text
from crucible_lineage.text.masking import masked_text

# Mermaid draws nothing beyond 500 edges or 50,000 characters; both limits are its defaults.
_MERMAID_EDGES = 499
_MERMAID_CHARACTERS = 45_000
_MERMAID_STYLES = {
    "superseded": "  classDef superseded stroke-dasharray:2 3,fill:#F3F3F3,color:#5A5A5A",
    "doubtful": "  classDef doubtful stroke-dasharray:6 3,fill:#F6DFD0,stroke:#B34700",
}


def public_ids(graph: LineageGraph) -> Mapping[str, str]:
    """Return the public id of each node: its own, or `hidden-N` for a node hidden from the reader."""
    hidden = (mfid for mfid in graph.nodes if mfid in graph.hidden)
    numbered = {mfid: f"hidden-{number}" for number, mfid in enumerate(hidden, 1)}
    return {mfid: numbered.get(mfid, mfid) for mfid in graph.nodes}


def redactor(graph: LineageGraph) -> Callable[[Any], Any]:
    """Return a function that makes a value JSON, without secrets, and with the public ids of hidden nodes."""
    names = public_ids(graph)
    pattern = re.compile("|".join(map(re.escape, graph.hidden))) if graph.hidden else None

    def text(value: str) -> str:
        return masked_text(pattern.sub(lambda match: names[match.group()], value) if pattern else value)

    def redact(value: object) -> Any:
        if isinstance(value, str):
            return text(value)
        if isinstance(value, Mapping):
            return {text(str(key)): redact(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [redact(inner) for inner in value]
        is_json = value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        return value if is_json else text(str(value))

    return redact


def to_node_link(graph: LineageGraph) -> JsonObject:
    """Return the node-link object for `networkx.node_link_graph(..., edges="edges")` and `LineageGraph.from_api`."""
    found: JsonObject = networkx.node_link_data(_public(graph), edges="edges")
    return found


def render_graphml(graph: LineageGraph) -> str:
    """Return GraphML: the attributes of node-link JSON as texts and numbers, on one line each."""
    return "\n".join([*networkx.generate_graphml(_flat(graph), named_key_ids=True), ""])


def render_dot(graph: LineageGraph) -> str:
    """Return DOT for Graphviz, with the attributes of GraphML. Raises ImportError without `pydot`."""
    shown = _flat(graph)
    for entry in (*shown.nodes.values(), *(entry for *_, entry in shown.edges.data())):
        entry |= {
            key: json.dumps(value, ensure_ascii=False) for key, value in entry.items()
        }  # pydot escapes too little
    for mfid, entry in shown.nodes.items():
        entry["label"] = entry.pop("name", mfid)
    text: str = networkx.nx_pydot.to_pydot(shown).to_string()
    return text


def _flat(graph: LineageGraph) -> networkx.DiGraph[str]:
    """Return the public graph with texts on one line and numbers as its only attributes."""
    shown = _public(graph)
    for entry in (*shown.nodes.values(), *(entry for *_, entry in shown.edges.data())):
        entry |= {"superseded_by": " ".join(entry["superseded_by"])} if "superseded_by" in entry else {}
        entry.pop("doubtful", None)
        entry |= {key: plain(value) for key, value in entry.items() if isinstance(value, str)}
    return shown


def _public(graph: LineageGraph) -> networkx.DiGraph[str]:
    """Return the graph for other programs: under public ids, with the fields of nodes and edges as attributes."""
    names = public_ids(graph)
    shown: networkx.DiGraph[str] = networkx.DiGraph()
    shown.add_nodes_from((names[node.id], _node_entry(node)) for node in graph.nodes.values())
    for edge in shown_edges(graph, graph.edges.values()):
        shown.add_edge(edge.source, edge.target, relationship_type=edge.relationship)
    return shown


def shown_edges(graph: LineageGraph, edges: Iterable[Edge]) -> list[Edge]:
    """Return the edges with the public ids of their ends."""
    names = public_ids(graph)
    return [replace(edge, source=names[edge.source], target=names[edge.target]) for edge in edges]


def render_mermaid(graph: LineageGraph, focus: str | None = None, *, superseded: bool = False) -> list[str]:
    """Return Mermaid flowcharts: one if the graph fits, else several. Superseded results are only counted."""
    drawn = view(graph, focus, superseded=superseded)
    boxes = [_mermaid_box(number, item) for number, item in enumerate(drawn.items)]
    linked = {number for ends in drawn.edges for number in ends}
    lines: list[tuple[tuple[int, ...], str]] = [((number,), "") for number in range(len(boxes)) if number not in linked]
    for ends, relationship in sorted(drawn.edges.items()):
        read = relation_text(relationship)
        arrow = f'-. "{_mermaid_escaped(read)}" .->' if read else "-->"
        lines.append((ends, f"  n{ends[0]} {arrow} n{ends[1]}"))
    if drawn.left_out:
        boxes.append(f'  n{len(boxes)}["{left_out_note(drawn.left_out)}"]:::superseded')
        lines.append(((len(boxes) - 1,), ""))
    return list(_charts(boxes, lines))


def _charts(boxes: Sequence[str], lines: Iterable[tuple[tuple[int, ...], str]]) -> Iterator[str]:
    """Yield charts with these edges, each with the boxes at its ends; a new one when the last is full."""
    shown, edges, characters = set[int](), list[str](), 0
    for numbers, edge in lines:
        needed = len(edge) + 1 + sum(len(boxes[number]) + 1 for number in numbers)
        if len(edges) >= _MERMAID_EDGES or characters + needed >= _MERMAID_CHARACTERS:
            yield _chart(boxes, shown, edges)
            shown, edges, characters = set(), [], 0
        characters += len(edge) + 1 + sum(len(boxes[number]) + 1 for number in set(numbers) - shown)
        shown.update(numbers)
        edges += [edge] if edge else []
    yield _chart(boxes, shown, edges)


def _chart(boxes: Sequence[str], shown: Iterable[int], edges: Iterable[str]) -> str:
    drawn = [boxes[number] for number in sorted(shown)]
    styles = [style for name, style in _MERMAID_STYLES.items() if any(box.endswith(f":::{name}") for box in drawn)]
    return "\n".join(["flowchart LR", *drawn, *styles, *edges]) + "\n"


def _node_entry(node: Node) -> JsonObject:
    if node.kind == "hidden":
        return {"entity_type": "hidden"}
    entry = {
        "entity_type": node.kind,
        **{key: getattr(node, attribute) for key, attribute in NODE_TEXTS.items()},
        "superseded_by": list(node.superseded_by),
        "doubtful": node.doubt.to_json() if node.doubt else None,
    }
    return {key: value for key, value in entry.items() if value}


def _mermaid_box(number: int, item: DrawnItem) -> str:
    node = item.node
    opening, closing = ("([", "])") if node.kind == "sample" else ("[", "]")
    small = "" if node.kind == "hidden" or node.name == node.id else short_id(node.id)
    own = [group_title(item.nodes)] if item.is_group else [title(node), detail(node), plain(small)]
    lines = filter(None, [*own, plain(item.state_text.upper())])
    label = "<br/>".join(map(_mermaid_escaped, lines))
    style = {SUPERSEDED: ":::superseded", DOUBTFUL: ":::doubtful"}.get(item.state, "")
    return f'  n{number}{opening}"{label}"{closing}{style}'


def _mermaid_escaped(text: str) -> str:
    """Replace every symbol that Mermaid or HTML might interpret by a numeric entity."""
    return re.sub(r"[^\w .,:()·×…-]", lambda match: f"#{ord(match.group())};", plain(text))


_TOP = -1  # above all roots
_BRANCHES = ("├── ", "└── ", "│   ", "    ")


def render_tree(
    graph: LineageGraph, focus: str | None = None, *, fold_beyond: int | None = None, superseded: bool = False
) -> Iterator[str]:
    """Yield the tree, one line per node: id, name, kind of data and step, state.

    With `focus` it shows that dataset's ancestors and descendants, else the whole graph. A node with several parents is
    below the first of them and marked `(see above)` below the others. Superseded results are only counted, unless
    requested or needed by a shown one.
    """
    drawn = view(graph.around(focus), focus, fold_beyond=fold_beyond, superseded=superseded)
    items: networkx.DiGraph[int] = networkx.DiGraph()
    items.add_nodes_from(range(_TOP, len(drawn.items)))
    items.add_edges_from(drawn.edges)
    groups = networkx.condensation(items)  # several items of a group are on a cycle
    sources = (min(groups.nodes[group]["members"]) for group, count in groups.in_degree() if not count)
    roots = sorted(set(sources) - {_TOP}, key=lambda number: (len(items.pred[number]) > 0, number))
    items.add_edges_from((_TOP, root) for root in roots)
    last_child = dict([*items.edges])
    tee, corner, bar, blank = _BRANCHES
    below = {_TOP: "", **dict.fromkeys(roots, "")}  # the beginning of the lines of an item's children
    focused = drawn.number_of[focus] if focus else None
    for parent, number, kind in networkx.dfs_labeled_edges(items, _TOP):
        if kind == "reverse" or number == _TOP:
            continue
        branch, relationship, note = "", DERIVED, ""
        if parent != _TOP:
            is_last = number == last_child[parent]
            branch = below[parent] + (corner if is_last else tee)
            below.setdefault(number, below[parent] + (blank if is_last else bar))
            relationship, note = drawn.edges[parent, number], drawn.notes.get((parent, number), "")
        link = plain(relation_text(relationship))
        marks = [f"<{link}>" if link else "", f"({plain(note)})" if note else ""]
        marks += ["(see above)" if kind == "nontree" else "", "<--" if number == focused else ""]
        yield (branch + _described(drawn.items[number], marks, number == focused)).rstrip()
    if drawn.left_out:
        yield f"[{left_out_note(drawn.left_out)}]"


def _described(item: DrawnItem, marks: Iterable[str], is_focus: bool) -> str:
    """Return an item's id, name, kind of data and step, state, and the marks of its position."""
    node = item.node
    if item.is_group:
        mfid, name, more = "", group_title(item.nodes), plain(node.measurement) if node.step else ""
    else:
        mfid = "" if node.kind == "hidden" or node.name == node.id else plain(node.id)
        name, more = title(node) if node.name or not mfid else "", detail(node)
    by = node.superseded_by if is_focus and not item.is_group else ()
    state = plain(f"superseded by {', '.join(by)}" if by else item.state_text)
    return " ".join(filter(None, (mfid, name, more, f"[{state}]" if state else "", *marks)))
