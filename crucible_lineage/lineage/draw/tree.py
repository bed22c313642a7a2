"""A lineage as a tree for the terminal, raw data on top."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crucible_lineage.lineage.draw.view import DrawnItem, View, left_out_note, view
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import detail, group_title, plain, title
from crucible_lineage.lineage.model import DERIVED

if TYPE_CHECKING:
    from rich.text import Text

_BRANCHES = ("├── ", "└── ", "│   ", "    ")
_STATE_STYLES = {
    **{"complete": "green", "current": "green", "fresh": "green", "superseded": "dim"},
    **{"missing": "yellow", "stale": "yellow", "doubtful": "yellow"},
    **{"incomplete": "bold red", "failed": "bold red", "blocked": "bold red"},
}


@dataclass(frozen=True)
class _Line:
    """One line of the tree in its parts; `mark` has notes about its position."""

    branch: str
    mfid: str
    name: str
    detail: str
    state: str
    state_text: str
    mark: str
    is_focus: bool


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
    return "\n".join((line.branch + " ".join(part for part in _texts(line) if part)).rstrip() for line in lines)


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
    for line in _lines(graph, focus, fold_beyond, superseded):
        parts = zip(_texts(line), _styles(line), strict=True)
        output.append_text(Text("\n" if output else ""))
        output.append(line.branch, style="dim")
        output.append_text(Text(" ").join(Text(part, style=style) for part, style in parts if part))
    return output


def _texts(line: _Line) -> tuple[str, ...]:
    state = f"[{line.state_text}]" if line.state_text else ""
    return (line.mfid or line.name, line.name if line.mfid else "", line.detail, state, line.mark)


def _styles(line: _Line) -> tuple[str, ...]:
    state_style = _STATE_STYLES.get(line.state, "cyan")
    return (state_style, "bold" if line.is_focus else "", "dim", state_style, "dim")


def _lines(
    graph: LineageGraph,
    focus: str | None,
    fold_beyond: int | None,
    superseded: bool,
) -> Iterator[_Line]:
    selected = graph if focus is None else graph.around(focus)
    drawn = view(selected, fold_beyond=fold_beyond, keep=[focus] if focus else [], superseded=superseded)
    children: list[list[int]] = [[] for _ in drawn.items]
    for source, target in drawn.edges:
        children[source].append(target)
    tee, corner, bar, blank = _BRANCHES
    printed: set[int] = set()
    focused = drawn.number_of[focus] if focus else None
    for root in _roots(drawn, children):
        if root in printed:
            continue
        waiting: list[tuple[int, int | None, str, str]] = [(root, None, "", "")]
        while waiting:
            number, parent, branch, indent = waiting.pop()
            is_repeated = number in printed
            printed.add(number)
            relationship = DERIVED if parent is None else drawn.edges[parent, number]
            note = "" if parent is None else drawn.notes.get((parent, number), "")
            item = drawn.items[number]
            mark = _mark(relationship, [note, item.remade_text], is_repeated, number == focused)
            yield _line(item, branch, mark, number == focused)
            shown_children = [] if is_repeated else children[number]
            for child in reversed(shown_children):
                last = child == shown_children[-1]
                waiting.append((child, number, indent + (corner if last else tee), indent + (blank if last else bar)))
    if drawn.left_out:
        yield _Line("", "", "", left_out_note(drawn.left_out), "", "", "", is_focus=False)


def _roots(drawn: View, children: list[list[int]]) -> Iterator[int]:
    """Yield the items without parents, then items not reached from those: they are in or behind a cycle."""
    has_parent = {target for source, target in drawn.edges if source != target}
    roots = [number for number in range(len(drawn.items)) if number not in has_parent]
    yield from roots
    reached: set[int] = set()
    for number in [*roots, *range(len(drawn.items))]:
        if number not in reached and number in has_parent:
            yield number
        waiting = [number]
        while waiting:
            current = waiting.pop()
            if current not in reached:
                reached.add(current)
                waiting.extend(children[current])


def _line(item: DrawnItem, branch: str, mark: str, is_focus: bool) -> _Line:
    node = item.node
    if item.is_group:
        measured = plain(node.measurement) if node.step else ""
        state = plain(item.state_text)
        return _Line(branch, "", group_title(item.nodes), measured, item.state, state, mark, is_focus)
    mfid = "" if node.kind == "hidden" or node.name == node.id else plain(node.id)
    name = title(node) if node.name or not mfid else ""
    state = f"superseded by {', '.join(node.superseded_by)}" if is_focus and node.superseded_by else item.state_text
    return _Line(branch, mfid, name, detail(node), item.state, plain(state), mark, is_focus)


def _mark(relationship: str, notes: Sequence[str], is_repeated: bool, is_focus: bool) -> str:
    link = {DERIVED: "", "": "untyped link"}.get(relationship, plain(relationship))
    noted = " ".join(f"({plain(note)})" for note in notes if note)
    reference = "(see above)" if is_repeated else ""
    return " ".join(part for part in (f"<{link}>" if link else "", noted, reference, "<--" if is_focus else "") if part)
