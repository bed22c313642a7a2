"""The drawing of a lineage as PNG: its SVG, drawn by resvg with the fonts of this machine."""

from __future__ import annotations

import math
import re

from crucible_lineage.errors import InputError
from crucible_lineage.lineage.draw.svg import render_svg
from crucible_lineage.lineage.graph import LineageGraph

__all__ = ["MOST_PIXELS", "render_png"]

ZOOM = 2.0  # sharp on today's screens and in print
MOST_PIXELS = 64_000_000  # 256 MB while it is drawn; a larger drawing is made smaller
_LETTER = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20"><text y="15" font-family="{}">x</text></svg>'
# What systems bring, in this order; resvg draws nothing in a font that is not there.
_FAMILIES = (
    *("Segoe UI", "Helvetica Neue", "Arial", "DejaVu Sans", "Liberation Sans", "Noto Sans", "Ubuntu", "Cantarell"),
    *("Adwaita Sans", "Open Sans", "Roboto", "FreeSans", "Nimbus Sans", "Lato", "Verdana", "Tahoma"),
)


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
