"""Pages of questions, in the form of all or in a layout of their own; of projects and runs; of datasets and files."""

from __future__ import annotations

import base64
import binascii
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from crucible_lineage.ask.answer import Answer
from crucible_lineage.ask.explain import FACTS_HEADING
from crucible_lineage.ask.lineages import fetch_lineage, whole_record_of, with_named_parents, with_states
from crucible_lineage.ask.listing import Column, Listing, as_table, columns_at, list_datasets
from crucible_lineage.ask.question import MODULES, PAGE, Parameter, Question, find_question, questions_at
from crucible_lineage.ask.view import view_of, visible_names
from crucible_lineage.client.models import Dataset, Link, Project, Thumbnail
from crucible_lineage.core.tables import EVERYTHING
from crucible_lineage.errors import InputError, LineageError
from crucible_lineage.ids import is_mfid
from crucible_lineage.json_types import JsonMapping, mapping, text
from crucible_lineage.lineage.graph import LineageGraph, with_record
from crucible_lineage.lineage.labels import HIDDEN_NAME, csv_text, plain, value_text
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
from crucible_lineage.web.rendering import Reader, mfids_in, redacted, rendered, resource

PER_PAGE = 50
MOST_LINES = 1000  # of an answer on one page
MOST_CELL = 200  # characters


def projects(reader: Reader) -> Response:
    """Show all projects that the reader's key can see."""
    return rendered("projects.html", reader.name, projects=reader.client.projects.list())


def datasets(reader: Reader) -> Response:
    """Show a page of the matching datasets of a project, or of all projects and of those without one."""
    project = _scope(reader)
    words = reader.parameter("q")
    if words and is_mfid(words):
        return RedirectResponse(f"/datasets/{words}", 303)
    found = _listing(reader, project)
    first, pages = _page(reader, len(found))
    query = {name: value for name, value in reader.query.items() if name != "page"}
    columns, sort = _columns(project), query.get("sort", "")
    orders = {column.name: (column.name, "none") for column in columns if column.name != "results"}
    if sort.removeprefix("-") in orders:  # a click on the current order reverses it
        orders[sort.removeprefix("-")] = (sort[1:], "descending") if sort[0] == "-" else (f"-{sort}", "ascending")
    return rendered(
        "browse.html",
        reader.name,
        project=project,
        here=f"/projects/{quote(project.project_id, safe='')}" if project else "",
        query=query,
        entries=found.entries[first : first + PER_PAGE],
        total=len(found),
        others=sorted(found.others.items()),
        page=reader.page,
        pages=pages,
        columns=columns,
        orders=orders,
    )


def datasets_csv(reader: Reader) -> Response:
    """Return all matching datasets of a project, or of all, as CSV."""
    project = _scope(reader)
    names, rows = as_table(_listing(reader, project).entries)
    name = f"{project.project_id if project else 'datasets'}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(csv_text(names, rows), media_type="text/csv; charset=utf-8", headers=headers)


def _scope(reader: Reader) -> Project | None:
    """Return the project in the address; None for the addresses of all datasets."""
    return reader.project if "project" in reader.request.path_params else None


def _listing(reader: Reader, project: Project | None) -> Listing:
    """Return the datasets that the query selects, the newest first unless it names an order."""
    with reader.sign_in.session() as session:
        return list_datasets(
            session,
            project.project_id if project else EVERYTHING,
            step=reader.parameter("step"),
            pipeline=reader.parameter("pipeline"),
            run=(run := reader.parameter("run")),
            words=reader.parameter("q") or "",
            where=reader.parameter("where"),
            sort=reader.parameter("sort") or "-created",
            every=run is not None or reader.parameter("all") is not None,
        )


