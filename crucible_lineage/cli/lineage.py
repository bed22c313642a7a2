"""`lineage`: draw or export the ancestors and descendants of a dataset, or pack it with its files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crucible_lineage.amounts import amount, size_text
from crucible_lineage.cli.exit_codes import FAILURE
from crucible_lineage.cli.options import chosen_projects, crucible_options, dataset_id, open_session
from crucible_lineage.cli.working import showing_work
from crucible_lineage.disk import replacing
from crucible_lineage.errors import InputError, nearest, require_library
from crucible_lineage.lineage import LineageGraph, render_tree
from crucible_lineage.lineage.activities import shareable
from crucible_lineage.lineage.graph import Direction
from crucible_lineage.lineage.labels import nodes_text, plain
from crucible_lineage.lineage.page import render_html
from crucible_lineage.lineage.prov import render_prov_json, render_prov_n
from crucible_lineage.lineage.svg import render_png, render_svg
from crucible_lineage.lineage.text import render_mermaid, to_node_link
from crucible_lineage.lineage.view import FOLD_BEYOND
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.ask.bundle import BundleReport

Renderer = Callable[[LineageGraph, str | None, bool], str | bytes]  # graph, focus, include superseded
RENDERERS: dict[str, Renderer] = {
    "svg": lambda graph, focus, every: render_svg(graph, focus, superseded=every),
    "png": lambda graph, focus, every: render_png(graph, focus, superseded=every),
    "html": lambda graph, focus, every: render_html(shareable(graph), focus, superseded=every),
    "mmd": lambda graph, focus, every: "\n".join(render_mermaid(_near(graph, focus), focus, superseded=every)),
    "json": lambda graph, focus, _: json.dumps(to_node_link(_near(graph, focus)), indent=1, ensure_ascii=False),
    "prov-json": lambda graph, focus, _: render_prov_json(_near(graph, focus)),
    "prov-n": lambda graph, focus, _: render_prov_n(_near(graph, focus)),
}
GROUP = "crucible_lineage.lineage_formats"  # entry points of other packages: a name and its Renderer
CRATE, BUNDLE = "ro-crate", "zip"
LIBRARIES = {"prov-json": "prov", "prov-n": "prov", CRATE: "rocrate", BUNDLE: "rocrate"}
WAYS: dict[str | None, Direction] = {"up": "ancestors", "down": "descendants", None: "both"}
MOST_SINGLE = 40  # datasets that a tree shows one per line without --all
ENDINGS = {"provn": "prov-n", "mermaid": "mmd"}  # others equal the format


@click.command("lineage")
@click.argument("mfid", required=False, metavar="[MFID|FILE.yaml]")
@crucible_options
@click.option(
    "--project",
    "projects",
    multiple=True,
    help="Show this project; by default, the folder's, or the only one.",
)
@click.option("--measurement", metavar="NAME", help="With --project: only datasets of this measurement.")
@click.option("--run", "run_id", metavar="ID", help="With --project: what this run made or used, and from what.")
@click.option("--depth", type=click.IntRange(1), help="How many links to follow; by default all.")
@click.option("--up", "direction", flag_value="up", help="Only its ancestors.")
@click.option("--down", "direction", flag_value="down", help="Only its descendants.")
@click.option("--all", "every", is_flag=True, help="In the tree: a line for each sibling, however many.")
@click.option("--superseded", is_flag=True, help="Also draw superseded results, which are otherwise only counted.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write to this file (ro-crate: to this new folder)."
)
@click.option("--format", "kind", metavar="FORMAT", help="By default, the ending of the file.")
@click.option("--files", is_flag=True, help="With --format ro-crate: include the files of the datasets.")
@click.option("--license", "license_url", metavar="URL", default="", help="The licence that a crate or bundle states.")
def lineage_command(
    mfid: str | None,
    projects: tuple[str, ...],
    measurement: str | None,
    run_id: str | None,
    depth: int | None,
    direction: str | None,
    every: bool,
    superseded: bool,
    output: Path | None,
    kind: str | None,
    files: bool,
    license_url: str,
) -> None:
    """Show the lineage of the dataset MFID, or of a project, as a tree, or write it as a picture or for other programs.

    For a pipeline file, show the declared steps with their states.

    Pictures: svg, png, html (a page to explore), mmd (Mermaid). For programs: json (node-link), prov-json and prov-n
    (W3C PROV), ro-crate (a folder). To carry away: zip, a bundle of the dataset and its ancestors with files, records,
    pictures, and verify.py, which needs only Python and checks it offline. PROV, ro-crate and zip need the extra
    `export`. Exit code 1 if a file for the ro-crate or zip is not available: it is named, and the rest is written.
    """
    chosen = _chosen(kind, output)
    is_part, is_packed = depth is not None or direction is not None, chosen in (CRATE, BUNDLE)
    if mfid is None:
        _refuse(is_part or is_packed, f"--depth, --up, --down and the formats {CRATE} and {BUNDLE} go with an MFID")
    else:
        _refuse(bool(projects), "give either the MFID of a dataset or --project, not both")
        _refuse(bool(measurement or run_id), "--measurement and --run go with --project, not with an MFID")
    _refuse(files and chosen != CRATE, f"--files goes with --format {CRATE}")
    _refuse(bool(license_url) and not is_packed, f"--license goes with the formats {CRATE} and {BUNDLE}")
    _refuse(is_packed and output is None, f"{CRATE} and {BUNDLE} are written: name a new folder or file with -o")
    _refuse(is_part and chosen == BUNDLE, "a bundle has all ancestors: leave --depth, --up and --down out")
    if mfid is not None and mfid.endswith((".yaml", ".yml")):
        _refuse(is_part or chosen in LIBRARIES, f"--depth, --up, --down, {', '.join(LIBRARIES)} go with an MFID")
        _show(_declared_graph(mfid), None, chosen, output, every=every, superseded=superseded)
        return
    # Imports pydantic and httpx, which --help does not need.
    from crucible_lineage.ask.bundle import lineage_to_share, projects_to_share, write_bundle, write_crate

    with open_session() as session:
        if mfid is None:
            within = chosen_projects(session, projects)
            graph = _chosen_part(session, projects_to_share(session, within), within, measurement, run_id)
        else:
            mfid = dataset_id(session, mfid)
            if chosen == BUNDLE and output is not None:
                with showing_work() as work:
                    work("fetching the files of its ancestors", 0)
                    _report(output, write_bundle(session, mfid, output, license_url=license_url))
                return
            graph = lineage_to_share(session, mfid, thumbnails=chosen in ("html", CRATE))
            if is_part or chosen == CRATE:
                graph = graph.around(mfid, depth, WAYS[direction])
            if chosen == CRATE and output is not None:
                _report(output, write_crate(session, graph, mfid, output, files=files, license_url=license_url))
                return
    _show(graph, mfid, chosen, output, every=every, superseded=superseded)


def _refuse(is_wrong: bool, message: str) -> None:
    if is_wrong:
        raise InputError(message)


def _declared_graph(name: str) -> LineageGraph:
    from crucible_lineage.pipeline.declare.inputs import located
    from crucible_lineage.pipeline.plan.bind import bind_file
    from crucible_lineage.pipeline.plan.planner import draw_plan

    with open_session() as session:
        return draw_plan(bind_file(located(name), session.store), session)


def _report(output: Path, report: BundleReport) -> None:
    """Print what was written. Exit with code 1 if files were not available; name them with the reasons."""
    if report.list_sha256:
        if report.hidden:
            hidden = amount(report.hidden, "parent")
            click.echo(f"left out, and listed as hidden: {hidden} that this key cannot see", err=True)
        files = f"{amount(report.files, 'file')}, {size_text(report.bytes)}"
        click.echo(f"{output}: {amount(report.datasets, 'dataset')}, {files}")
        click.echo(f"SHA-256 of its bundle.json: {report.list_sha256}")
        click.echo("to check it, unpack it and run: python verify.py")
    else:
        click.echo(output)
    for line in report.absent:
        click.echo(plain(f"not included: {line}"), err=True)
    if report.absent:
        sys.exit(FAILURE)


def _show(
    graph: LineageGraph, mfid: str | None, chosen: str | None, output: Path | None, *, every: bool, superseded: bool
) -> None:
    if chosen is None:
        fold_beyond = None if every or len(graph) <= MOST_SINGLE else FOLD_BEYOND
        click.echo(render_tree(graph, mfid, fold_beyond=fold_beyond, superseded=superseded))
    elif output is None:
        click.echo(_render(graph, mfid, chosen, superseded))
    else:
        write_picture(graph, mfid, output, chosen, superseded=superseded)
        click.echo(output)


def _chosen_part(
    session: Session, graph: LineageGraph, projects: Sequence[str], measurement: str | None, run_id: str | None
) -> LineageGraph:
    """Return the selected part of the lineage of projects. InputError if it is empty, or there is no such run."""
    from crucible_lineage.ask.runs import find_run

    part = graph
    if run_id is not None:
        found = find_run(session, run_id, {one: session.mirror.snapshot(one) for one in projects})
        part = graph.with_parents(found.datasets)
    if measurement is not None:
        part = part.subgraph([mfid for mfid, node in part.nodes.items() if node.measurement == measurement])
    if len(part) == 0 and len(graph):
        selection = " and ".join(
            f"{kind} {name!r}" for kind, name in (("run", run_id), ("measurement", measurement)) if name is not None
        )
        raise InputError(f"lineage of {selection}: none of {nodes_text(len(graph))} matches")
    return part


def write_picture(graph: LineageGraph, mfid: str | None, target: Path, kind: str, *, superseded: bool = False) -> None:
    """Write the picture to the file. The file is complete or unchanged."""
    if target.is_dir():
        raise InputError(f"write {kind} to {target}: it is a folder; name a file")
    content = _render(graph, mfid, kind, superseded)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as draft:
        draft.write_bytes(content)


def _chosen(kind: str | None, output: Path | None) -> str | None:
    ending = output.suffix.lstrip(".").lower() if output else None
    chosen = kind or ENDINGS.get(ending or "", ending)
    if kind is None and output is not None and (not ending or output.is_dir()):
        raise InputError(f"write to {output}: the format follows from the file's ending, as in {output.name}.svg")
    if chosen is not None and chosen not in (*RENDERERS, CRATE, BUNDLE):
        others = {entry.name: entry for entry in entry_points(group=GROUP)}
        if chosen not in others:
            possible = [*RENDERERS, CRATE, BUNDLE, *others]
            raise InputError(f"write as {chosen!r}: no such format; {nearest(chosen, possible)} (--format)")
        RENDERERS[chosen] = others[chosen].load()
    if chosen in LIBRARIES:
        require_library(chosen, LIBRARIES[chosen], "export")
    return chosen


def _near(graph: LineageGraph, focus: str | None) -> LineageGraph:
    return graph if focus is None else graph.around(focus)


def _render(graph: LineageGraph, mfid: str | None, kind: str, superseded: bool) -> bytes:
    """Render the graph as UTF-8. Lone surrogates are written as escapes, as in JSON."""
    content = RENDERERS[kind](graph, mfid, superseded)
    return content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
