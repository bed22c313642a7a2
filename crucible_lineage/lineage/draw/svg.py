"""A lineage as an SVG picture, raw data at the left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from crucible_lineage.lineage.draw.appearance import OTHER_COLOUR, STATE_COLOURS, colours, kind_of_data
from crucible_lineage.lineage.draw.layout import Layout, Point, layout
from crucible_lineage.lineage.draw.superseded import left_out_note
from crucible_lineage.lineage.draw.view import FOLD_BEYOND, DrawnItem, View, view
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import (
    detail,
    detail_lines,
    ellipsised,
    group_title,
    plain,
    short_id,
    text_width,
    title,
    wrapped,
)
from crucible_lineage.lineage.model import DERIVED, DOUBTFUL, SUPERSEDED

__all__ = ["render_svg"]

_FONT = "font-family=\"system-ui, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif\""
_NAME_PX, _SMALL_PX = 13, 10.5
_PADDING, _BAR, _MARGIN = 10.0, 5.0, 16.0
_TEXT_WIDTH = 178.0


@dataclass(frozen=True)
class _Box:
    """What is written in one box, and its size."""

    name: list[str]
    small: list[str]
    size: Point


def render_svg(
    graph: LineageGraph,
    focus: str | None = None,
    *,
    fold_beyond: int | None = FOLD_BEYOND,
    superseded: bool = False,
) -> str:
    """The picture as SVG text.

    With `focus` it shows what that dataset comes from and what comes from it; `graph.around` makes it less. More than
    `fold_beyond` siblings of one step are one box with their number. What is superseded is counted only, unless it is
    asked for or something shown comes from it. The full name and id of each node are in its <title>. The ground is
    white, so that the picture can be printed and pasted anywhere.
    """
    shown = graph if focus is None else graph.around(focus)
    drawn = view(shown, fold_beyond=fold_beyond, keep=[focus] if focus else [], superseded=superseded)
    boxes = [_box(item) for item in drawn.items]
    placed = layout([box.size for box in boxes], drawn.edges)
    colour_of = colours(node for item in drawn.items for node in item.nodes)
    note = left_out_note(drawn.left_out)
    focused = drawn.number_of[focus] if focus else None
    body = [
        *_edges(drawn, placed),
        *(
            _drawn(item, boxes[number], placed.centres[number], colour_of, number == focused)
            for number, item in enumerate(drawn.items)
        ),
        *_legend(colour_of, note, placed.height),
    ]
    return _document(body, placed, len(colour_of) + bool(note), max(map(len, [*colour_of, note])))


def _box(item: DrawnItem) -> _Box:
    node = item.node
    if item.is_group:
        name = [ellipsised(group_title(item.nodes), _TEXT_WIDTH, _NAME_PX)]
        small = [kind_of_data(node) if node.step else "", f"{title(node)} …"]
    else:
        name = wrapped(title(node), _TEXT_WIDTH, _NAME_PX)
        small = detail_lines(node, _TEXT_WIDTH, _SMALL_PX)
        if node.kind != "hidden" and node.name != node.id:
            small.append(plain(short_id(node.id)))
    small.append(item.state_said.upper())
    small = [ellipsised(plain(line), _TEXT_WIDTH, _SMALL_PX) for line in small if line]
    widest = max([text_width(line, _NAME_PX) for line in name] + [text_width(line, _SMALL_PX) for line in small])
    height = 12.0 + 16 * len(name) + 13.5 * len(small)
    ends = _BAR if node.kind != "sample" else 2 * _PADDING
    return _Box(name, small, (min(max(widest, 60.0), _TEXT_WIDTH) + 2 * _PADDING + ends, height))


def _drawn(item: DrawnItem, box: _Box, centre: Point, colour_of: dict[str, str], is_focus: bool) -> str:
    """One box with its text; a group is drawn as a stack, a sample with round ends, a hidden node dotted."""
    (width, height), node = box.size, item.node
    x, y = centre[0] - width / 2, centre[1] - height / 2
    bad, superseded = STATE_COLOURS.get(item.state), item.state == SUPERSEDED
    stroke = bad or ("#9A9A9A" if superseded and not is_focus else "") or ("#111111" if is_focus else "#6B6B6B")
    line = f'stroke="{stroke}" stroke-width="{2.5 if is_focus else 1.2}"'
    dashes = "2 3" if node.kind == "hidden" or superseded else "6 3" if bad else ""
    line += f' stroke-dasharray="{dashes}"' if dashes else ""
    radius = height / 2 if node.kind == "sample" else 5
    fill = "#F3F3F3" if node.kind in ("sample", "hidden") or superseded else "#FFFFFF"
    fill = "url(#doubtful)" if item.state == DOUBTFUL else fill
    shape = f'width="{width:.1f}" height="{height:.1f}" rx="{radius:g}" fill="{fill}" {line}/>'
    parts = [f"<g><title>{_tip(item)}</title>"]
    if item.is_group:
        parts.append(f'<rect x="{x + 4:.1f}" y="{y + 4:.1f}" {shape}')
    parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {shape}')
    if kind := kind_of_data(node):
        colour = colour_of.get(kind, OTHER_COLOUR)
        parts.append(
            f'<rect x="{x + 2:.1f}" y="{y + 4:.1f}" width="{_BAR:g}" height="{height - 8:.1f}" rx="2" fill="{colour}"/>'
        )
    parts.extend(_words(box, x + _PADDING + (_PADDING if node.kind == "sample" else _BAR), y, bad, superseded))
    return "".join([*parts, "</g>"])


def _words(box: _Box, x: float, y: float, bad: str | None, superseded: bool) -> Iterator[str]:
    """The lines; the name of what is superseded is struck through, which a printer without colours shows too."""
    baseline = y + 19.0
    struck = ' fill="#5A5A5A" text-decoration="line-through"' if superseded else ""
    for line in box.name:
        yield f'<text x="{x:.1f}" y="{baseline:.1f}"{struck}>{_escaped(line)}</text>'
        baseline += 16
    baseline -= 2
    for at, line in enumerate(box.small):
        fill = "#B34700" if bad and at == len(box.small) - 1 else "#5A5A5A"
        yield f'<text x="{x:.1f}" y="{baseline:.1f}" font-size="{_SMALL_PX}" fill="{fill}">{_escaped(line)}</text>'
        baseline += 13.5


def _edges(drawn: View, placed: Layout) -> Iterator[str]:
    """The lines, and what each says: its note, and its relationship unless it is a derivation."""
    for ends, relationship in drawn.edges.items():
        if course := placed.courses.get(ends):
            backward = placed.centres[ends[0]][0] > placed.centres[ends[1]][0]
            arrow = "marker-start" if backward else "marker-end"
            dash = "" if relationship == DERIVED else ' stroke-dasharray="5 3"'
            line = f'fill="none" stroke="#7A7A7A" stroke-width="1.2" {arrow}="url(#arrow)"{dash}'
            yield f'<path d="{_curve(course)}" {line}/>'
    for ends, relationship in drawn.edges.items():
        told = drawn.notes.get(ends) or ("" if relationship == DERIVED else relationship or "untyped")
        if told and (course := placed.courses.get(ends)):
            (x1, y1), (x2, y2) = course[-2:]
            words = _escaped(ellipsised(plain(told), 66, 8))
            title = f"<title>{_escaped(plain(drawn.notes[ends]))}</title>" if ends in drawn.notes else ""
            yield (
                f'<text x="{(x1 + x2) / 2:.1f}" y="{(y1 + y2) / 2 - 3:.1f}" text-anchor="middle" font-size="8" '
                f'fill="#5A5A5A" stroke="#FFFFFF" stroke-width="2.5" paint-order="stroke">'
                f"{title}{words}</text>"
            )


def _curve(course: tuple[Point, ...]) -> str:
    """A path that leaves and enters every column level."""
    (x, y), *rest = course
    path = [f"M{x:.1f},{y:.1f}"]
    for at, (to_x, to_y) in enumerate(rest):
        middle = (x + to_x) / 2
        path.append(
            f"L{to_x:.1f},{to_y:.1f}"
            if at % 2
            else f"C{middle:.1f},{y:.1f} {middle:.1f},{to_y:.1f} {to_x:.1f},{to_y:.1f}"
        )
        x, y = to_x, to_y
    return " ".join(path)


def _legend(colour_of: dict[str, str], note: str, top: float) -> Iterator[str]:
    for row, (kind, colour) in enumerate(colour_of.items()):
        y = top + 24 + 16 * row
        yield f'<rect x="0" y="{y:.1f}" width="10" height="10" rx="2" fill="{colour}"/>'
        words = _escaped(ellipsised(plain(kind), 300, _SMALL_PX))
        yield f'<text x="16" y="{y + 9:.1f}" font-size="{_SMALL_PX}" fill="#5A5A5A">{words}</text>'
    if note:
        y = top + 33 + 16 * len(colour_of)
        yield f'<text x="0" y="{y:.1f}" font-size="{_SMALL_PX}" fill="#5A5A5A">{note}</text>'


def _tip(item: DrawnItem) -> str:
    """The full names and ids, a node a line; of a large group the first twenty."""
    lines = []
    for node in item.nodes[:20]:
        known = [
            title(node),
            detail(node),
            "" if node.kind == "hidden" else plain(node.id),
            plain(node.shown_state),
            plain(node.doubt.told(node.id)) if node.doubt else "",
        ]
        lines.append(" · ".join(part for part in known if part))
    if len(item.nodes) > 20:
        lines.append(f"and {len(item.nodes) - 20} more")
    return _escaped("\n".join(lines))


def _document(body: list[str], placed: Layout, kinds: int, longest_kind: int) -> str:
    width = max(placed.width + 6, 16 + longest_kind * 7.0) + 2 * _MARGIN
    height = placed.height + (24 + 16 * kinds if kinds else 0) + 6 + 2 * _MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="{-_MARGIN:g} {-_MARGIN:g} {width:.0f} {height:.0f}" {_FONT} font-size="{_NAME_PX}" fill="#111111">'
    )
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse"><path d="M0,0.8 L8,4 L0,7.2 z" fill="#7A7A7A"/></marker></defs>'
    )
    hatched = (
        '<defs><pattern id="doubtful" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="7" height="7" fill="#FFFFFF"/><rect width="2" height="7" fill="#F6DFD0"/></pattern></defs>'
    )
    hatch = [hatched] if any("url(#doubtful)" in part for part in body) else []
    ground = f'<rect x="{-_MARGIN:g}" y="{-_MARGIN:g}" width="100%" height="100%" fill="#FFFFFF"/>'
    return "\n".join([head, arrow, *hatch, ground, *body, "</svg>"]) + "\n"


def _escaped(text: str) -> str:
    """Text for XML: what XML 1.0 cannot hold is spelled out before by `plain`; line feeds in titles stay."""
    return escape(text, {'"': "&quot;"})