def _page(reader: Reader, total: int, per_page: int = PER_PAGE) -> tuple[int, int]:
    """Return the number of the first entry shown, and that of pages. Raises InputError without such a page."""
    pages = max(1, -(-total // per_page))
    if not 1 <= reader.page <= pages:
        raise InputError(f"there is no page {reader.page}; there are {pages}")
    return (reader.page - 1) * per_page, pages


def _columns(project: Project | None) -> list[Column]:
    return [column for column in columns_at(PAGE) if not (project and column.name == "project")]


def questions(reader: Reader) -> Response:
    """Show the questions that have a page."""
    return rendered("questions.html", reader.name, questions=questions_at(PAGE))


def question(reader: Reader) -> Response:
    """Show the question in the address: a form with its parameters, and the answer for those that are given."""
    name = str(reader.request.path_params["question"])
    asked = find_question(name) if name in MODULES else None
    if asked is None or PAGE not in asked.doors:
        raise HTTPException(404)
    return _answered(reader, asked, "ask.html", {"all": True} if name == "status" else {})  # of all machines


def page_of(name: str, template: str, **fixed: object) -> Callable[[Reader], Response]:
    """Return the view of a question in a layout of its own. Some parameters may be fixed."""
    return lambda reader: _answered(reader, find_question(name), template, fixed)


def _answered(reader: Reader, asked: Question, template: str, fixed: Mapping[str, object]) -> Response:
    """Answer what is given; show only the form if more is needed, and what is wrong with it."""
    fields, project = asked.parameters_at(PAGE), _scope(reader)
    given = {**_given(reader, fields, project), **fixed}
    page = partial(rendered, template, reader.name, asked=asked, fields=fields, query=reader.query, project=project)
    try:
        if any(parameter.is_required and parameter.name not in given for parameter in fields):
            return page()
        asked.require(asked.named(given))
    except InputError as problem:
        return page(problem=str(problem) if given else "")
    with reader.sign_in.session() as session:
        try:
            answer = asked(session, **given)
        except InputError as error:
            return page(400, problem=str(error))
        lines = [] if answer.table() else [*map(plain, answer.lines())]
    if reader.parameter("as") != "json":
        return page(answer=answer, **_shown(reader, answer, lines))
    document = json.dumps(masked(answer.to_json(), by_name=False), indent=1)
    if _hidden(reader, answer, [[document]]):
        return page(403, problem="As JSON, the answer would name datasets that this key cannot see.")
    return Response(document, media_type="application/json")


def _given(reader: Reader, fields: Sequence[Parameter], project: Project | None) -> dict[str, object]:
    """Return what the query and the address give, by the names of parameters."""
    found: dict[str, object] = {}
    for parameter in fields:
        if texts := [text for text in reader.request.query_params.getlist(parameter.name) if text.strip()]:
            found[parameter.name] = parameter.read(texts)
        if project and parameter.name == "project":
            found["project"] = (project.project_id,) if parameter.is_list else project.project_id
    return found


def _shown(reader: Reader, answer: Answer, lines: Sequence[str]) -> dict[str, Any]:
    """Return a page of an answer's rows, or of its lines, without what the reader cannot see."""
    names, rows = answer.table() or ((), [[line] for line in lines])
    hidden = _hidden(reader, answer, rows)
    shown = [
        ["" if cell is None else redacted(value_text(cell, MOST_CELL), hidden) for cell in row]
        for row in (_without_facts(rows) if hidden else rows)
    ]
    per_page = PER_PAGE if names else MOST_LINES
    first, pages = _page(reader, len(shown), per_page)
    return {
        "picture": "" if hidden else answer.picture, "names": names, "rows": shown[first : first + per_page],
        "total": len(shown), "first": first, "pages": pages, "page": reader.page,
        "more": len(shown) - first - per_page, "redact": partial(redacted, hidden=hidden), "hidden_name": HIDDEN_NAME,
        "counts": Counter(finding.severity for finding in getattr(answer, "findings", ())),
    }  # fmt: skip


def _hidden(reader: Reader, answer: Answer, rows: Iterable[Iterable[object]]) -> set[str]:
    """Return the datasets that an answer names, or its records, and that this reader cannot see."""
    named = {mfid for row in rows for cell in row for mfid in mfids_in(str(cell))}
    named.difference_update(answer.not_datasets)
    return {*answer.hidden, *(named - visible_names(reader.client, sorted(named)).keys())}


def _without_facts(rows: Sequence[Sequence[object]]) -> list[Sequence[object]]:
    """Return the lines without facts about parents, which name those that are hidden."""
    shown, is_told = list[Sequence[object]](), True
    for row in rows:
        line = str(row[0]) if len(row) == 1 else ""
        is_told = line != FACTS_HEADING and (is_told or not line)
        if is_told and not line.startswith("  facts."):
            shown.append(row)
    return shown


MOST_FETCHED = 40  # datasets that are named but not linked, and fetched one by one
PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml", "image/bmp"})
DRAWN = "default-src 'none'; style-src 'unsafe-inline'; sandbox"  # a picture must not act as a page in a reader's name
PICTURE_HEADERS = {"Content-Security-Policy": DRAWN, "Cache-Control": "private, max-age=60"}


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
    shown, known = _visible(reader, record, links)
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
    shown, _ = _visible(reader, found.model_dump(), found.links or [])
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


def _visible(reader: Reader, record: JsonMapping, links: list[Link]) -> tuple[JsonMapping, dict[str, str]]:
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
