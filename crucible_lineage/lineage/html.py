"""A lineage as one HTML file that needs no network: to look around in, search, unfold, and read about each dataset."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

from crucible_lineage.lineage.appearance import STATE_COLOURS, colours
from crucible_lineage.lineage.formats import public_ids
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import plain, title
from crucible_lineage.lineage.model import Node
from crucible_lineage.lineage.records import PROVENANCE_KEY, provenance
from crucible_lineage.lineage.view import FOLD_BEYOND

__all__ = ["render_html"]

SCRIPTS = ("fold.js", "arrange.js", "draw.js", "panel.js", "page.js")
_MFID = re.compile(r"[0-9a-hjkmnp-tv-z]{26}")
_THUMBNAIL = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+")
_FIELDS = (  # of a record, as the panel lists them
    "timestamp",
    "creation_time",
    "instrument_name",
    "session_name",
    "data_format",
    "owner_orcid",
    "project_id",
    "description",
)
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<div id="search-box"><input id="search" type="search" placeholder="Search name, MFID, step ( / )" autocomplete="off"
 aria-label="Search" aria-controls="matches"><ul id="matches" hidden></ul></div>
<div id="buttons">
<button id="zoom-out" title="Zoom out ( - )">−</button><button id="zoom-in" title="Zoom in ( + )">+</button>
<button id="fit" title="Show all that is drawn ( 0 )">Fit</button>
<button id="reset" title="Fold everything back">Reset</button>
<button id="theme" title="Dark or light">◐</button>
</div>
</header>
<main><svg id="picture" role="group" aria-label="Lineage, raw data at the left"></svg>
<aside id="panel" tabindex="-1" aria-live="polite" hidden></aside></main>
<footer><span id="legend"></span><span id="status"></span></footer>
<script type="application/json" id="graph">{graph}</script>
<script type="application/json" id="details">{details}</script>
<script>{script}</script>
</body>
</html>
"""


def render_html(
    graph: LineageGraph,
    focus: str | None = None,
    *,
    heading: str = "Lineage",
    fold_beyond: int = FOLD_BEYOND,
    pages: str = "",
) -> str:
    """The page as text. It opens on `focus`, or on everything, with at most forty boxes; the rest unfolds.

    Of each dataset it holds what its record holds: metadata, parameters, files with hashes, provenance, and the
    thumbnail if the record has one as a data URI under `thumbnail`. Who gets the file can read all of it. With `pages`,
    the address of a dataset's own page up to its MFID, it links to those.
    """
    script, style = _script(), _resource("page.css")
    names = public_ids(graph)
    drawable = _drawable(graph, graph.node(focus).id if focus else None, names, fold_beyond)
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{_digest(style)}'; "
        f"script-src 'sha256-{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    return _PAGE.format(
        policy=policy,
        title=escape(plain(heading)),
        style=style,
        graph=_embedded(drawable | {"pages": pages}),
        details=_embedded([_redacted(_detail(node), names) for node in graph.nodes.values()]),
        script=script,
    )


def _drawable(graph: LineageGraph, focus: str | None, names: Mapping[str, str], fold_beyond: int) -> dict[str, Any]:
    """What the page needs to draw: nodes as rows in the order of `fields`, edges by number."""
    number_of = {mfid: number for number, mfid in enumerate(graph.nodes)}
    fields = ("id", "kind", "name", "measurement", "data_type", "state", "step")
    rows = [
        [names[n.id], n.kind, title(n), *(plain(text) for text in (n.measurement, n.data_type, n.state, n.step))]
        for n in graph.nodes.values()
    ]
    return {
        "fields": fields,
        "nodes": rows,
        "edges": [[number_of[e.source], number_of[e.target], plain(e.relationship)] for e in graph.edges.values()],
        "focus": number_of[focus] if focus else None,
        "foldBeyond": fold_beyond,
        "colours": {plain(kind): colour for kind, colour in colours(graph.nodes.values()).items()},
        "badStates": sorted(STATE_COLOURS),
    }


def _detail(node: Node) -> dict[str, Any] | None:
    """What the panel shows of a node, or None where there is no record; nothing of a hidden one."""
    if node.record is None or node.kind == "hidden":
        return None
    written = provenance(node.record)
    recipe = written.get("recipe")
    metadata = node.record.get("scientific_metadata")
    thumbnail = node.record.get("thumbnail")
    return {
        "record": {key: node.record[key] for key in _FIELDS if node.record.get(key) not in (None, "")},
        "thumbnail": thumbnail if isinstance(thumbnail, str) and _THUMBNAIL.fullmatch(thumbnail) else None,
        "metadata": {k: v for k, v in metadata.items() if k != PROVENANCE_KEY} if isinstance(metadata, Mapping) else {},
        "params": recipe.get("params") if isinstance(recipe, Mapping) else None,
        "files": _files(node),
        "provenance": {key: value for key, value in written.items() if key != "generated"},
    }


def _files(node: Node) -> list[dict[str, Any]]:
    listed = provenance(node.record).get("generated") or (node.record or {}).get("files")
    entries = listed if isinstance(listed, list) else []
    return [
        {
            "name": entry.get("name") or entry.get("filename"),
            "size": entry.get("size"),
            "sha256": entry.get("sha256") or entry.get("sha256_hash"),
        }
        for entry in entries
        if isinstance(entry, Mapping)
    ]


def _redacted(value: Any, names: Mapping[str, str]) -> Any:
    """The same value with the ids of hidden nodes replaced by their public names, wherever they stand."""
    if isinstance(value, str):
        return names.get(value) or _MFID.sub(lambda found: names.get(found.group(), found.group()), value)
    if isinstance(value, Mapping):
        return {_redacted(str(key), names): _redacted(inner, names) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(inner, names) for inner in value]
    return value


def _embedded(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or a line of JavaScript."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    for symbol in "<>&\u2028\u2029":
        text = text.replace(symbol, f"\\u{ord(symbol):04x}")
    return text


def _script() -> str:
    """The script files in one function, so that none of their names meets one of the browser's."""
    return "(() => {\n" + "".join(map(_resource, SCRIPTS)) + "})();\n"


def _resource(name: str) -> str:
    return files("crucible_lineage.lineage").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """The hash by which the page's policy allows its own script and style and no other."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
