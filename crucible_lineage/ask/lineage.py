"""`lineage`: the ancestors and descendants of a dataset as a tree, drawn, exported, or packed with its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from crucible_lineage.ask.answer import Answer, Done
from crucible_lineage.ask.names import find_mfid, find_project
from crucible_lineage.ask.question import COMMAND, HERE, Projects, argument, option, question
from crucible_lineage.ask.runs import find_run
from crucible_lineage.errors import InputError, nearest, require_library
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import nodes_text
from crucible_lineage.lineage.page import render_html
from crucible_lineage.lineage.prov import render_prov_json, shareable
from crucible_lineage.lineage.svg import render_png, render_svg
from crucible_lineage.lineage.text import render_dot, render_graphml, render_mermaid, render_tree, to_node_link
from crucible_lineage.lineage.view import FOLD_BEYOND
from crucible_lineage.machine.disk import replacing
from crucible_lineage.machine.process import Tell
from crucible_lineage.session import Session

Renderer = Callable[[LineageGraph, str | None, bool], str | bytes]  # graph, focus, include superseded
RENDERERS: Mapping[str, Renderer] = {
    "svg": lambda graph, focus, every: render_svg(graph, focus, superseded=every),
    "png": lambda graph, focus, every: render_png(graph, focus, superseded=every),
    "html": lambda graph, focus, every: render_html(shareable(graph), focus, superseded=every),
    "mmd": lambda graph, focus, every: "\n".join(render_mermaid(graph.around(focus), focus, superseded=every)),
    "json": lambda graph, focus, _: json.dumps(to_node_link(graph.around(focus)), indent=1, ensure_ascii=False),
    "graphml": lambda graph, focus, _: render_graphml(graph.around(focus)),
    "dot": lambda graph, focus, _: render_dot(graph.around(focus)),
    "prov-json": lambda graph, focus, _: render_prov_json(graph.around(focus)),
}
BUNDLE = "zip"
OF_DATASETS = ("prov-json", BUNDLE)  # formats that a declaration has not
LIBRARIES = {"dot": "pydot", "prov-json": "prov", BUNDLE: "rocrate"}
DECLARATIONS = (".yaml", ".yml")
MOST_SINGLE = 40  # datasets that a tree shows one per line without --all


@dataclass(frozen=True)
class Lineage(Answer):
    """A lineage; `focus` is the dataset in question, `kind` the format if not a tree, `output` the file written."""

    graph: LineageGraph
    focus: str | None = None
    kind: str | None = None
    output: Path | None = None
    every: bool = False
    superseded: bool = False
    is_text = True

    @property
    def content(self) -> str | bytes | None:  # type: ignore[override]
        """The picture or export, unless it is written to a file."""
        return self.rendered() if self.kind and not self.output else None

    @property
    def picture(self) -> str:  # type: ignore[override]
        """The drawing as SVG."""
        return render_svg(self.graph, self.focus, superseded=self.superseded)

    @property
    def hidden(self) -> Collection[str]:  # type: ignore[override]
        """The datasets in it that this key cannot see."""
        return self.graph.hidden

    @property
    def not_datasets(self) -> Collection[str]:  # type: ignore[override]
        """The samples in it."""
        return [mfid for mfid, node in self.graph.nodes.items() if node.kind == "sample"]

    def __len__(self) -> int:
        return len(self.graph)

    def __repr__(self) -> str:
        return f"<lineage of {self.focus}: {nodes_text(len(self))}>"

    def to_json(self) -> JsonObject:
        """Return nodes and links, for `lineage --json`."""
        return to_node_link(self.graph.around(self.focus))

    def lines(self) -> Iterator[str]:
        """Yield the tree, or the file that was written."""
        if self.output:
            yield str(self.output)
            return
        fold_beyond = None if self.every or len(self) <= MOST_SINGLE else FOLD_BEYOND
        yield from render_tree(self.graph, self.focus, fold_beyond=fold_beyond, superseded=self.superseded)

    def rendered(self) -> bytes:
        """Return the picture or export in UTF-8. Lone surrogates are written as escapes, as in JSON."""
        content = RENDERERS[self.kind or ""](self.graph, self.focus, self.superseded)
        return content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")

    def written(self) -> Self:
        """Write the picture or export to its file, if it has one, which is then complete or unchanged."""
        if self.output and self.output.is_dir():
            raise InputError(f"write {self.kind} to {self.output}: it is a folder; name a file")
        if self.output and self.kind:
            content = self.rendered()
            self.output.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.output) as draft:
                draft.write_bytes(content)
        return self

    def _repr_html_(self) -> str:
        return f'<div style="overflow:auto;max-width:100%">{self.picture}</div>'


def _fits_together(
    dataset: str | None = None, projects: Sequence[str] = (), run: str | None = None,
    depth: int | None = None, up: bool = False, down: bool = False, output: Path | None = None,
    kind: str | None = None, **_: object,
) -> None:  # fmt: skip
    chosen = _chosen(kind, output)
    is_part, is_packed = depth is not None or up or down, chosen == BUNDLE
    if dataset is None:
        _refuse(is_part or is_packed, f"--depth, --up, --down and the format {BUNDLE} go with an MFID")
    else:
        _refuse(bool(projects), "give either the MFID of a dataset or --project, not both")
        _refuse(bool(run), "--run goes with --project, not with an MFID")
    _refuse(is_packed and output is None, "a bundle is written: name a new file with -o")
    _refuse(is_packed and is_part, "a bundle has all ancestors: leave --depth, --up and --down out")
    if dataset is not None and dataset.endswith(DECLARATIONS):
        _refuse(is_part or chosen in OF_DATASETS, f"--depth, --up, --down, {', '.join(OF_DATASETS)} go with an MFID")


@question("lineage", check=_fits_together)
def lineage(
    session: Session, dataset: Annotated[str | None, argument("[MFID|FILE.yaml]")] = None, *,
    projects: Projects = (),
    run: Annotated[
        str | None, option("With --project: what this run made or used, and from what.", metavar="ID")
    ] = None,
    depth: Annotated[int | None, option("How many links to follow; by default all.", least=1)] = None,
    up: Annotated[bool, option("Only its ancestors.")] = False,
    down: Annotated[bool, option("Only its descendants.")] = False,
    every: Annotated[bool, option("In the tree: a line for each sibling, however many.", "--all")] = False,
    superseded: Annotated[
        bool, option("Also draw superseded results, which are otherwise only counted.")
    ] = False,
    output: Annotated[
        Path | None, option("Write to this file.", "-o", "--output", doors=HERE)
    ] = None,
    kind: Annotated[
        str | None, option("By default, the ending of the file.", "--format", metavar="FORMAT", doors=(COMMAND,))
    ] = None,
    tell: Tell | None = None,
) -> Lineage | Done:  # fmt: skip
    """Show the lineage of the dataset MFID, or of a project, as a tree, or write it as a picture or for other programs.

    For a pipeline file, show the declared steps with their states.

    Pictures: svg, png, html (a page to explore), mmd (Mermaid). For programs: json (node-link), graphml, dot
    (Graphviz), prov-json (W3C PROV). To carry away: zip, a bundle of the dataset and its ancestors, an RO-Crate with
    files, records, pictures, and a list of hashes, which `sha256sum -c` checks. dot, prov-json and zip need the extra
    `export`.
    Exit code 1 if a file for the zip is not available: it is named, and the rest is written.
    """
    chosen = _chosen(kind, output)
    if dataset is not None and dataset.endswith(DECLARATIONS):
        from crucible_lineage.pipeline.declare.inputs import located
        from crucible_lineage.pipeline.plan.bind import bind_file
        from crucible_lineage.pipeline.plan.planner import draw_plan

        graph = draw_plan(bind_file(located(dataset), session.store), session)
        return Lineage(graph, None, chosen, output, every, superseded=True).written()
    # Imports pydantic and httpx, which --help does not need.
    from crucible_lineage.ask.bundle import to_share, write_bundle
    from crucible_lineage.ask.lineages import fetch_lineage, fetch_projects

    if dataset is None:
        within = list(projects) or [find_project(session, None)]
        graph = to_share(session, fetch_projects(session, within))
        if run:
            found = find_run(session, run, {project: session.mirror.snapshot(project) for project in within})
            part = graph.with_parents(found)
            if len(part) == 0 and len(graph):
                raise InputError(f"lineage of run {run!r}: none of {nodes_text(len(graph))} matches")
            graph = part
        return Lineage(graph, None, chosen, output, every, superseded).written()
    mfid = find_mfid(session, dataset)
    if chosen == BUNDLE and output is not None:
        if tell:
            tell("fetching the files of its ancestors", 0)
        return write_bundle(session, mfid, output)
    graph = to_share(session, fetch_lineage(session, mfid, thumbnails=chosen == "html"))
    if depth is not None or up or down:
        graph = graph.around(mfid, depth, "ancestors" if up else "descendants" if down else "both")
    return Lineage(graph, mfid, chosen, output, every, superseded).written()


def _refuse(is_wrong: bool, message: str) -> None:
    if is_wrong:
        raise InputError(message)


def _chosen(kind: str | None, output: Path | None) -> str | None:
    ending = output.suffix.lstrip(".").lower() if output else None
    chosen = kind or ending
    if kind is None and output is not None and (not ending or output.is_dir()):
        raise InputError(f"write to {output}: the format follows from the file's ending, as in {output.name}.svg")
    if chosen is not None and chosen not in (possible := [*RENDERERS, BUNDLE]):
        raise InputError(f"write as {chosen!r}: no such format; {nearest(chosen, possible)} (--format)")
    if chosen in LIBRARIES:
        require_library(chosen, LIBRARIES[chosen], "export")
    return chosen
