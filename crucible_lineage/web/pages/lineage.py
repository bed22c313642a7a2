"""The lineage of a dataset: a page around the picture to explore, and the pictures themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from crucible_lineage.lineage import Edge, LineageGraph
from crucible_lineage.lineage.draw.html import render_html
from crucible_lineage.lineage.draw.svg import render_svg
from crucible_lineage.lineage.records import PROVENANCE_KEY, provenance, used_mfids
from crucible_lineage.queries.graph.fetch import fetch_lineage
from crucible_lineage.web.reader import Reader
from crucible_lineage.web.rendering import rendered
from crucible_lineage.web.shown import named_mfids, shown_record

__all__ = ["lineage", "lineage_html", "lineage_svg"]

FEW = 40  # up to here, the page holds the pictures of the datasets too
MANY = 3_000  # from here on, the page holds no metadata: it would take seconds to make
BRIEFLY = ("resource_type", "dataset_name", "sample_name", "measurement", "data_type", "sample_type", "project_id")
TOLD = ("status", "registrar", "completed", "step")  # of the provenance
# The page has one script, its own, and names it by hash in a policy of its own; here it gets an origin of its own too.
FRAMED = "sandbox allow-scripts allow-top-navigation-by-user-activation; frame-ancestors 'self'"
DRAWN = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


def lineage(reader: Reader) -> Response:
    """The page around the picture."""
    mfid = reader.mfid
    found = reader.client.datasets.get(mfid)
    graph = reader.client.graphs.get(mfid, recursive=True)
    return rendered("lineage.html", reader.name, dataset=found, nodes=len(graph["nodes"]), edges=len(graph["edges"]))


def lineage_html(reader: Reader) -> Response:
    """The picture to explore, as one file: shown in a frame, or with `?save` to keep."""
    mfid = reader.mfid
    kept = _kept(reader, mfid, "html")
    graph = _whole(reader, mfid, pictures=True)
    page = render_html(graph, mfid, pages="" if kept else "/datasets/")
    headers = {"Content-Security-Policy": FRAMED, "X-Frame-Options": "SAMEORIGIN", **kept}
    return Response(page, media_type="text/html", headers=headers)


def lineage_svg(reader: Reader) -> Response:
    """The picture as it lies in documents; with `?near`, only the next of kin."""
    mfid = reader.mfid
    graph = _near(reader, mfid) if "near" in reader.request.query_params else _whole(reader, mfid, pictures=False)
    headers = {"Content-Security-Policy": DRAWN, **_kept(reader, mfid, "svg")}
    return Response(render_svg(graph, mfid), media_type="image/svg+xml", headers=headers)


def _whole(reader: Reader, mfid: str, *, pictures: bool) -> LineageGraph:
    """The connected lineage; in large ones, records say no more than is drawn. NotFoundError if there is none."""
    reader.client.datasets.get(mfid)
    with reader.sign_in.session() as session:
        few = pictures and len(reader.client.graphs.get(mfid, recursive=True)["nodes"]) <= FEW
        graph = _with_places(fetch_lineage(session, mfid, thumbnails=few))
    if len(graph) <= MANY:
        return graph
    return graph.with_records({node.id: _brief(node.record) for node in graph.nodes.values() if node.record})


def _near(reader: Reader, mfid: str) -> LineageGraph:
    """The next of kin, described as far as they are few."""
    graph = LineageGraph.from_api(reader.client.graphs.get(mfid, recursive=False))
    asked = [node.id for node in graph.nodes.values() if node.kind == "dataset"] if len(graph) <= FEW else [mfid]
    records = {one: reader.client.datasets.get(one, include_metadata=True).model_dump() for one in asked}
    return _with_places(graph.with_records(records)).around(mfid, 1)


def _with_places(graph: LineageGraph) -> LineageGraph:
    """The graph where each parent that is named, and not visible to the reader, has a place without a name."""
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


def _brief(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the picture and its search need of a record; the rest is on the dataset's page."""
    kept = {key: record[key] for key in BRIEFLY if record.get(key) is not None}
    written = {key: value for key, value in provenance(record).items() if key in TOLD}
    return kept | ({"scientific_metadata": {PROVENANCE_KEY: written}} if written else {})


def _kept(reader: Reader, mfid: str, ending: str) -> dict[str, str]:
    if "save" not in reader.request.query_params:
        return {}
    return {"Content-Disposition": f'attachment; filename="lineage-{mfid}.{ending}"'}
