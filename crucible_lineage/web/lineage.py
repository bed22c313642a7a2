"""The lineage of a dataset: a page with a drawing to explore, and the drawings themselves."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from crucible_lineage.lineage import Edge, LineageGraph
from crucible_lineage.lineage.draw.html import render_html
from crucible_lineage.lineage.draw.svg import render_svg
from crucible_lineage.lineage.records import PROVENANCE_KEY, provenance, used_mfids
from crucible_lineage.queries.graph.fetch import fetch_lineage, with_states
from crucible_lineage.web.reader import Reader
from crucible_lineage.web.rendering import named_mfids, rendered, shown_record

MOST_PICTURES = 40  # up to here, the page includes the pictures of the datasets
MANY = 3_000  # beyond, the page omits metadata, which would take seconds
BRIEF_FIELDS = ("resource_type", "dataset_name", "sample_name", "measurement", "data_type", "sample_type", "project_id")
BRIEF_PROVENANCE = ("status", "registrar", "completed", "step")
# The page has a single script, named by hash in its own policy; the sandbox also gives it its own origin.
FRAMED = "sandbox allow-scripts allow-top-navigation-by-user-activation; frame-ancestors 'self'"
DRAWN = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


# The colours of the drawing on a dark page. A saved drawing keeps its colours, since it may be printed.
DARK = {
    "fill": {
        "#FFFFFF": "#16181B", "#F3F3F3": "#30353C", "#5A5A5A": "#B4B8BE", "#111111": "#EEEEEE", "#7A7A7A": "#9A9FA6",
        "#B34700": "#FF9A5C",
    },
    "stroke": {
        "#FFFFFF": "#16181B", "#6B6B6B": "#9A9FA6", "#9A9A9A": "#6B7077", "#111111": "#EEEEEE", "#7A7A7A": "#9A9FA6",
        "#D55E00": "#FF9A5C",
    },
}  # fmt: skip


def lineage(reader: Reader) -> Response:
    """Show the page around the drawing."""
    mfid = reader.mfid
    found = reader.client.datasets.get(mfid)
    graph = reader.client.graphs.get(mfid, recursive=True)
    return rendered("lineage.html", reader.name, dataset=found, nodes=len(graph["nodes"]), edges=len(graph["edges"]))


def lineage_html(reader: Reader) -> Response:
    """Return the drawing to explore as one file: for a frame, or with `?save` for download."""
    mfid = reader.mfid
    saved_as = _saved_as(reader, mfid, "html")
    graph = _full_lineage(reader, mfid, pictures=True)
    page = render_html(graph, mfid, pages="" if saved_as else "/datasets/")
    headers = {"Content-Security-Policy": FRAMED, "X-Frame-Options": "SAMEORIGIN", **saved_as}
    return Response(page, media_type="text/html", headers=headers)


def lineage_svg(reader: Reader) -> Response:
    """Return the drawing as SVG; with `?near`, only parents and children."""
    mfid = reader.mfid
    graph = (
        _near(reader, mfid) if "near" in reader.request.query_params else _full_lineage(reader, mfid, pictures=False)
    )
    saved_as = _saved_as(reader, mfid, "svg")
    drawn = render_svg(graph, mfid)
    return Response(
        drawn if saved_as else _with_dark_colours(drawn),
        media_type="image/svg+xml",
        headers={"Content-Security-Policy": DRAWN, **saved_as},
    )


def _with_dark_colours(svg: str) -> str:
    """Add colours for dark pages to the drawing."""
    rules = (
        f'[{attribute}="{light}"]{{{attribute}:{dark}}}'
        for attribute, colours in DARK.items()
        for light, dark in colours.items()
    )
    head, end, rest = svg.partition(">")
    return f"{head}{end}<style>@media (prefers-color-scheme: dark) {{{''.join(rules)}}}</style>{rest}"


def _full_lineage(reader: Reader, mfid: str, *, pictures: bool) -> LineageGraph:
    """Return the connected lineage; records of large ones have only what is drawn. NotFoundError if it is missing."""
    reader.client.datasets.get(mfid)
    with reader.sign_in.session() as session:
        few = pictures and len(reader.client.graphs.get(mfid, recursive=True)["nodes"]) <= MOST_PICTURES
        graph = _with_placeholders(fetch_lineage(session, mfid, thumbnails=few))
    if len(graph) <= MANY:
        return graph
    return graph.with_records({node.id: _brief(node.record) for node in graph.nodes.values() if node.record})


def _near(reader: Reader, mfid: str) -> LineageGraph:
    """Return the dataset with its parents and children, with records if they are few."""
    graph = LineageGraph.from_api(reader.client.graphs.get(mfid, recursive=False))
    mfids = (
        [node.id for node in graph.nodes.values() if node.kind == "dataset"] if len(graph) <= MOST_PICTURES else [mfid]
    )
    records = {one: reader.client.datasets.get(one, include_metadata=True).model_dump() for one in mfids}
    with reader.sign_in.session() as session:
        graph = with_states(session, graph.with_records(records))
    return _with_placeholders(graph).around(mfid, 1)


def _with_placeholders(graph: LineageGraph) -> LineageGraph:
    """Add a placeholder without a name for each named parent that is hidden from the reader."""
    records = {node.id: node.record for node in graph.nodes.values() if node.record is not None}
    hidden = {mfid: named_mfids(record) - graph.nodes.keys() for mfid, record in records.items()}
    used = [
        (parent, mfid) for mfid, record in records.items() for parent in used_mfids(record) if parent in hidden[mfid]
    ]
    if not any(hidden.values()):
        return graph
    shown = {mfid: shown_record(record, hidden[mfid]) for mfid, record in records.items()}
    edges = [*graph.edges.values(), *(Edge(parent, child) for parent, child in used)]
    return LineageGraph(graph.nodes.values(), edges).with_records(shown)


def _brief(record: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of a record that the drawing and its search need; the dataset's page has the rest."""
    brief = {key: record[key] for key in BRIEF_FIELDS if record.get(key) is not None}
    recorded = {key: value for key, value in provenance(record).items() if key in BRIEF_PROVENANCE}
    return brief | ({"scientific_metadata": {PROVENANCE_KEY: recorded}} if recorded else {})


def _saved_as(reader: Reader, mfid: str, ending: str) -> dict[str, str]:
    if "save" not in reader.request.query_params:
        return {}
    return {"Content-Disposition": f'attachment; filename="lineage-{mfid}.{ending}"'}
