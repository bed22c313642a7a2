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

_UNICODE = ("├── ", "└── ", "│   ", "    ")
_ASCII = ("|-- ", "`-- ", "|   ", "    ")
_STATE_STYLES = {
    **{"complete": "green", "current": "green", "fresh": "green", "superseded": "dim"},
    **{"missing": "yellow", "stale": "yellow", "doubtful": "yellow"},
    **{"incomplete": "bold red", "failed": "bold red", "blocked": "bold red"},
}


@dataclass(frozen=True)
class _Line:
    """One line of the tree in its parts; `mark` is what is said of its place in it."""

    branch: str
    mfid: str
    name: str
    detail: str
    state: str
    state_said: str
    mark: str
    is_focus: bool


def render_tree(
    graph: LineageGraph,
    focus: str | None = None,
    *,
    fold_beyond: int | None = None,
    ascii_only: bool = False,
    superseded: bool = False,
) -> str:
    """The tree as text, a line a node: id, name, kind of data and step, state.

    With `focus` it is what that dataset comes from and what comes from it, else the whole graph.
    A node with several parents stands below the first of them and is marked `(see above)` below the others.
    What is superseded is counted only, unless it is asked for or something shown comes from it. `ascii_only` draws for
    terminals that have no line characters; names stay as they are.
    """
    lines = _lines(graph, focus, fold_beyond, ascii_only, superseded)
    return "\n".join((line.branch + " ".join(part for part in _texts(line) if part)).rstrip() for line in lines)


def render_tree_rich(
    graph: LineageGraph,
    focus: str | None = None,
    *,
    fold_beyond: int | None = None,
    superseded: bool = False,
) -> Text:
    """The same tree in colour, for a rich console. Names are never read as markup."""
    from rich.text import Text  # only who prints in colour pays for rich

    shown = Text()
    for line in _lines(graph, focus, fold_beyond, False, superseded):
        parts = zip(_texts(line), _styles(line), strict=True)
        shown.append_text(Text("\n" if shown else ""))
        shown.append(line.branch, style="dim")
        shown.append_text(Text(" ").join(Text(part, style=style) for part, style in parts if part))
    return shown


def _texts(line: _Line) -> tuple[str, ...]:
    state = f"[{line.state_said}]" if line.state_said else ""
    return (line.mfid or line.name, line.name if line.mfid else "", line.detail, state, line.mark)


def _styles(line: _Line) -> tuple[str, ...]:
    of_state = _STATE_STYLES.get(line.state, "cyan")
    return (of_state, "bold" if line.is_focus else "", "dim", of_state, "dim")


def _lines(
    graph: LineageGraph,
    focus: str | None,
    fold_beyond: int | None,
    ascii_only: bool,
    superseded: bool,
) -> Iterator[_Line]:
    shown = graph if focus is None else graph.around(focus)
    drawn = view(shown, fold_beyond=fold_beyond, keep=[focus] if focus else [], superseded=superseded)
    children: list[list[int]] = [[] for _ in drawn.items]
    for source, target in drawn.edges:
        children[source].append(target)
    tee, corner, bar, blank = _ASCII if ascii_only else _UNICODE
    printed: set[int] = set()
    focused = drawn.number_of[focus] if focus else None
    for root in _roots(drawn, children):
        if root in printed:
            continue
        waiting: list[tuple[int, int | None, str, str]] = [(root, None, "", "")]
        while waiting:
            number, parent, branch, indent = waiting.pop()
            again = number in printed
            printed.add(number)
            relationship = DERIVED if parent is None else drawn.edges[parent, number]
            note = "" if parent is None else drawn.notes.get((parent, number), "")
            item = drawn.items[number]
            mark = _mark(relationship, [note, item.remade_said], again, number == focused)
            yield _line(item, branch, mark, number == focused)
            below = [] if again else children[number]
            for child in reversed(below):
                last = child == below[-1]
                waiting.append((child, number, indent + (corner if last else tee), indent + (blank if last else bar)))
    if drawn.left_out:
        yield _Line("", "", "", left_out_note(drawn.left_out), "", "", "", is_focus=False)


def _roots(drawn: View, children: list[list[int]]) -> Iterator[int]:
    """The items without parents, then, for cycles that have no way in, whatever was not reached from those."""
    has_parent = {target for source, target in drawn.edges if source != target}
    roots = [number for number in range(len(drawn.items)) if number not in has_parent]
    yield from roots
    reached: set[int] = set()
    for number in [*roots, *range(len(drawn.items))]:
        if number not in reached and number in has_parent:
            yield number
        waiting = [number]
        while waiting:
            at = waiting.pop()
            if at not in reached:
                reached.add(at)
                waiting.extend(children[at])


def _line(item: DrawnItem, branch: str, mark: str, is_focus: bool) -> _Line:
    node = item.node
    if item.is_group:
        measured = plain(node.measurement) if node.step else ""
        said = plain(item.state_said)
        return _Line(branch, "", group_title(item.nodes), measured, item.state, said, mark, is_focus)
    mfid = "" if node.kind == "hidden" or node.name == node.id else plain(node.id)
    name = title(node) if node.name or not mfid else ""
    said = f"superseded by {', '.join(node.superseded_by)}" if is_focus and node.superseded_by else item.state_said
    return _Line(branch, mfid, name, detail(node), item.state, plain(said), mark, is_focus)


def _mark(relationship: str, notes: Sequence[str], again: bool, is_focus: bool) -> str:
    said = {DERIVED: "", "": "untyped link"}.get(relationship, plain(relationship))
    noted = " ".join(f"({plain(note)})" for note in notes if note)
    seen = "(see above)" if again else ""
    return " ".join(part for part in (f"<{said}>" if said else "", noted, seen, "<--" if is_focus else "") if part)
