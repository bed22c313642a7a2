"""A lineage as a picture, raw data at the left: SVG, and PNG drawn of it by resvg with the fonts of this machine."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape

from crucible_lineage.errors import InputError
from crucible_lineage.lineage.draw.view import (
    FOLD_BEYOND,
    OTHER_COLOUR,
    STATE_COLOURS,
    DrawnItem,
    View,
    colours,
    kind_of_data,
    left_out_note,
    view,
)
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

__all__ = ["MOST_PIXELS", "render_png", "render_svg"]


_FONT = "font-family=\"system-ui, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif\""
_NAME_PX, _SMALL_PX = 13, 10.5
_PADDING, _BAR, _MARGIN = 10.0, 5.0, 16.0
_TEXT_WIDTH = 178.0


ZOOM = 2.0  # sharp on today's screens and in print
MOST_PIXELS = 64_000_000  # 256 MB while it is drawn; a larger drawing is made smaller
_LETTER = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20"><text y="15" font-family="{}">x</text></svg>'
# What systems bring, in this order; resvg draws nothing in a font that is not there.
_FAMILIES = (
    *("Segoe UI", "Helvetica Neue", "Arial", "DejaVu Sans", "Liberation Sans", "Noto Sans", "Ubuntu", "Cantarell"),
    *("Adwaita Sans", "Open Sans", "Roboto", "FreeSans", "Nimbus Sans", "Lato", "Verdana", "Tahoma"),
)


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
    small += [item.remade_said, item.state_said.upper()]
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
            plain(node.doubt.message(node.id)) if node.doubt else "",
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


Point = tuple[float, float]
_SWEEPS = 12  # of ordering and of placing; more changed no picture that was looked at
_LINE_HEIGHT = 10.0  # room for a line that passes a column between two boxes
_STRAIGHT = 8.0  # how much more a long line's own course weighs than a box's wish to sit amid its neighbours


@dataclass(frozen=True)
class Layout:
    """Centres of the boxes, and for each edge the points it runs through, from box border to box border."""

    width: float
    height: float
    centres: tuple[Point, ...]
    courses: dict[tuple[int, int], tuple[Point, ...]]


def layout(
    sizes: Sequence[Point], edges: Iterable[tuple[int, int]], *, column_gap: float = 70.0, row_gap: float = 14.0
) -> Layout:
    """The places of boxes of those (width, height), numbered as in `sizes`; edges that close a cycle run backwards.

    Edges from a box to itself get no course. The same input gives the same picture.
    """
    links = [(source, target) for source, target in dict.fromkeys(edges) if source != target]
    layer = _layers(len(sizes), _acyclic(len(sizes), links))
    chains, layer_of, heights = _chains(links, layer, [height for _, height in sizes])
    columns = _ordered(layer_of, chains)
    ys = _placed(columns, chains, heights, row_gap, len(sizes))
    widths = [max((sizes[n][0] for n in column if n < len(sizes)), default=0.0) for column in columns]
    xs = [sum(widths[:at]) + column_gap * at + width / 2 for at, width in enumerate(widths)]
    centres = tuple((xs[layer_of[number]], ys[number]) for number in range(len(sizes)))
    courses = {link: _course(chain, sizes, layer_of, xs, widths, ys) for link, chain in zip(links, chains, strict=True)}
    height = max((ys[n] + heights[n] / 2 for n in range(len(ys))), default=0.0)
    return Layout(sum(widths) + column_gap * max(0, len(columns) - 1), height, centres, courses)


def _acyclic(count: int, links: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The links with those turned round that a depth-first walk finds to lead back."""
    children: list[list[int]] = [[] for _ in range(count)]
    has_parent = [False] * count
    for source, target in links:
        children[source].append(target)
        has_parent[target] = True
    state = [0] * count  # 0 not met, 1 on the way, 2 done
    backward: set[tuple[int, int]] = set()
    for root in sorted(range(count), key=lambda number: has_parent[number]):
        stack = [(root, iter(children[root]))] if not state[root] else []
        state[root] = state[root] or 1
        while stack:
            number, following = stack[-1]
            child = next(following, None)
            if child is None:
                state[number] = 2
                stack.pop()
            elif state[child] == 1:
                backward.add((number, child))
            elif not state[child]:
                state[child] = 1
                stack.append((child, iter(children[child])))
    return [(target, source) if (source, target) in backward else (source, target) for source, target in links]


