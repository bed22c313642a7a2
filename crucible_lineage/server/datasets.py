"""Datasets and samples: their records, metadata, links and graphs; and search for all resources."""

from __future__ import annotations

import re
from functools import partial
from sqlite3 import Row
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, create_model

from crucible_lineage.server.call import Call
from crucible_lineage.server.database import STATEMENTS, JsonObject, Transaction, now
from crucible_lineage.server.files import new_request
from crucible_lineage.server.http import (
    Count,
    Form,
    Json,
    Moment,
    Page,
    Refusal,
    Text,
    delete,
    get,
    invalid,
    patch,
    post,
    put,
)
from crucible_lineage.server.records import (
    FIELDS,
    NAMES,
    Conditions,
    Includes,
    cursor_page,
    edges,
    file_record,
    link_records,
    list_query,
    load,
    names,
    records,
)
from crucible_lineage.server.resources import (
    ADMIN,
    CONTRIBUTOR,
    DOCUMENTS,
    EDITOR,
    NONE,
    READABLE,
    VIEWER,
    change,
    choose_owner,
    home_project,
    insert,
    instrument_columns,
    merged,
    metadata_of,
    require,
    roles,
    select,
    write_metadata,
    written_metadata,
)
from crucible_lineage.server.schema import LOSE
from crucible_lineage.server.uploads import GivenFile, keep_given

# ruff: noqa: S608 - SQL is built from constants of this package only; values are always bound

Keyword = Annotated[str, AfterValidator(str.strip), Field(min_length=1, max_length=500)]
_ATTACHED = "INSERT OR IGNORE INTO keyword (dataset_id, folded, spelling) VALUES (?, ?, ?)"
Relationship = Literal["is_derived_from", "is_part_of"]

_COMPONENT = """
    WITH RECURSIVE reached(id) AS (
        SELECT :start
        UNION SELECT child_id FROM reached JOIN link ON parent_id = reached.id
        UNION SELECT parent_id FROM reached JOIN link ON child_id = reached.id)
    SELECT id FROM reached
"""

_BELOW = """
    WITH RECURSIVE below(id) AS (
        SELECT child_id FROM link WHERE parent_id = ?
        UNION SELECT child_id FROM link JOIN below ON parent_id = below.id)
    SELECT id FROM below
"""
Words = Annotated[str, Field(min_length=3, max_length=200)]
Hits = Annotated[int, Field(ge=1, le=50)]
_NAME = "COALESCE(dataset_name, sample_name, instrument_name, title, '') || ' ' || COALESCE(slug, '')"


def _add_search(kind: str) -> None:
    """Add the search by name for one kind of resource."""

    @get(f"/{kind}s/search")
    def search(call: Call, db: Transaction, q: Words, limit: Hits = 20, project_id: str | None = None) -> Json:
        conditions = Conditions("SELECT * FROM resource", "type = :kind", "NOT hidden", kind=kind)
        conditions.add(f"instr(lower({_NAME}), lower(?))", q)
        if kind in ("dataset", "sample"):
            conditions.limit_to(call.caller)
        if project_id is not None:
            project = select(db, "project", project_id, None)
            conditions.equal({"project_id": project and project["id"]})
        return {"items": records(db, call.caller, conditions.rows(db, f"length({_NAME}), mfid", limit))}


for _kind in NAMES:
    _add_search(_kind)


@get("/resources/metadata/search")
def search_metadata(call: Call, db: Transaction, q: Annotated[str, Field(max_length=200)], limit: Hits = 20) -> Json:
    """Return the resources whose metadata contain all of the words, in names or values, the youngest first."""
    words = re.findall(r"\w+", q.lower().replace("_", " "))
    if not words:
        return {"items": []}
    conditions = Conditions("SELECT id FROM resource", "NOT hidden")
    for word in words:
        conditions.add(f"instr(lower({DOCUMENTS}), ?)", word)
    conditions.limit_to(call.caller)
    ids = [row["id"] for row in conditions.rows(db, "id DESC", limit)]
    about, found = names(db, ids), metadata_of(db, ids)
    ranked = ({"rank": 1 / (1 + place), "scientific_metadata": found[number]} for place, number in enumerate(ids))
    return {"items": [{**about[number], **more} for number, more in zip(ids, ranked, strict=True)]}


class _New(BaseModel, defer_build=True):
    unique_id: str | None = None
    public: bool = False
    owner: str | None = None
    owner_orcid: str | None = None
    project_id: str | None = None
    project_mfid: str | None = None
    timestamp: Moment | None = None
    scientific_metadata: dict[str, object] | None = None
    keywords: list[Keyword] = []
    parents: list[str] = []
    files: list[GivenFile] = []


