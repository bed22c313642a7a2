"""The map as a picture: the doors at the top, facts at the bottom, each room above what it stands on.

Placed by the layout that draws lineages, turned by a quarter. An arrow that follows from two others is left out.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from xml.sax.saxutils import escape

import networkx
from rooms import PARTS, ROOT, House

from crucible_lineage.lineage.layout import Layout, Point, layout

__all__ = ["drawn"]

WIDTH, MARGIN, NAME_PX, SMALL_PX = 190.0, 12.0, 13, 9.5
LETTERS, MOST = 33, 3  # of a line, and lines
# Okabe and Ito's colours, as in lineages.
GROUPS = {
    "people's doors": ("#E69F00", {"cli", "web", "__main__"}),
    "on Prefect": ("#CC79A7", {"flows", "tasks"}),
    "library, without Prefect": ("#0072B2", set()),
    "the embedded Crucible": ("#009E73", {"server"}),
    "data and steps to try it with": ("#8A8A8A", {"demo"}),
}


def drawn(house: House) -> str:
    """Return the picture as SVG text. It changes only with rooms, their descriptions, or arrows."""
    rooms = [room for room in house.rooms if room != "__main__"]
    graph = house.graph.subgraph(rooms)
    arrows = sorted(networkx.transitive_reduction(graph).edges)
    number = {room: at for at, room in enumerate(rooms)}
    boxes = [_lines(room) for room in rooms]
    turned = [(_height(lines), WIDTH) for lines in boxes]
    placed = layout(turned, [(number[a], number[b]) for a, b in arrows], column_gap=34, row_gap=18)
    body = [f'<path d="{_curve(course)}" {LINE}/>' for course in placed.courses.values()]
    for at, room in enumerate(rooms):
        body.append(_box(room, boxes[at], placed.centres[at], turned[at][0]))
    return _document([*body, *_legend(placed)], placed)


def _lines(room: str) -> list[str]:
    """Return a room's own description, on at most three lines."""
    folder = ROOT if room in PARTS else ROOT / "crucible_lineage"
    file = folder / room / "__init__.py"
    said = ast.get_docstring(ast.parse((file if file.exists() else folder / f"{room}.py").read_text(encoding="utf-8")))
    sentence = " ".join((said or "").partition("\n\n")[0].split()).split(". ")[0].rstrip(".")
    lines = textwrap.wrap(sentence.replace("`", ""), LETTERS)
    return lines if len(lines) <= MOST else [*lines[: MOST - 1], f"{lines[MOST - 1].rstrip(',:;')} …"]


def _height(lines: list[str]) -> float:
    return 28.0 + 12.5 * len(lines)


def _group(room: str) -> str:
    return next((name for name, (_, rooms) in GROUPS.items() if room in rooms), "library, without Prefect")


def _is_folder(room: str) -> bool:
    return room in PARTS or (ROOT / "crucible_lineage" / room).is_dir()


LINE = 'fill="none" stroke="#7A7A7A" stroke-width="1.1" marker-end="url(#arrow)"'


def _curve(course: tuple[Point, ...]) -> str:
    """Return the path from box to box, turned: left in the layout is up here."""
    (y, x), *rest = course
    path = [f"M{x:.1f},{y:.1f}"]
    for at, (to_y, to_x) in enumerate(rest):
        middle = (y + to_y) / 2
        bent = f"C{x:.1f},{middle:.1f} {to_x:.1f},{middle:.1f} {to_x:.1f},{to_y:.1f}"
        path.append(f"L{to_x:.1f},{to_y:.1f}" if at % 2 else bent)
        x, y = to_x, to_y
    return " ".join(path)


def _box(room: str, lines: list[str], centre: Point, height: float) -> str:
    x, y = centre[1] - WIDTH / 2, centre[0] - height / 2
    colour = GROUPS[_group(room)][0]
    parts = [
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{WIDTH:g}" height="{height:g}" rx="5" fill="#FFFFFF" stroke="#6B6B6B"/>',
        f'<rect x="{x + 2:.1f}" y="{y + 4:.1f}" width="5" height="{height - 8:g}" rx="2" fill="{colour}"/>',
        f'<text x="{x + 13:.1f}" y="{y + 18:.1f}">{room}{"/" if _is_folder(room) else ".py"}</text>',
    ]
    for at, line in enumerate(lines):
        words = f'font-size="{SMALL_PX}" fill="#5A5A5A">{escape(line)}</text>'
        parts.append(f'<text x="{x + 13:.1f}" y="{y + 32 + 12.5 * at:.1f}" {words}')
    return "".join(parts)


def _legend(placed: Layout) -> Iterator[str]:
    x = 0.0
    for name, (colour, _) in GROUPS.items():
        y = placed.width + 26
        yield f'<rect x="{x:.1f}" y="{y:.1f}" width="10" height="10" rx="2" fill="{colour}"/>'
        yield f'<text x="{x + 16:.1f}" y="{y + 9:.1f}" font-size="10.5" fill="#5A5A5A">{name}</text>'
        x += 34 + 6.2 * len(name)


def _document(body: list[str], placed: Layout) -> str:
    width, height = placed.height + 2 * MARGIN, placed.width + 46 + 2 * MARGIN
    font = "font-family=\"system-ui, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif\""
    box = f'width="{width:.0f}" height="{height:.0f}" viewBox="{-MARGIN:g} {-MARGIN:g} {width:.0f} {height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box} {font} font-size="{NAME_PX}" fill="#111111">'
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0.8 L8,4 L0,7.2 z" fill="#7A7A7A"/></marker></defs>'
    )
    title = "<title>Rooms of crucible-lineage, each above those it uses</title>"
    ground = f'<rect x="{-MARGIN:g}" y="{-MARGIN:g}" width="100%" height="100%" fill="#FFFFFF"/>'
    return "\n".join([head, title, arrow, ground, *body, "</svg>"]) + "\n"
