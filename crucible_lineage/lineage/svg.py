"""A lineage as a picture, raw data at the left: SVG, and PNG rendered by resvg with the fonts of this machine."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from xml.sax.saxutils import escape

from crucible_lineage.errors import InputError
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import (
    detail,
    ellipsised,
    first_lines,
    group_title,
    plain,
    short_id,
    text_width,
    title,
    wrapped,
)
from crucible_lineage.lineage.layout import Layout, Point, layout
from crucible_lineage.lineage.model import DOUBTFUL, SUPERSEDED
from crucible_lineage.lineage.records import gaps
from crucible_lineage.lineage.view import (
    OTHER_COLOUR,
    STATE_COLOURS,
    DrawnItem,
    View,
    colours,
    kind_of_data,
    left_out_note,
    view,
)
from crucible_lineage.refs import DERIVED, relation_text
from crucible_lineage.text.masking import masked_text

_FONT = "font-family=\"system-ui, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif\""
_NAME_PX, _SMALL_PX = 13, 10.5
_PADDING, _BAR, _MARGIN = 10.0, 5.0, 16.0
_TEXT_WIDTH = 178.0

ZOOM = 2.0  # sharp on today's screens and in print
MOST_PIXELS = 64_000_000  # 256 MB while drawing; larger pictures are scaled down
_LETTER = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20"><text y="15" font-family="{}">x</text></svg>'
# Fonts of common systems, in order of preference; resvg draws nothing in a missing font.
_FAMILIES = (
    *("Segoe UI", "Helvetica Neue", "Arial", "DejaVu Sans", "Liberation Sans", "Noto Sans", "Ubuntu", "Cantarell"),
    *("Adwaita Sans", "Open Sans", "Roboto", "FreeSans", "Nimbus Sans", "Lato", "Verdana", "Tahoma"),
)


@dataclass(frozen=True)
class _Box:
    """The lines of text in one box, and its size."""

    name: list[str]
    small: list[str]
    size: Point


def render_svg(graph: LineageGraph, focus: str | None = None, *, superseded: bool = False) -> str:
    """Return the picture as SVG text.

    With `focus` it shows that dataset's ancestors and descendants; `graph.around` selects fewer. More than
    four siblings of one step become one box with their number. Superseded results are only counted, unless
    requested or needed by a shown one. The full name and id of each node are in its <title>. The background is white,
    so that the picture can be printed and pasted anywhere.
    """
    drawn = view(graph.around(focus), focus, superseded=superseded)
    boxes = [_box(item) for item in drawn.items]
    arrangement = layout([box.size for box in boxes], drawn.edges)
    colour_of = colours(node for item in drawn.items for node in item.nodes)
    note = left_out_note(drawn.left_out)
    focused = drawn.number_of[focus] if focus else None
    body = [
        *_edges(drawn, arrangement),
        *(
            _box_svg(item, boxes[number], arrangement.centres[number], colour_of, number == focused)
            for number, item in enumerate(drawn.items)
        ),
        *_legend(colour_of, note, arrangement.height),
    ]
    return _document(body, arrangement, len(colour_of) + bool(note), max(map(len, [*colour_of, note])))


def _box(item: DrawnItem) -> _Box:
    node = item.node
    if item.is_group:
        name = [ellipsised(group_title(item.nodes), _TEXT_WIDTH, _NAME_PX)]
        small = [kind_of_data(node) if node.step else "", f"{title(node)} …"]
    else:
        name = wrapped(title(node), _TEXT_WIDTH, _NAME_PX)
        small = [detail(node)]
        if node.step and text_width(small[0], _SMALL_PX) > _TEXT_WIDTH:  # kind of data and step on a line each
            small = [detail(replace(node, step="")), node.instance]
        if node.kind != "hidden" and node.name != node.id:
            small.append(plain(short_id(node.id)))
    left_out = sum(len(gaps(node.record)) for node in item.nodes)  # parents
    small += [f"without {left_out}" if left_out else "", item.state_text.upper()]
    small = [ellipsised(plain(line), _TEXT_WIDTH, _SMALL_PX) for line in small if line]
    widest = max([text_width(line, _NAME_PX) for line in name] + [text_width(line, _SMALL_PX) for line in small])
    height = 12.0 + 16 * len(name) + 13.5 * len(small)
    ends = _BAR if node.kind != "sample" else 2 * _PADDING
    return _Box(name, small, (min(max(widest, 60.0), _TEXT_WIDTH) + 2 * _PADDING + ends, height))


def _box_svg(item: DrawnItem, box: _Box, centre: Point, colour_of: dict[str, str], is_focus: bool) -> str:
    """Draw one box with its text: a group as a stack, a sample with round ends, a hidden node dotted."""
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
    """Draw the lines of text. A superseded name is struck through, which is visible without colours too."""
    baseline = y + 19.0
    struck = ' fill="#5A5A5A" text-decoration="line-through"' if superseded else ""
    for line in box.name:
        yield f'<text x="{x:.1f}" y="{baseline:.1f}"{struck}>{_escaped(line)}</text>'
        baseline += 16
    baseline -= 2
    for index, line in enumerate(box.small):
        fill = "#B34700" if bad and index == len(box.small) - 1 else "#5A5A5A"
        yield f'<text x="{x:.1f}" y="{baseline:.1f}" font-size="{_SMALL_PX}" fill="{fill}">{_escaped(line)}</text>'
        baseline += 13.5


def _edges(drawn: View, arrangement: Layout) -> Iterator[str]:
    """Draw the edges with their labels: a note, or the relationship unless it is a derivation."""
    for ends, relationship in drawn.edges.items():
        if course := arrangement.courses.get(ends):
            dash = "" if relationship == DERIVED else ' stroke-dasharray="5 3"'
            line = f'fill="none" stroke="#7A7A7A" stroke-width="1.2" marker-end="url(#arrow)"{dash}'
            yield f'<path d="{_curve(course)}" {line}/>'
    for ends, relationship in drawn.edges.items():
        label = drawn.notes.get(ends) or relation_text(relationship)
        if label and (course := arrangement.courses.get(ends)):
            (x1, y1), (x2, y2) = course[-2:]
            words = _escaped(ellipsised(plain(label), 66, 8))
            title = f"<title>{_escaped(plain(drawn.notes[ends]))}</title>" if ends in drawn.notes else ""
            yield (
                f'<text x="{(x1 + x2) / 2:.1f}" y="{(y1 + y2) / 2 - 3:.1f}" text-anchor="middle" font-size="8" '
                f'fill="#5A5A5A" stroke="#FFFFFF" stroke-width="2.5" paint-order="stroke">'
                f"{title}{words}</text>"
            )


def _curve(course: tuple[Point, ...]) -> str:
    """Return a path that leaves and enters every column horizontally."""
    (x, y), *rest = course
    path = [f"M{x:.1f},{y:.1f}"]
    for index, (to_x, to_y) in enumerate(rest):
        middle = (x + to_x) / 2
        path.append(
            f"L{to_x:.1f},{to_y:.1f}"
            if index % 2
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
    """Return the full names and ids, one node per line; of a large group the first twenty."""
    described = (
        (
            title(node),
            detail(node),
            node.visible_id,
            node.state,
            node.doubt and node.doubt.message(node.id),
            *(f"without {gap}" for gap in gaps(node.record)),
        )
        for node in item.nodes
    )
    lines = (" · ".join(plain(part) for part in parts if part) for parts in described)
    return _escaped("\n".join(first_lines(lines, 20, "and {} more")))


def _document(body: list[str], arrangement: Layout, kinds: int, longest_kind: int) -> str:
    width = max(arrangement.width + 6, 16 + longest_kind * 7.0) + 2 * _MARGIN
    height = arrangement.height + (24 + 16 * kinds if kinds else 0) + 6 + 2 * _MARGIN
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
    return masked_text("\n".join([head, arrow, *hatch, ground, *body, "</svg>"]) + "\n")


def _escaped(text: str) -> str:
    """Escape text for XML. `plain` has replaced characters that XML 1.0 forbids; line feeds in titles stay."""
    return escape(text, {'"': "&quot;"})


def render_png(graph: LineageGraph, focus: str | None = None, *, superseded: bool = False) -> bytes:
    """Return the picture as PNG, twice as large, within MOST_PIXELS. Raises InputError without a font for the names."""
    from resvg_py import svg_to_bytes  # imported only for PNG

    blank = svg_to_bytes(svg_string=_LETTER.replace(">x<", "><"))
    family = next((name for name in _FAMILIES if svg_to_bytes(svg_string=_LETTER.format(name)) != blank), None)
    if family is None:
        raise InputError(
            "write a PNG picture: none of the usual fonts is on this machine, so names would be blank; install one "
            "(on Debian: apt install fonts-dejavu-core), or write .svg"
        )
    svg = render_svg(graph, focus, superseded=superseded)
    width, height = map(int, re.findall(r'(?:width|height)="(\d+)"', svg)[:2])
    zoom = min(ZOOM, math.sqrt(MOST_PIXELS / (width * height)))
    return svg_to_bytes(svg_string=svg, zoom=zoom, sans_serif_family=family)
