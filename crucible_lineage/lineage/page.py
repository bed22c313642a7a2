"""A lineage as one HTML file for use offline: pan, search, unfold, and read about each dataset."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Mapping
from importlib.resources import files

from crucible_lineage.json_types import JsonMapping, JsonObject, mapping, text
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import plain, title
from crucible_lineage.lineage.model import Node
from crucible_lineage.lineage.records import declared_step, given_metadata, provenance, recorded_files
from crucible_lineage.lineage.text import public_ids, redactor
from crucible_lineage.lineage.view import FOLD_BEYOND, STATE_COLOURS, colours, dispensable, note_of, roles_of
from crucible_lineage.refs import SHOWN, relation_text
from crucible_lineage.text.masking import masked
from crucible_lineage.text.times import measured_at

SCRIPTS = ("data.js", "fold.js", "arrange.js", "draw.js", "panel.js", "page.js")
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_THUMBNAIL = re.compile(rf"data:({'|'.join(PICTURES)});base64,[A-Za-z0-9+/=]+")
_NODE_COLUMNS: dict[str, Callable[[Node], object]] = {
    "kind": lambda node: node.kind,
    "name": title,
    "measurement": lambda node: plain(node.measurement),
    "data_type": lambda node: plain(node.data_type),
    "state": lambda node: plain(node.state),
    "step": lambda node: plain(node.step),
    "instance": lambda node: plain(node.instance),
    "superseded_by": lambda node: list(node.superseded_by),
}


def render_html(
    graph: LineageGraph,
    focus: str | None = None,
    *,
    pages: str = "",
    superseded: bool = False,
    figure: str = "",
    reproduce: str = "",
) -> str:
    """Return the page as text, at first with the boxes of the picture; of over a hundred, with the forty nearest.

    The rest unfolds. With `focus` it has that dataset's ancestors and descendants. A button shows superseded results,
    or `superseded` from the beginning.

    The page contains each dataset's record: metadata, parameters, files with hashes, provenance, and the thumbnail if
    the record has one as a data URI under `thumbnail`. Anyone with the file can read it. `pages` is the address of
    datasets' own pages up to the MFID, for links. With `reproduce`, the command that makes the focus again, the page
    begins with the focus as a `figure` (a data URI), and ends with the command.
    """
    # One function, so that its names do not clash with the browser's.
    script, style = "(async () => {\n" + "".join(map(_resource, SCRIPTS)) + "})();\n", _resource("page.css")
    graph = graph.around(focus)
    names = public_ids(graph)
    drawable = _drawable(graph, focus, names)
    redact = redactor(graph)
    details = [redact(_detail(node)) for node in graph.nodes.values()]
    drawable = masked(drawable, by_name=False) | {"pages": pages, "details": details, "superseded": superseded}
    data = json.dumps(drawable, ensure_ascii=False, separators=(",", ":"))
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{_digest(style)}'; "
        f"script-src 'sha256-{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    from jinja2 import Environment  # a third of the start time of `crucible-lineage lineage`; a tree does not need it

    return (
        Environment(autoescape=True, keep_trailing_newline=True)
        .from_string(_resource("page.html"))
        .render(
            policy=policy,
            title=f"Lineage of {title(graph.node(focus))}" if focus else "Lineage",
            caption=title(graph.node(focus)) if focus else "",
            figure=figure,
            reproduce=reproduce,
            style=style,
            data=base64.b64encode(zlib.compress(data.encode("utf-8", "backslashreplace"), 9)).decode(),
            script=script,
        )
    )


def _drawable(graph: LineageGraph, focus: str | None, names: Mapping[str, str]) -> JsonObject:
    """Return the data for drawing: columns of nodes, and of edges with the numbers of their ends."""
    number_of = {mfid: number for number, mfid in enumerate(graph.nodes)}
    roles = roles_of(graph)
    number_of_roles = {role: number for number, role in enumerate(dict.fromkeys(roles.values()), 1)}
    nodes, edges = graph.nodes.values(), graph.edges.values()
    steps = [declared_step(node.record) for node in nodes]
    number_of_step = {step: number for number, step in enumerate(dict.fromkeys([("", ""), *steps]))}
    return {
        "nodes": {
            **{name: [read(node) for node in nodes] for name, read in _NODE_COLUMNS.items()},
            "id": [names[node.id] for node in nodes],
            "roles": [number_of_roles[roles[node.id]] if node.id in roles else 0 for node in nodes],
            "declared": [number_of_step[step] for step in steps],
        },
        "edges": {
            "source": [number_of[edge.source] for edge in edges],
            "target": [number_of[edge.target] for edge in edges],
            "relationship": [plain(relation_text(edge.relationship)) for edge in edges],
            "note": [plain(note_of(graph, edge)) for edge in edges],
        },
        "focus": number_of[focus] if focus else None,
        "foldBeyond": FOLD_BEYOND,
        "colours": {plain(kind): colour for kind, colour in colours(graph.nodes.values()).items()},
        "badStates": list(STATE_COLOURS),
        "leftOut": sorted(number_of[mfid] for mfid in dispensable(graph, focus)),
    }


def _detail(node: Node) -> JsonObject | None:
    """Return the panel's content for a node; None without a record, or for a hidden node."""
    if node.record is None or node.kind == "hidden":
        return None
    written = provenance(node.record)
    recipe = written.get("recipe")
    is_unknown = node.record.get("timestamp") not in (None, "") and measured_at(node.record) is None
    record = {**node.record, "timestamp": "not known"} if is_unknown else node.record
    return {
        "record": {label: record[key] for key, label in SHOWN.items() if record.get(key) not in (None, "")},
        "thumbnail": thumbnail_in(node.record),
        "metadata": given_metadata(node.record),
        "params": recipe.get("params") if isinstance(recipe, Mapping) else None,
        "files": [{"name": n, "size": size, "sha256": sha256} for n, sha256, size in recorded_files(node.record)],
        "provenance": {key: value for key, value in written.items() if key != "generated"},
    }


def thumbnail_in(record: JsonMapping | None) -> str | None:
    """Return the thumbnail in a record, a data URI; None if there is none."""
    thumbnail = text(mapping(record).get("thumbnail"))
    return thumbnail if _THUMBNAIL.fullmatch(thumbnail) else None


def _resource(name: str) -> str:
    return files("crucible_lineage.lineage").joinpath("assets", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return the hash by which the page's policy allows only its own script and style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
