"""`lineage`: where a dataset comes from and what was made of it, in the terminal or as a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import click

from crucible_lineage.cli.options import crucible_options, open_session, reports_errors
from crucible_lineage.errors import InputError
from crucible_lineage.fetch import fetch_lineage
from crucible_lineage.lineage import LineageGraph, render_tree, render_tree_rich
from crucible_lineage.lineage.formats import render_dot, render_mermaid, to_node_link
from crucible_lineage.lineage.html import render_html
from crucible_lineage.lineage.svg import render_svg

__all__ = ["lineage_command", "write_picture"]

Renderer = Callable[[LineageGraph, str], str]
RENDERERS: dict[str, Renderer] = {
    "svg": lambda graph, focus: render_svg(graph, focus),
    "html": lambda graph, focus: render_html(graph, focus),
    "mmd": lambda graph, focus: "\n".join(render_mermaid(graph.around(focus))),
    "dot": lambda graph, focus: render_dot(graph.around(focus)),
    "json": lambda graph, focus: json.dumps(to_node_link(graph.around(focus)), indent=1, ensure_ascii=False),
}


@click.command("lineage")
@click.argument("mfid")
@crucible_options
@click.option("--depth", type=click.IntRange(1), help="How many links to follow; all by default.")
@click.option("--up", "direction", flag_value="up", help="Only what it comes from.")
@click.option("--down", "direction", flag_value="down", help="Only what was made of it.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write a picture to this file.")
@click.option("--format", "kind", type=click.Choice(sorted(RENDERERS)), help="By default, the ending of the file.")
@reports_errors
def lineage_command(
    mfid: str,
    data: Path | None,
    url: str | None,
    api_key: str | None,
    depth: int | None,
    direction: str | None,
    output: Path | None,
    kind: str | None,
) -> None:
    """Show the lineage of the dataset MFID as a tree, or write it as a picture (-o FILE.svg, .html and so on)."""
    chosen = kind or (output.suffix.lstrip(".").lower() if output else None)
    if chosen is not None and chosen not in RENDERERS:
        raise InputError(f"there is no format {chosen!r}; there are: {', '.join(RENDERERS)} (name one with --format)")
    with open_session(data, url, api_key) as session:
        graph = fetch_lineage(session, mfid, thumbnails=chosen == "html")
    way = {"up": "ancestors", "down": "descendants"}.get(direction or "", "both")
    if depth is not None or direction is not None:
        graph = graph.around(mfid, depth, way)  # type: ignore[arg-type]
    if chosen is None:
        _print_tree(graph, mfid)
    elif output is None:
        click.echo(RENDERERS[chosen](graph, mfid))
    else:
        write_picture(graph, mfid, output, chosen)
        click.echo(output)


def write_picture(graph: LineageGraph, mfid: str, target: Path, kind: str) -> None:
    """The picture stands in the file, whole: it is written beside it first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.write_text(RENDERERS[kind](graph, mfid), encoding="utf-8", newline="\n")
    part.replace(target)


def _print_tree(graph: LineageGraph, mfid: str) -> None:
    if not sys.stdout.isatty():
        click.echo(render_tree(graph, mfid))
        return
    from rich.console import Console  # only for people who are looking

    Console().print(render_tree_rich(graph, mfid), soft_wrap=True)