def _layers(count: int, links: list[tuple[int, int]]) -> list[int]:
    """The column of each box: right of all its parents; a box without parents stands right before its first child."""
    parents: list[list[int]] = [[] for _ in range(count)]
    children: list[list[int]] = [[] for _ in range(count)]
    for source, target in links:
        children[source].append(target)
        parents[target].append(source)
    waiting = [len(above) for above in parents]
    order = [number for number in range(count) if not waiting[number]]
    layer = [0] * count
    for number in order:
        for child in children[number]:
            layer[child] = max(layer[child], layer[number] + 1)
            waiting[child] -= 1
            if not waiting[child]:
                order.append(child)
    for number in order:
        if not parents[number] and children[number]:
            layer[number] = min(layer[child] for child in children[number]) - 1
    return layer


def _chains(
    links: list[tuple[int, int]], layer: list[int], box_heights: list[float]
) -> tuple[list[list[int]], list[int], list[float]]:
    """For each link the numbers it runs through, left to right: its ends and a new number in each column between.

    Lines that leave one box share their way as far as it goes: one line that forks is easier to follow than many.
    """
    layer_of, heights = list(layer), list(box_heights)
    shared: dict[tuple[int, int], int] = {}
    chains = []
    for source, target in links:
        left, right = (source, target) if layer[source] < layer[target] else (target, source)
        chain = [left]
        for column in range(layer[left] + 1, layer[right]):
            if (left, column) not in shared:
                shared[left, column] = len(layer_of)
                layer_of.append(column)
                heights.append(_LINE_HEIGHT)
            chain.append(shared[left, column])
        chains.append([*chain, right])
    return chains, layer_of, heights


def _ordered(layer_of: list[int], chains: list[list[int]]) -> list[list[int]]:
    """The columns, each from top to bottom, in the order with the fewest crossings that the sweeps came by."""
    before, after = _neighbours(len(layer_of), chains)
    columns: list[list[int]] = [[] for _ in range(max(layer_of, default=-1) + 1)]
    for number in _depth_first(len(layer_of), before, after):
        columns[layer_of[number]].append(number)
    best, fewest = [list(column) for column in columns], _crossings(columns, after)
    for sweep in range(_SWEEPS):
        rightwards = sweep % 2 == 0
        for at in range(1, len(columns)) if rightwards else range(len(columns) - 2, -1, -1):
            beside = columns[at - 1] if rightwards else columns[at + 1]
            position = {number: float(place) for place, number in enumerate(beside)}
            _sort_by_neighbours(columns[at], position, before if rightwards else after)
        crossings = _crossings(columns, after)
        if crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
    return best


def _depth_first(count: int, before: list[list[int]], after: list[list[int]]) -> list[int]:
    """All numbers as a walk from the left meets them, so that what hangs together starts out side by side."""
    met: dict[int, None] = {}
    for root in sorted(range(count), key=lambda number: bool(before[number])):
        waiting = [root]
        while waiting:
            number = waiting.pop()
            if number not in met:
                met[number] = None
                waiting.extend(reversed(after[number]))
    return list(met)


