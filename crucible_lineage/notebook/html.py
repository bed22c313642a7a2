"""Pieces of HTML for notebooks: in the colours of the page that they stand in, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from crucible_lineage.lineage.values import told_value

__all__ = ["block", "line", "pairs", "rows_table", "state_mark", "strong"]

MOST_ROWS = 60
COLOURS = {
    "current": "#2a7d4f", "fresh": "#2a7d4f", "executed": "#2a7d4f", "raw": "#3d6fb4", "missing": "#3d6fb4",
    "superseded": "#9a6a00", "stale": "#9a6a00", "incomplete": "#b4482d", "failed": "#b4482d", "blocked": "#b4482d",
}  # fmt: skip


def block(*parts: str) -> str:
    """The parts below each other."""
    return f'<div style="line-height:1.45">{"".join(parts)}</div>'


def line(*texts: str) -> str:
    """Pieces of HTML on one line."""
    return f"<div>{' '.join(text for text in texts if text)}</div>"


def strong(text: str) -> str:
    """A text that stands out."""
    return f"<strong>{escape(text)}</strong>"


def state_mark(state: str) -> str:
    """A state in its colour; the word says it, too."""
    colour = COLOURS.get(state, "inherit")
    return f'<span style="color:{colour};font-weight:600">{escape(state)}</span>'


def pairs(title: str, values: Mapping[str, object]) -> str:
    """Names and values, numbers with their units; nothing if there are none."""
    if not values:
        return ""
    rows = "".join(
        f'<tr><td style="text-align:left">{escape(str(name))}</td>'
        f'<td style="text-align:left">{escape(told_value(str(name), value))}</td></tr>'
        for name, value in values.items()
    )
    return f"<div>{escape(title)}</div><table>{rows}</table>"


def rows_table(names: Sequence[str], rows: Sequence[Sequence[object]], marks: Iterable[int] = ()) -> str:
    """A table with a line of names; the columns in `marks` are states. Of many rows the first are shown."""
    marked = set(marks)
    head = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in names)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="text-align:left">{state_mark(str(cell)) if at in marked else _cell(names[at], cell)}</td>'
            for at, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows[:MOST_ROWS]
    )
    more = f"<div>and {len(rows) - MOST_ROWS} more</div>" if len(rows) > MOST_ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(name: str, value: object) -> str:
    return "" if value is None else escape(told_value(name.removesuffix(".mean"), value, 60))