def _insert(call: Call, db: Transaction, kind: str, body: Any, files: list[Row], requests: list[JsonObject]) -> int:
    """Create a dataset or sample with all that is given of it; add its files and the requests to ingest them."""
    owner = choose_owner(db, call.caller, body.owner, body.owner_orcid)
    project = home_project(db, call.caller, body.project_id, body.project_mfid)
    values: JsonObject = body.model_dump(exclude=set(_New.model_fields))
    values |= {"timestamp": body.timestamp or now(), "project_id": project and project["id"], "public": body.public}
    if kind == "dataset":
        named = [values.pop(name) for name in ("instrument_name", "instrument_id", "instrument_mfid")]
        values |= instrument_columns(db, *named)
    parents = [require(db, call.caller, parent, VIEWER, kind)["id"] for parent in dict.fromkeys(body.parents)]
    number = insert(db, kind, body.unique_id, owner, values)
    if body.scientific_metadata:
        write_metadata(db, number, body.scientific_metadata)
    for keyword in body.keywords:
        db.execute(_ATTACHED, (number, keyword.casefold(), keyword))
    for parent in parents:  # a new dataset has no children, and so closes no cycle
        db.add("link", parent_id=parent, child_id=number, relationship_type="is_derived_from")
    call.add_revision(db, project)
    for file in body.files:
        files.append(keep_given(db, call, number, file))
        if file.ingest:
            requests.append(new_request(db, files[-1]["id"], "requested", file.ingestor))
    return number


def _add_record_routes(kind: str) -> None:
    """Add the routes that create, list and change datasets, or samples."""
    fields: dict[str, Any] = {name: (Text | None, None) for name in FIELDS[kind] if name not in ("timestamp", "size")}
    changeable: dict[str, Any] = {"timestamp": (Moment | None, None), **fields}
    chosen: dict[str, Any] = {}
    if kind == "dataset":
        fields["instrument_name"] = changeable["instrument_name"] = (Text | None, None)
        chosen = dict.fromkeys(("instrument_id", "instrument_mfid"), (str | None, None))
        chosen["size"] = (Count | None, None)  # later, that of its files

    def create(call: Call, body: Any) -> Json:
        files, requests = list[Row](), list[JsonObject]()
        with call.write() as db:
            number, *_ = [_insert(call, db, kind, new, files, requests) for new in (body, *body.more)]
            made = load(db, call.caller, number)
        if requests:
            call.service.wake()
        given = {"files": list(map(file_record, files)), "ingestion_requests": requests} if files else {}
        return {**made, **given}

    def list_all(call: Call, db: Transaction, query: Any) -> Json:
        project = select(db, "project", query.project_id, query.project_mfid)
        call.add_revision(db, project)
        if kind == "dataset" and query.keyword:  # clients that follow the results of a pipeline ask by keyword
            readable = "1" if call.caller.elevated else READABLE
            (token,) = db.execute(f"{STATEMENTS} AND {readable}", {"user": call.caller.id}).fetchone()
            call.headers["Crucible-Statements"] = token  # another one when those that the caller may read change
        return cursor_page(db, call.caller, kind, query)

    def change_one(call: Call, db: Transaction, row: Row, body: Any) -> Json:
        changes = body.model_dump(exclude_unset=True)
        if changes.get("timestamp", "") is None:
            raise invalid("body", "timestamp", "cannot be null")
        if "instrument_name" in changes:
            label, current = changes.pop("instrument_name"), load(db, call.caller, row["id"])["instrument_name"]
            changes |= instrument_columns(db, label) if label != current else {}
        change(db, row["id"], changes)
        return load(db, call.caller, row["id"])

    new: Any = create_model(f"new_{kind}", __base__=_New, **fields, **chosen)
    others: Any = (list[new], Field(default=[], exclude=True))  # created in the same transaction
    create.__annotations__["body"] = create_model(f"new_{kind}s", __base__=new, more=others)
    change_one.__annotations__["body"] = create_model(f"{kind}_patch", __base__=Form, **changeable)
    list_all.__annotations__["query"] = list_query(kind)
    post(f"/{kind}s", 201)(create)
    get(f"/{kind}s")(list_all)
    patch(f"/{kind}s/{{mfid}}", of=kind, role=EDITOR)(change_one)
    _add_relatives(kind, "children", "parent_id", "child_id")
    _add_relatives(kind, "parents", "child_id", "parent_id")
    _add_links(f"/{kind}s/{{parent}}/children/{{child}}", kind, kind)


