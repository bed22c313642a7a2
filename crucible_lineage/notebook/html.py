"""Pieces of HTML for notebooks, in the colours of the surrounding page. Every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from crucible_lineage.lineage.labels import value_text

MOST_ROWS = 60
MOST_INSTANCES = 3  # of a step, if not all rows are shown
COLOURS = {
    "current": "#2a7d4f", "fresh": "#2a7d4f", "executed": "#2a7d4f", "raw": "#3d6fb4", "missing": "#3d6fb4",
    "superseded": "#9a6a00", "stale": "#9a6a00", "incomplete": "#b4482d", "failed": "#b4482d", "blocked": "#b4482d",
    "doubtful": "#b4482d",
}  # fmt: skip


def block(*parts: str) -> str:
    """Return the parts below each other."""
    return f'<div style="line-height:1.45">{"".join(parts)}</div>'


def line(*texts: str) -> str:
    """Return pieces of HTML on one line."""
    return f"<div>{' '.join(text for text in texts if text)}</div>"


def strong(text: str) -> str:
    """Return emphasized text."""
    return f"<strong>{escape(text)}</strong>"


def state_mark(state: str) -> str:
    """Return a state in its colour."""
    colour = COLOURS.get(state, "inherit")
    return f'<span style="color:{colour};font-weight:600">{escape(state)}</span>'


def pairs(title: str, values: Mapping[str, object]) -> str:
    """Return a table of names and values, numbers with their units; empty if there are none."""
    if not values:
        return ""
    rows = "".join(
        f'<tr><td style="text-align:left">{escape(str(name))}</td>'
        f'<td style="text-align:left">{escape(value_text(value))}</td></tr>'
        for name, value in values.items()
    )
    return f"<div>{escape(title)}</div><table>{rows}</table>"


def rows_table(
    names: Sequence[str], rows: Sequence[Sequence[object]], marks: Iterable[int] = (), most: int = MOST_ROWS
) -> str:
    """Return a table with a header; the columns in `marks` are states. At most `most` rows are shown."""
    marked = set(marks)
    head = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in names)

    def cell(at: int, value: object) -> str:
        shown = state_mark(str(value)) if at in marked else "" if value is None else escape(value_text(value, 60))
        return f'<td style="text-align:left">{shown}</td>'

    body = "".join(f"<tr>{''.join(cell(at, value) for at, value in enumerate(row))}</tr>" for row in rows[:most])
    more = f"<div>and {len(rows) - most} more</div>" if len(rows) > most else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def steps_table(names: Sequence[str], rows: Sequence[tuple[str, str, str]]) -> str:
    """Return a table of instances of steps with their states; of many, the first of each step and state, and counts."""
    if len(rows) <= MOST_ROWS:
        return rows_table(names, rows, marks=(1,))
    by_step: dict[str, dict[str, list[tuple[str, str, str]]]] = {}
    for row in rows:
        by_step.setdefault(row[0].partition("[")[0], {}).setdefault(row[1], []).append(row)
    shown = [row for step, states in by_step.items() for alike in states.values() for row in _first(step, alike)]
    return rows_table(names, shown, marks=(1,), most=len(rows))


def _first(step: str, alike: Sequence[tuple[str, str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield the first instances of a step that have the same state, and a row that counts the others."""
    yield from alike[:MOST_INSTANCES]
    if (more := len(alike) - MOST_INSTANCES) > 0:
        yield f"{step}: {more:,} more", alike[0][1], ""
