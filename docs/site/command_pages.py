"""The page on commands, from click: the same words as `--help`."""

from __future__ import annotations

import html
import importlib
import inspect
import re
from collections.abc import Iterator

import click

__all__ = ["commands_page"]

PROGRAM = "crucible-lineage"


def commands_page() -> str:
    """Return Markdown: each command with its usage, arguments and options."""
    main: click.Group = importlib.import_module("crucible_lineage.cli").main
    parts = ["# Commands", _prose(main.help), _usage(main, PROGRAM), _options(main, PROGRAM)]
    for path, command in _commands(main, PROGRAM):
        depth = "#" * (path.count(" ") + 1)
        parts += [f"{depth} {path.removeprefix(PROGRAM).strip()}", _usage(command, path), _prose(command.help)]
        parts.append(_options(command, path))
    return "\n\n".join(part for part in parts if part) + "\n"


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")


def _usage(command: click.Command, path: str) -> str:
    pieces = command.collect_usage_pieces(click.Context(command, info_name=path))
    return f"```console\n$ {path} {' '.join(pieces)}\n```"


def _options(command: click.Command, path: str) -> str:
    context = click.Context(command, info_name=path)
    rows = [row for parameter in command.get_params(context) if (row := parameter.get_help_record(context))]
    lines = [f"| {_cell(names)} | {_text(text)} |" for names, text in rows]
    return "\n".join(["| option | |", "|---|---|", *lines]) if lines else ""


def _cell(names: str) -> str:
    return "<code>" + html.escape(names).replace("|", "&#124;") + "</code>"


def _text(help_text: str) -> str:
    """Return help text for a table's cell, with the signs of Markdown escaped."""
    return re.sub(r"([|<>*\[\]])", r"\\\1", " ".join(help_text.split()))


def _prose(text: str | None) -> str:
    """Return paragraphs of help text, and unwrapped ones as code."""
    paragraphs = []
    for paragraph in inspect.cleandoc((text or "").replace("\f", "")).split("\n\n"):
        if paragraph.startswith("\b"):
            paragraphs.append("```text\n" + paragraph.removeprefix("\b").strip("\n") + "\n```")
        else:
            paragraphs.append(re.sub(r"([<>*])", r"\\\1", paragraph))
    return "\n\n".join(paragraphs)