def _neighbours(count: int, chains: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for left, right in dict.fromkeys(step for chain in chains for step in pairwise(chain)):
        after[left].append(right)
        before[right].append(left)
    return before, after


def _sort_by_neighbours(column: list[int], position: dict[int, float], neighbours: list[list[int]]) -> None:
    """Sorts a column by the mean place of each one's neighbours; what has none keeps its place."""
    wished = {}
    for place, number in enumerate(column):
        places = [position[other] for other in neighbours[number]]
        wished[number] = sum(places) / len(places) if places else float(place)
    column.sort(key=wished.__getitem__)


def _crossings(columns: list[list[int]], after: list[list[int]]) -> int:
    """Count the pairs of lines that cross between neighbouring columns."""
    count = 0
    for column, following in pairwise(columns):
        position = {number: place for place, number in enumerate(following)}
        passed: list[int] = []
        for number in column:
            places = sorted(position[other] for other in after[number])
            count += sum(len(passed) - bisect_left(passed, place + 1) for place in places)
            passed = sorted(passed + places)
    return count


def _placed(
    columns: list[list[int]], chains: list[list[int]], heights: list[float], row_gap: float, boxes: int
) -> list[float]:
    """The height of each number: near its neighbours' mean, in its column's order, none overlapping."""
    before, after = _neighbours(len(heights), chains)
    ys = [0.0] * len(heights)
    for column in columns:
        _spread(column, [0.0] * len(column), [1.0] * len(column), heights, row_gap, ys)
    for sweep in range(2 * _SWEEPS):
        both = sweep >= 2 * _SWEEPS - 2
        for column in columns if sweep % 2 == 0 else reversed(columns):
            wishes, weights = [], []
            for number in column:
                beside = before[number] + after[number] if both else (before if sweep % 2 == 0 else after)[number]
                strength = [_STRAIGHT if number >= boxes and other >= boxes else 1.0 for other in beside]
                total = sum(strength)
                wishes.append(
                    sum(ys[o] * s for o, s in zip(beside, strength, strict=True)) / total if total else ys[number]
                )
                weights.append(total or 0.1)
            _spread(column, wishes, weights, heights, row_gap, ys)
    top = min((ys[number] - heights[number] / 2 for number in range(len(heights))), default=0.0)
    return [y - top for y in ys]


def _spread(
    column: list[int],
    wishes: list[float],
    weights: list[float],
    heights: list[float],
    row_gap: float,
    ys: list[float],
) -> None:
    """Sets `ys` of a column nearest to the wishes by weighted squares, without overlap (pool adjacent violators)."""
    offsets, offset = [], 0.0
    for above, number in zip([None, *column], column, strict=False):
        if above is not None:
            offset += (heights[above] + heights[number]) / 2 + row_gap
        offsets.append(offset)
    blocks: list[tuple[float, float, int]] = []  # (mean wish without offsets, weight, how many)
    for wish, weight, offset in zip(wishes, weights, offsets, strict=True):
        mean, total, count = wish - offset, weight, 1
        while blocks and blocks[-1][0] > mean:
            other_mean, other_total, other_count = blocks.pop()
            mean = (mean * total + other_mean * other_total) / (total + other_total)
            total, count = total + other_total, count + other_count
        blocks.append((mean, total, count))
    means = [mean for mean, _, count in blocks for _ in range(count)]
    for number, mean, offset in zip(column, means, offsets, strict=True):
        ys[number] = mean + offset


def _course(
    chain: list[int], sizes: Sequence[Point], layer_of: list[int], xs: list[float], widths: list[float], ys: list[float]
) -> tuple[Point, ...]:
    """The points of a line from the right border of its left box, straight through each column, to its right box."""
    left, *between, right = chain
    points = [(xs[layer_of[left]] + sizes[left][0] / 2, ys[left])]
    for number in between:
        x, half = xs[layer_of[number]], widths[layer_of[number]] / 2
        points += [(x - half, ys[number]), (x + half, ys[number])]
    return (*points, (xs[layer_of[right]] - sizes[right][0] / 2, ys[right]))


def render_png(
    graph: LineageGraph,
    focus: str | None = None,
    *,
    superseded: bool = False,
) -> bytes:
    """The picture that `render_svg` makes, as PNG, twice as large; smaller where it would exceed MOST_PIXELS.

    InputError if this machine has no font to write names with.
    """
    from resvg_py import svg_to_bytes  # only who wants a picture as PNG waits for it

    blank = svg_to_bytes(svg_string=_LETTER.replace(">x<", "><"))
    family = next((name for name in _FAMILIES if svg_to_bytes(svg_string=_LETTER.format(name)) != blank), None)
    if family is None:
        raise InputError(
            "write a PNG picture: none of the usual fonts is on this machine, so names would be blank; install one "
            "(on Debian: apt install fonts-dejavu-core), or write .svg"
        )
    svg = render_svg(graph, focus, superseded=superseded)
    return svg_to_bytes(svg_string=svg, zoom=_zoom(svg), sans_serif_family=family)


def _zoom(svg: str) -> float:
    found = re.search(r'width="(\d+)" height="(\d+)"', svg)
    width, height = (int(number) for number in found.groups()) if found else (1, 1)
    return min(ZOOM, math.sqrt(MOST_PIXELS / (width * height)))
