"""Pages of a dataset: metadata, pictures, files, the commands that correct it; and its lineage."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from crucible_lineage.ask.lineages import fetch_lineage, whole_record_of, with_named_parents, with_states
from crucible_lineage.ask.view import view_of, visible_names
from crucible_lineage.client.models import Dataset, Link, Thumbnail
from crucible_lineage.errors import LineageError
from crucible_lineage.json_types import JsonMapping, mapping, text
from crucible_lineage.lineage.graph import LineageGraph, with_record
from crucible_lineage.lineage.labels import HIDDEN_NAME
from crucible_lineage.lineage.model import Node
from crucible_lineage.lineage.page import render_html
from crucible_lineage.lineage.prov import shareable, with_hidden_parents
from crucible_lineage.lineage.records import provenance, used_mfids
from crucible_lineage.lineage.svg import render_svg
from crucible_lineage.marks import CORRECTIONS_KEY, KEY, SLOTS_KEY
from crucible_lineage.pipeline.plan.corrections import corrections
from crucible_lineage.provenance.record import read_record, unreadable
from crucible_lineage.refs import SHOWN
from crucible_lineage.text.masking import masked
from crucible_lineage.web.reader import Reader
from crucible_lineage.web.rendering import rendered, resource

MOST_FETCHED = 40  # datasets that are named but not linked, and fetched one by one
PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml", "image/bmp"})
PICTURE_HEADERS = {  # a picture must not act as a page in the reader's name
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Cache-Control": "private, max-age=60",
}


def dataset(reader: Reader) -> Response:
    """Show the page of a dataset."""
    found = _dataset(reader)
    mfid = found.unique_id
    links = found.links or []
    with reader.sign_in.session() as session:
        view = view_of(session, found)
    record, damage = found.model_dump(), ""
    try:
        record = dict(whole_record_of(reader.client, mfid, record))
        damage = unreadable(found.scientific_metadata)
    except LineageError as error:  # its complete provenance cannot be read
        damage = str(error)
    shown, known = _shown(reader, record, links)
    recorded = provenance(shown) if read_record(record["scientific_metadata"]) else {}
    elsewhere = {SLOTS_KEY, CORRECTIONS_KEY, *({KEY} if recorded else ())}
    recipe, activity = mapping(recorded.get("recipe")), mapping(recorded.get("activity"))
    used = [entry for entry in recorded.get("used") or () if isinstance(entry, Mapping)]
    used_ids, parents = {entry.get("mfid") for entry in used}, _linked(links, "source")
    folded = {other for mfid, others in view.equal.items() if mfid in used_ids for other in others}
    return rendered(
        "dataset.html",
        reader.name,
        dataset=found,
        view=view,
        entry=view.entry,
        damage=damage,
        pictures=[picture for picture in reader.client.datasets.get_thumbnails(mfid) if _is_shown(picture)],
        keywords=[keyword.keyword for keyword in reader.client.datasets.get_keywords(mfid)],
        files=reader.client.files.list(mfid),
        params=mapping((recipe or recorded).get("params")),
        facts=mapping(recipe.get("facts")),
        metadata={k: v for k, v in mapping(shown.get("scientific_metadata")).items() if k not in elsewhere},
        corrections=corrections(found.scientific_metadata),
        may_correct=bool((found.capabilities or {}).get("can_edit")),
        shown=SHOWN,
        provenance=recorded,
        activity=activity,
        used=used,
        linked={link.unique_id for link in parents},
        names=known,
        hidden_name=HIDDEN_NAME,
        equal=view.equal,
        parents=[link for link in parents if link.unique_id not in used_ids | folded],
        children=_linked(links, "target"),
    )


def metadata(reader: Reader) -> Response:
    """Return the visible scientific metadata as a JSON file."""
    found = _dataset(reader)
    shown, _ = _shown(reader, found.model_dump(), found.links or [])
    values = masked(shown.get("scientific_metadata") or {}, by_name=False)
    headers = {"Content-Disposition": f'attachment; filename="{found.unique_id}-metadata.json"'}
    return Response(json.dumps(values, indent=1, ensure_ascii=False), media_type="application/json", headers=headers)


def thumbnail(reader: Reader) -> Response:
    """Return one of a dataset's pictures; without a number its first, or a placeholder."""
    number = reader.request.path_params.get("number")
    pictures = reader.client.datasets.get_thumbnails(reader.mfid)
    found = [picture for picture in pictures if (_is_shown(picture) if number is None else picture.id == number)]
    if number is not None and not found:
        raise HTTPException(404)
    if not found or not _is_shown(found[0]):
        return Response(resource("no_picture.svg"), media_type="image/svg+xml", headers=PICTURE_HEADERS)
    try:
        content = base64.b64decode(found[0].thumbnail_b64str or "", validate=True)
    except binascii.Error:
        raise HTTPException(404) from None
    return Response(content, media_type=found[0].mime_type or "image/png", headers=PICTURE_HEADERS)