def _add_relatives(kind: str, side: str, near: str, far: str) -> None:
    """Add the list of children, or of parents."""
    linked = f"{near} = ? AND relationship_type IS COALESCE(?, relationship_type)"

    @get(f"/{kind}s/{{mfid}}/{side}", of=kind)
    def list_related(
        call: Call, db: Transaction, row: Row, query: Page, relationship_type: Relationship | None = None
    ) -> Json:
        related = f"resource.id IN (SELECT {far} FROM link WHERE {linked})"
        conditions = Conditions("SELECT * FROM resource", "type = :kind", "NOT hidden", kind=kind)
        conditions.add(related, row["id"], relationship_type)
        conditions.limit_to(call.caller)
        return conditions.page(db, "mfid DESC", query, partial(records, db, call.caller))


def _add_links(path: str, parent_kind: str, child_kind: str) -> None:
    """Add the routes that link and unlink. A link states the origin of the child: it needs the right to edit it."""

    def ends(db: Transaction, call: Call, parent: str, child: str) -> tuple[int, int]:
        parent_row = require(db, call.caller, parent, VIEWER, parent_kind)
        return parent_row["id"], require(db, call.caller, child, EDITOR, child_kind)["id"]

    @post(path, 201, is_short=True)
    def link(
        call: Call, db: Transaction, parent: str, child: str, relationship_type: Relationship | None = None
    ) -> Json:
        parent_id, child_id = ends(db, call, parent, child)
        if parent_id == child_id:
            raise Refusal(422, f"{parent} cannot be its own parent")
        if (parent_id,) in map(tuple, db.execute(_BELOW, (child_id,))):
            raise Refusal(
                422, f"Linking {parent} (parent) to {child} (child) would close a cycle: {child} is above {parent}"
            )
        linked = (
            "INSERT INTO link (parent_id, child_id, relationship_type) VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET relationship_type = excluded.relationship_type"
            " WHERE relationship_type IS NOT COALESCE(excluded.relationship_type, relationship_type)"
        )
        if db.execute(linked, (parent_id, child_id, relationship_type)).rowcount:
            change(db, child_id)
        (stored,) = db.execute(
            "SELECT relationship_type FROM link WHERE parent_id = ? AND child_id = ?", (parent_id, child_id)
        ).fetchone()
        return {"parent_id": parent, "child_id": child, "relationship_type": stored}

    @delete(path)
    def unlink(call: Call, db: Transaction, parent: str, child: str) -> Json:
        linked = ends(db, call, parent, child)
        if not db.execute("DELETE FROM link WHERE parent_id = ? AND child_id = ?", linked).rowcount:
            raise Refusal(404, f"{child} is not linked to {parent}")
        change(db, linked[1])
        return {"detail": f"{child} is no longer linked to {parent}"}


_add_record_routes("dataset")
_add_record_routes("sample")
_add_links("/datasets/{child}/samples/{parent}", "sample", "dataset")


@get("/datasets/{mfid}/keywords", of="dataset")
def list_keywords(db: Transaction, row: Row) -> Json:
    rows = db.execute("SELECT * FROM keyword WHERE dataset_id = ? ORDER BY folded", (row["id"],))
    return list(map(_keyword_record, rows))


def _keyword_record(row: Row) -> Json:
    return {"id": row["id"], "keyword": row["spelling"]}


@post("/datasets/{mfid}/keywords", 201, of="dataset", role=CONTRIBUTOR, is_short=True)
def add_keyword(db: Transaction, row: Row, keyword: Keyword) -> Json:
    """Attach a keyword; one that the dataset has keeps its first spelling."""
    if db.execute(_ATTACHED, (row["id"], keyword.casefold(), keyword)).rowcount:
        change(db, row["id"])
    attached = db.first("SELECT * FROM keyword WHERE dataset_id = ? AND folded = ?", row["id"], keyword.casefold())
    return attached and _keyword_record(attached)


@put("/datasets/{mfid}/instrument", of="dataset", role=EDITOR)
def assign_instrument(
    call: Call, db: Transaction, row: Row, body: dict[Literal["instrument_id", "instrument_mfid"], str | None]
) -> Json:
    instrument = select(db, "instrument", body.get("instrument_id"), body.get("instrument_mfid"), status=404)
    if instrument is None:
        raise Refusal(422, "Name an instrument: instrument_id or instrument_mfid")
    previous = load(db, call.caller, row["id"])
    change(db, row["id"], {"instrument_id": instrument["id"], "instrument_label": None})
    return {
        "dataset_mfid": row["mfid"],
        "previous_instrument": previous["instrument"],
        "previous_instrument_name": previous["instrument_name"],
        "instrument": load(db, call.caller, row["id"])["instrument"],
    }


