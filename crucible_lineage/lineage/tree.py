"""A lineage as a tree for the terminal, raw data on top."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import networkx

from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import detail, group_title, plain, title
from crucible_lineage.lineage.model import DERIVED
from crucible_lineage.lineage.view import DrawnItem, left_out_note, view

if TYPE_CHECKING:
    from rich.text import Text

_TOP = -1  # above all roots
_BRANCHES = ("├── ", "└── ", "│   ", "    ")
_STATE_STYLES = {
    **{"complete": "green", "current": "green", "fresh": "green", "superseded": "dim"},
    **{"missing": "yellow", "stale": "yellow", "doubtful": "yellow"},
    **{"incomplete": "bold red", "failed": "bold red", "blocked": "bold red"},
}


Part = tuple[str, str]  # of a line: text and style


def render_tree(
    graph: LineageGraph,
    focus: str | None = None,
    *,
    fold_beyond: int | None = None,
    superseded: bool = False,
) -> str:
    """Return the tree as text, one line per node: id, name, kind of data and step, state.

    With `focus` it shows that dataset's ancestors and descendants, else the whole graph. A node with several parents is
    below the first of them and marked `(see above)` below the others. Superseded results are only counted, unless
    requested or needed by a shown one.
    """
    lines = _lines(graph, focus, fold_beyond, superseded)
    return "\n".join((branch + " ".join(text for text, _ in parts)).rstrip() for branch, parts in lines)


def render_tree_rich(
    graph: LineageGraph,
    focus: str | None = None,
    *,
    fold_beyond: int | None = None,
    superseded: bool = False,
) -> Text:
    """Return the same tree in colour, for a rich console. Names are never read as markup."""
    from rich.text import Text  # imported only for colours

    output = Text()
    for branch, parts in _lines(graph, focus, fold_beyond, superseded):
        output.append_text(Text("\n" if output else ""))
        output.append(branch, style="dim")
        output.append_text(Text(" ").join(Text(text, style=style) for text, style in parts))
    return output


def _lines(
    graph: LineageGraph, focus: str | None, fold_beyond: int | None, superseded: bool
) -> Iterator[tuple[str, list[Part]]]:
    """Yield each line: its branch, and its parts."""
    selected = graph if focus is None else graph.around(focus)
    drawn = view(selected, fold_beyond=fold_beyond, keep=[focus] if focus else [], superseded=superseded)
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
        item = drawn.items[number]
        mark = _mark(relationship, [note, item.remade_text], kind == "nontree", number == focused)
        yield branch, _parts(item, mark, number == focused)
    if drawn.left_out:
        yield "", [(f"[{left_out_note(drawn.left_out)}]", "dim")]


def _parts(item: DrawnItem, mark: str, is_focus: bool) -> list[Part]:
    """Return the parts of an item's line: id, name, kind of data and step, state, and the mark of its position."""
    node = item.node
    if item.is_group:
        mfid, name, more = "", group_title(item.nodes), plain(node.measurement) if node.step else ""
    else:
        mfid = "" if node.kind == "hidden" or node.name == node.id else plain(node.id)
        name, more = title(node) if node.name or not mfid else "", detail(node)
    by = node.superseded_by if is_focus and not item.is_group else ()
    state = plain(f"superseded by {', '.join(by)}" if by else item.state_text)
    of_state, emphasis = _STATE_STYLES.get(item.state, "cyan"), "bold" if is_focus else ""
    named = [(mfid, of_state), (name, emphasis)] if mfid else [(name, of_state)]
    parts = [*named, (more, "dim"), (f"[{state}]" if state else "", of_state), (mark, "dim")]
    return [(text, style) for text, style in parts if text]


def _mark(relationship: str, notes: Sequence[str], is_repeated: bool, is_focus: bool) -> str:
    link = {DERIVED: "", "": "untyped link"}.get(relationship, plain(relationship))
    noted = " ".join(f"({plain(note)})" for note in notes if note)
    reference = "(see above)" if is_repeated else ""
    return " ".join(part for part in (f"<{link}>" if link else "", noted, reference, "<--" if is_focus else "") if part)
