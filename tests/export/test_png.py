"""The picture as PNG: the content of the SVG, twice as large, within the limit."""

from __future__ import annotations

import io
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from crucible_lineage.errors import InputError
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Edge, Node
from crucible_lineage.lineage.svg import render_png, render_svg

GRAPH = LineageGraph([Node("a", name="neon <lamp>", measurement="Raman"), Node("b", name="axis")], [Edge("a", "b")])


def picture(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def test_it_is_the_drawing_twice_as_large_with_its_colours_and_letters() -> None:
    drawn = picture(render_png(GRAPH))
    size = re.search(r'width="(\d+)" height="(\d+)"', render_svg(GRAPH))
    assert size is not None
    assert drawn.size == tuple(2 * int(number) for number in size.groups())
    colours = {colour for _, colour in drawn.getcolors(1 << 16) or ()}
    assert {(0, 114, 178), (255, 255, 255)} <= colours
    nameless = picture(render_png(LineageGraph([Node("a", name=" ", measurement="Raman"), Node("b", name="axis")])))
    assert drawn.tobytes() != nameless.tobytes()


def test_without_a_font_it_says_so_and_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def blank(**options: Any) -> bytes:
        return b"the same for every text"

    monkeypatch.setitem(sys.modules, "resvg_py", SimpleNamespace(svg_to_bytes=blank))
    with pytest.raises(InputError, match="none of the usual fonts"):
        render_png(GRAPH)