def get_record(call: Call, db: Transaction, row: Row, query: Includes) -> Json:
    """Return the record of a resource. Everybody may know that a project or instrument exists."""
    call.add_revision(db, row if row["type"] == "project" else None)
    return load(db, call.caller, row["id"], query)


get("/resources/{mfid}")(get_record)
for _kind in NAMES:
    get(f"/{_kind}s/{{mfid}}", of=_kind, role=NONE if _kind == "project" else VIEWER, is_short=True)(get_record)


@get("/resources/{mfid}/links")
def list_links(call: Call, db: Transaction, row: Row) -> Json:
    return link_records(db, call.caller, [row["id"]])[row["id"]]


@get("/resources/{mfid}/metadata", is_short=True)
def get_metadata(db: Transaction, row: Row) -> Json:
    document = metadata_of(db, [row["id"]]).get(row["id"])
    return None if document is None else {"unique_id": row["mfid"], "scientific_metadata": document}


@patch("/resources/{mfid}/metadata", role=CONTRIBUTOR, is_short=True)
def merge_metadata(db: Transaction, row: Row, body: JsonObject) -> Json:
    write_metadata(db, row["id"], merged(written_metadata(db, row["id"]), body))
    change(db, row["id"])
    return get_metadata(db, row)


@post("/resources/{mfid}/metadata", 201, role=CONTRIBUTOR, is_short=True)
def replace_metadata(call: Call, db: Transaction, row: Row, body: JsonObject, overwrite: bool = False) -> Json:
    if overwrite:
        require(db, call.caller, row["mfid"], EDITOR)
    if metadata_of(db, [row["id"]]):
        if not overwrite:
            raise Refusal(409, "Scientific metadata already exists; use PATCH to merge or overwrite=true to replace it")
        db.execute(f"{LOSE}?", (row["project_id"],))
        found = "UPDATE parsed SET document = '{}' WHERE file_id IN (SELECT id FROM file WHERE dataset_id = ?)"
        db.execute(found, (row["id"],))
    write_metadata(db, row["id"], body)
    change(db, row["id"])
    return get_metadata(db, row)


@post("/resources/{mfid}/project", of=("dataset", "sample"), role=ADMIN)
def reassign_project(
    call: Call,
    db: Transaction,
    row: Row,
    body: dict[Literal["project_id", "project_mfid"], str | None],
    confirm: bool = False,
) -> Json:
    """Move a dataset or sample to another project; without `confirm`, only say what would change."""
    target = home_project(db, call.caller, body.get("project_id"), body.get("project_mfid"))
    if target is None:
        raise Refusal(422, "Name a project: project_id or project_mfid")
    if confirm:
        change(db, row["id"], {"project_id": target["id"]})
    return {"resource_id": row["mfid"], "new_project_id": target["slug"], "new_project_mfid": target["mfid"]}


@put("/resources/{mfid}/access/public", of=("dataset", "sample", "instrument"), role=ADMIN)
def make_public(db: Transaction, row: Row) -> Json:
    change(db, row["id"], {"public": 1})
    return {"principal_id": "public", "principal_type": "public", "permission": "viewer"}


@delete("/resources/{mfid}/access/public", of=("dataset", "sample", "instrument"), role=ADMIN)
def make_private(db: Transaction, row: Row) -> Json:
    change(db, row["id"], {"public": 0})
    return {"detail": f"Resource {row['mfid']} is private"}


@get("/entity_graph_cte/{mfid}", of=("dataset", "sample"))
def entity_graph(call: Call, db: Transaction, row: Row, recursive: bool = False) -> Json:
    """Return the graph of the resource and its neighbours, or of all that it is connected to, in node-link form.

    It has those that the caller may read; edges run from parent to child.
    """
    ids = {row["id"]}.union(*edges(db, [row["id"]]))
    if recursive:
        ids = {number for (number,) in db.execute(_COMPONENT, {"start": row["id"]})}
    seen = names(db, (number for number, role in roles(db, call.caller, ids).items() if role >= VIEWER))
    shown = [
        {"source": seen[parent]["unique_id"], "target": seen[child]["unique_id"], "relationship_type": kind}
        for (parent, child), kind in edges(db, seen).items()
        if parent in seen and child in seen
    ]
    nodes = [
        {**end, "id": end["unique_id"], "entity_type": (kind := end["resource_type"]), f"{kind}_name": end["name"]}
        for _, end in sorted(seen.items())
    ]
    return {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, "edges": shown, "links": shown}
