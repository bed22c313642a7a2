"""What a question returns: JSON for programs, lines for people, and rows if it is a table."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import click

from crucible_lineage.errors import FAILURE
from crucible_lineage.json_types import JsonObject, json_of, object_of
from crucible_lineage.lineage.labels import plain, value_text

META = "crucible_lineage"  # prefix of the options that every command has, in click's context
MOST_CELL = 48  # characters
Rows = tuple[Sequence[str], Sequence[Sequence[object]]]


class Answer(ABC):
    """An answer, which also shows itself in notebooks. With `is_alarm` its command fails.

    Assistants get its lines instead of its JSON if it `is_text`. A command prints `warnings` on standard error, and
    `content`, if there is any, instead of its lines.
    """

    is_alarm = is_text = False
    warnings: Sequence[str] = ()
    content: str | bytes | None = None
    picture = ""  # SVG
    hidden: Collection[str] = ()  # datasets in its records that this key cannot see
    not_datasets: Collection[str] = ()  # ids in it of accounts and samples

    @property
    def exit_code(self) -> int:
        """The exit code of its command."""
        return FAILURE if self.is_alarm else 0

    def to_json(self) -> JsonObject:
        """Return what its command prints with --json: its keys."""
        return object_of(self)

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """Yield the text for people."""

    def table(self) -> Rows | None:
        """Return the names of columns and the rows, for CSV and pages; None if it is no table."""
        return None

    def in_python(self) -> Any:
        """Return what a notebook gets: by default, the answer itself."""
        return self

    def __str__(self) -> str:
        return "\n".join(map(plain, self.lines()))

    def _repr_html_(self) -> str:
        table = self.table()
        return rows_table(*table) if table else f"<pre>{escape(str(self))}</pre>"


@dataclass(frozen=True)
class Done(Answer):
    """What a command did or printed: its JSON, its lines, and its exit code."""

    document: object
    messages: Iterable[str]
    exit_code: int = 0
    warnings: Sequence[str] = ()
    content: str | None = None
    not_datasets: Collection[str] = ()

    def to_json(self) -> JsonObject:
        done: JsonObject = json_of(self.document)
        return done

    def lines(self) -> Iterator[str]:
        yield from self.messages


class Coloured(str):
    """A line of which people see a part in a colour: text before it, the part, and text after it."""

    __slots__ = ("colour", "parts")
    colour: str
    parts: tuple[str, str, str]

    def __new__(cls, colour: str, part: str, after: str = "", *, before: str = "") -> Coloured:
        """Join the parts of the line."""
        line = super().__new__(cls, f"{before}{part}{after}")
        line.colour, line.parts = colour, (before, part, after)
        return line


def in_columns(names: Sequence[str], rows: Sequence[Sequence[object]], most: int = MOST_CELL) -> Iterator[str]:
    """Yield a header line and one line for each row, in columns of at most `most` characters."""
    cells_of = (["" if value is None else value_text(value, most) for value in row] for row in rows)
    shown = [list(map(plain, names)), *cells_of]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for cells in shown:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def not_listed(others: Mapping[str, int]) -> str:
    """Return the end of a list: the omitted datasets by state; empty if there are none."""
    counted = ", ".join(f"{count} {state}" for state, count in sorted(others.items()))
    return counted and f"; not listed: {counted} (--all)"


def rows_table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows as an HTML table with a header, every text escaped; empty if there are none."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    shown = [["" if cell is None else escape(value_text(cell, 60)) for cell in row] for row in rows]
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in shown)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def option_value(name: str) -> Any:
    """Return the value of the option `data`, `url`, `api_key` or `json` of the command; None if it was omitted."""
    context = click.get_current_context(silent=True)
    return context.meta.get(f"{META}.{name}") if context else None


def next_command(*words: str) -> str:
    """Return a command to run next, ready to paste, for the same Crucible. It contains no key."""
    options = [
        part for name in ("data", "url") if option_value(name) for part in (f"--{name}", str(option_value(name)))
    ]
    return shlex.join(["crucible-lineage", *words, *options])