def download(reader: Reader) -> Response:
    """Redirect to the bytes of a file, by a link that is valid for an hour."""
    link = urlsplit(reader.client.files.download_link(reader.mfid))
    own = urlsplit(reader.client.api_url)
    target = f"{link.path}?{link.query}" if link.netloc == own.netloc else link.geturl()
    return RedirectResponse(target, 307)


def _dataset(reader: Reader) -> Dataset:
    return reader.client.datasets.get(reader.mfid, include_metadata=True, include_links=True)


def _shown(reader: Reader, record: JsonMapping, links: list[Link]) -> tuple[JsonMapping, dict[str, str]]:
    """Return the record without the datasets hidden from the reader, and {MFID: name} of those it names otherwise."""
    known = {link.unique_id: link.name or link.unique_id for link in links}
    named = {*used_mfids(record), *filter(None, [text(provenance(record).get("supersedes"))])} - known.keys()
    known |= visible_names(reader.client, sorted(named)[:MOST_FETCHED])
    if not (hidden := named - known.keys()):
        return record, known
    own = with_record(Node(str(record["unique_id"])), record)
    graph = LineageGraph([own, *map(Node, known), *(Node(mfid, "hidden") for mfid in hidden)])
    return shareable(graph).nodes[own.id].record or {}, known


def _linked(links: list[Link], direction: str) -> list[Link]:
    return [link for link in links if link.resource_type == "dataset" and link.direction == direction]


def _is_shown(picture: Thumbnail) -> bool:
    return (picture.mime_type or "image/png") in PICTURES and bool(picture.thumbnail_b64str)


MOST_PICTURES = 40  # up to here, the page includes the pictures of the datasets
# The page has a single script, named by hash in its own policy; the sandbox also gives it its own origin.
FRAMED = "sandbox allow-scripts allow-top-navigation-by-user-activation; frame-ancestors 'self'"
DRAWN = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


def lineage(reader: Reader) -> Response:
    """Show the page around the drawing."""
    mfid = reader.mfid
    found = reader.client.datasets.get(mfid)
    graph = LineageGraph.from_api(reader.client.graphs.get(mfid, recursive=True)).around(mfid)
    return rendered("lineage.html", reader.name, dataset=found, nodes=len(graph), edges=len(graph.edges))


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
    is_near = "near" in reader.request.query_params
    graph = _near(reader) if is_near else _full_lineage(reader, mfid, pictures=False)
    headers = {"Content-Security-Policy": DRAWN, **_saved_as(reader, mfid, "svg")}
    return Response(render_svg(graph, mfid), media_type="image/svg+xml", headers=headers)


def _full_lineage(reader: Reader, mfid: str, *, pictures: bool) -> LineageGraph:
    """Return the connected lineage, with pictures if they are few. Raises NotFoundError if the dataset is missing."""
    reader.client.datasets.get(mfid)
    with reader.sign_in.session() as session:
        few = pictures and len(reader.client.graphs.get(mfid, recursive=True)["nodes"]) <= MOST_PICTURES
        return shareable(with_hidden_parents(with_named_parents(session, fetch_lineage(session, mfid, thumbnails=few))))


def _near(reader: Reader) -> LineageGraph:
    """Return the dataset with its parents and children, with records if they are few."""
    graph = LineageGraph.from_records([_dataset(reader).model_dump()])
    with reader.sign_in.session() as session:
        if len(graph) <= MOST_PICTURES:
            graph = with_named_parents(session, graph)
        graph = with_states(session, graph)
    return shareable(with_hidden_parents(graph)).around(reader.mfid, 1)


def _saved_as(reader: Reader, mfid: str, ending: str) -> dict[str, str]:
    if "save" not in reader.request.query_params:
        return {}
    return {"Content-Disposition": f'attachment; filename="lineage-{mfid}.{ending}"'}
