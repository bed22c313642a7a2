"""Texts as they are shown: shortened, wrapped, and with nothing in them that a terminal or a page would obey."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from crucible_lineage.amounts import amount
from crucible_lineage.lineage.model import Node

__all__ = [
    *(
        "HIDDEN_NAME",
        "detail",
        "detail_lines",
        "ellipsised",
        "group_title",
        "nodes_text",
        "plain",
        "short_id",
        "text_width",
        "title",
    ),
    "wrapped",
]

HIDDEN_NAME = "not visible to you"
SHORT = 3  # symbols of a word that does not stand alone in a second line
_NARROW = frozenset("iIjlft.,:;'|![](){}r -`\"")
_WIDE = frozenset("mwMWO@%QGD&")
_UNSEEN = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, lone surrogates, line and paragraph separators
_TURNING = frozenset(
    {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
)  # change the direction of what follows
_NO_XML = frozenset("\ufffe\uffff")


def title(node: Node) -> str:
    """Return a node's title: its name, else its id, else that it is hidden."""
    if node.kind == "hidden":
        return HIDDEN_NAME
    return plain(node.name or node.id)


def detail(node: Node) -> str:
    """The second line: what kind of data it is and the step that made it."""
    if node.kind == "hidden":
        return ""
    kind = node.data_type or "sample" if node.kind == "sample" else node.measurement or node.data_type
    return plain(" · ".join(part for part in (kind, node.step) if part))


def detail_lines(node: Node, width: float, size: float) -> list[str]:
    """The detail on one line if it fits, else what kind of data it is and the step on a line each."""
    if text_width(detail(node), size) <= width or not node.step:
        return [detail(node)]
    return [detail(replace(node, step="")), plain(node.step)]


def group_title(nodes: Sequence[Node]) -> str:
    """Return the common title of several siblings: how many, and the step that made them or what they measure."""
    first = nodes[0]
    return f"{len(nodes)} × {plain(first.step or first.measurement or first.data_type) or title(first)}"


def nodes_text(count: int) -> str:
    """Return how many nodes a lineage has, in words."""
    return amount(count, "dataset or sample", "datasets and samples")


def short_id(mfid: str) -> str:
    """An MFID with its middle left out: the time at its head, the random end that tells neighbours apart."""
    return mfid if len(mfid) <= 12 else f"{mfid[:5]}…{mfid[-5:]}"


def plain(text: str) -> str:
    """`text` on one line, with control and text-direction characters spelled out, so that no terminal obeys them."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(symbol) for symbol in text)


def ellipsised(text: str, width: float, size: float = 1.0) -> str:
    """`text`, or its head and tail around an ellipsis, within `width` at that font size."""
    if text_width(text, size) <= width:
        return text
    shortest, longest = 1, len(text) - 1
    while shortest < longest:
        length = (shortest + longest + 1) // 2
        if text_width(_cut(text, length), size) <= width:
            shortest = length
        else:
            longest = length - 1
    shown = _cut(text, shortest)
    return shown if text_width(shown, size) <= width else "…"


def wrapped(text: str, width: float, size: float = 1.0) -> list[str]:
    """`text` in one line or two within `width`: broken at a blank or after a joint where it can be, else ellipsised."""
    if text_width(text, size) <= width:
        return [text]
    fitting, used = 0, 0.0
    while (used := used + _symbol_width(text[fitting]) * size) <= width:
        fitting += 1
    breaks = (at for at in range(fitting, 0, -1) if _may_break(text, at))
    cut = next(breaks, 0)
    if len(text[cut:].strip()) <= SHORT:  # a unit stays with its number
        wider = (at for at in breaks if len(text[at:].strip()) > SHORT and text_width(text[:at], size) >= width / 4)
        cut = next(wider, cut)
    if text_width(text[:cut], size) < width / 4:
        cut = max(fitting, 1)
    return [text[:cut].rstrip(), ellipsised(text[cut:].lstrip(), width, size)]


def text_width(text: str, size: float = 1.0) -> float:
    """About how wide a sans-serif font sets `text`; generous, as fonts differ and a label must not overflow."""
    return size * sum(map(_symbol_width, text))


def _symbol_width(symbol: str) -> float:
    if symbol in _NARROW:
        return 0.42
    if symbol in _WIDE:
        return 0.95
    if symbol.isascii():
        return 0.74 if symbol.isupper() else 0.62
    if unicodedata.east_asian_width(symbol) in "WF":
        return 1.05
    return 0.0 if unicodedata.combining(symbol) else 0.8


def _cut(text: str, length: int) -> str:
    """That many symbols of the head and the tail of `text`, around an ellipsis."""
    tail = length // 2
    return text[: length - tail].rstrip() + "…" + (text[-tail:].lstrip() if tail else "")


def _may_break(text: str, at: int) -> bool:
    """True if a line may end before `text[at]`."""
    return text[at] == " " or text[at - 1] in " -_/."


def _spelled(symbol: str) -> str:
    if unicodedata.category(symbol) in _UNSEEN or unicodedata.bidirectional(symbol) in _TURNING or symbol in _NO_XML:
        return symbol.encode("unicode_escape", "backslashreplace").decode("ascii")
    return symbol
