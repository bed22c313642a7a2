"""Texts and values for display: shortened, with units, and without characters that a terminal would obey."""

from __future__ import annotations

import csv
import io
import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.model import Node
from crucible_lineage.text.amounts import amount
from crucible_lineage.text.masking import masked_text

HIDDEN_NAME = "not visible to you"
SHORT = 3  # symbols of a word that is not moved alone to a second line
_NARROW = frozenset("iIjlft.,:;'|![](){}r -`\"")
_WIDE = frozenset("mwMWO@%QGD&")
_UNSEEN = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, lone surrogates, line and paragraph separators
_TURNING = frozenset(
    {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
)  # change the direction of the text that follows
_NO_XML = frozenset("\ufffe\uffff")

MOST = 200  # characters
DIGITS = 7  # of a number; all of them are in the JSON

FORMULAS = tuple("=+-@＝＋－＠")


def title(node: Node) -> str:
    """Return a node's title: its name, else its id; for a hidden node that it is hidden."""
    if node.kind == "hidden":
        return HIDDEN_NAME
    return plain(node.name or node.id)


def detail(node: Node) -> str:
    """Return the second line: the kind of data and the step that made it."""
    if node.kind == "hidden":
        return ""
    kind = node.data_type or "sample" if node.kind == "sample" else node.measurement or node.data_type
    return plain(" · ".join(part for part in (kind, node.instance) if part))


def group_title(nodes: Sequence[Node]) -> str:
    """Return the common title of several siblings: their number, and their step or measurement."""
    first = nodes[0]
    return f"{len(nodes)} × {plain(first.step or first.measurement or first.data_type) or title(first)}"


def nodes_text(count: int) -> str:
    """Return the number of nodes of a lineage, in words."""
    return amount(count, "dataset or sample", "datasets and samples")


def first_lines(lines: Iterable[str], most: int, rest: str = "  and {} more") -> Iterator[str]:
    """Yield at most `most` of the lines, and one that counts the others."""
    listed = list(lines)
    yield from listed[:most]
    if len(listed) > most:
        yield rest.format(len(listed) - most)


def short_id(mfid: str) -> str:
    """Return an MFID without its middle: the time at its head, and the random tail that distinguishes neighbours."""
    return mfid if len(mfid) <= 12 else f"{mfid[:5]}…{mfid[-5:]}"


def plain(text: str) -> str:
    """Return `text` on one line, with control and text-direction characters escaped, so that no terminal obeys them."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(symbol) for symbol in text)


def plain_lines(text: str) -> str:
    """Return `text` with its line breaks; control and text-direction characters in its lines are escaped."""
    return "\n".join(map(plain, text.split("\n")))


def ellipsised(text: str, width: float, size: float = 1.0) -> str:
    """Return `text`, or its head and tail around an ellipsis, within `width` at that font size."""
    if text_width(text, size) <= width:
        return text
    shortest, longest = 1, len(text) - 1
    while shortest < longest:
        length = (shortest + longest + 1) // 2
        if text_width(_cut(text, length), size) <= width:
            shortest = length
        else:
            longest = length - 1
    shortened = _cut(text, shortest)
    return shortened if text_width(shortened, size) <= width else "…"


def wrapped(text: str, width: float, size: float = 1.0) -> list[str]:
    """Return `text` in one or two lines within `width`: broken at a blank or hyphen if possible, else ellipsised."""
    if text_width(text, size) <= width:
        return [text]
    fitting, used = 0, 0.0
    while (used := used + _symbol_width(text[fitting]) * size) <= width:
        fitting += 1
    breaks = (at for at in range(fitting, 0, -1) if text[at] == " " or text[at - 1] in " -_/.")
    cut = next(breaks, 0)
    if len(text[cut:].strip()) <= SHORT:  # a unit stays with its number
        wider = (at for at in breaks if len(text[at:].strip()) > SHORT and text_width(text[:at], size) >= width / 4)
        cut = next(wider, cut)
    if text_width(text[:cut], size) < width / 4:
        cut = max(fitting, 1)
    return [text[:cut].rstrip(), ellipsised(text[cut:].lstrip(), width, size)]


def text_width(text: str, size: float = 1.0) -> float:
    """Estimate the width of `text` in a sans-serif font; generously, as fonts differ and labels must not overflow."""
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
    """Return the head and tail of `text`, `length` symbols in all, around an ellipsis."""
    tail = length // 2
    return text[: length - tail].rstrip() + "…" + (text[-tail:].lstrip() if tail else "")


def _spelled(symbol: str) -> str:
    if unicodedata.category(symbol) in _UNSEEN or unicodedata.bidirectional(symbol) in _TURNING or symbol in _NO_XML:
        return symbol.encode("unicode_escape", "backslashreplace").decode("ascii")
    return symbol


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return CSV with a header, other values as JSON; an apostrophe precedes what would be run as a formula."""
    return masked_text("".join(map(_csv_line, (columns, *([_csv_cell(value) for value in row] for row in rows)))))


def _csv_line(cells: Sequence[object]) -> str:
    target = io.StringIO()
    csv.writer(target, lineterminator="\r\n").writerow(cells)  # with both, a carriage return in a cell is quoted
    return target.getvalue().removesuffix("\r\n") + "\n"


def _csv_cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.lstrip().startswith(FORMULAS) or value[:1] in ("\t", "\r") else value
    if isinstance(value, bool | list | tuple | Mapping):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


def value_text(value: object, most: int = MOST) -> str:
    """Return a value on one line, shortened if long, numbers with seven digits, `value` with `unit` as `632.961 nm`."""
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, Mapping) and (number := _measured(value)) is not None:
        unit = value.get("unit", value.get("units"))
        return plain(f"{number_text(number)} {unit}" if unit else number_text(number))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return plain(text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)")


def number_text(value: float) -> str:
    """Return a number with at most seven digits."""
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    exact = repr(value)
    return exact if len(exact) <= DIGITS + 1 else f"{value:.{DIGITS}g}"


def _measured(value: JsonMapping) -> float | None:
    number = value.get("value")
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return number if is_number and value.keys() <= {"value", "unit", "units"} else None
