"""Datasets and samples: their records, metadata, links and graphs; and search for all resources."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from crucible_lineage.server.access import ADMIN, CONTRIBUTOR, EDITOR, VIEWER, require, roles
from crucible_lineage.server.call import AuthenticatedCall, Call
from crucible_lineage.server.database import JsonObject, now
from crucible_lineage.server.http import (
    DatasetBody,
    DatasetPatch,
    Form,
    Json,
    NewSample,
    Offset,
    SamplePatch,
    invalid,
    page,
    refuse,
    short,
)
from crucible_lineage.server.http import Limit as ListLimit
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.records import (
    SELECTS,
    Conditions,
    DatasetQuery,
    Embed,
    Includes,
    Relationship,
    SampleQuery,
    cursor_page,
    embed,
    link_records,
    load,
    names,
    records,
)
from crucible_lineage.server.resources import (
    change,
    choose_owner,
    home_project,
    insert,
    instrument_columns,
    merged,
    named_row,
    read_metadata,
    select,
    touch,
    write_metadata,
    written_metadata,
)
from crucible_lineage.server.schema import DamagedError, intact, require_rows

router = new_router()

Kind = Literal["dataset", "sample"]
COLUMNS = {
    "dataset": ("dataset_name", "measurement", "data_type", "data_format", "session_name", "size"),
    "sample": ("sample_name", "sample_type", "description"),
}
MAX_KEYWORD_CHARACTERS = 500
MAX_KEYWORDS = 1000  # chosen: per dataset

_NEIGHBOURS = """
    SELECT child_id FROM link WHERE parent_id = :start UNION SELECT parent_id FROM link WHERE child_id = :start
    UNION SELECT sample_id FROM association WHERE dataset_id = :start
    UNION SELECT dataset_id FROM association WHERE sample_id = :start UNION SELECT :start
"""
_COMPONENT = """
    WITH RECURSIVE reached(id) AS (
        SELECT :start
        UNION SELECT child_id FROM reached JOIN link ON parent_id = reached.id
        UNION SELECT parent_id FROM reached JOIN link ON child_id = reached.id
        UNION SELECT sample_id FROM reached JOIN association ON dataset_id = reached.id
        UNION SELECT dataset_id FROM reached JOIN association ON sample_id = reached.id)
    SELECT id FROM reached
"""


Words = Annotated[str, Query(min_length=3, max_length=200)]
Limit = Annotated[int, Query(ge=1, le=50)]  # of a search
_NAMES = {
    "dataset": "dataset_name",
    "sample": "sample_name",
    "project": "COALESCE(title, '') || ' ' || project.slug",
    "instrument": "instrument_name || ' ' || COALESCE(instrument_type, '') || ' ' || COALESCE(manufacturer, '')",
}


def _add_search(router: APIRouter, kind: str) -> None:
    """Add the search by name for one kind of resource."""

    @router.get(f"/{kind}s/search", name=f"search_{kind}s")
    def search(
        call: Call, q: Words, limit: Limit = 20, project_id: str | None = None, include_owner: bool = False
    ) -> Json:
        conditions = Conditions("NOT resource.hidden", f"instr(lower({_NAMES[kind]}), lower(:q))", q=q)
        if kind in ("dataset", "sample"):
            conditions.limit_to(call.caller)
        with call.read() as db:
            if project_id is not None:
                conditions.add("resource.project_id = ?", named_row(db, "project", project_id, 422)["id"])
            rows = db.execute(
                f"{SELECTS[kind]} WHERE {conditions} ORDER BY length({_NAMES[kind]}), resource.mfid LIMIT {limit}",
                conditions.values,
            ).fetchall()
            return {"items": records(db, call.caller, kind, rows, Embed(owner=include_owner))}


for _kind in _NAMES:
    _add_search(router, _kind)


@router.get("/resources/metadata/search")
def search_metadata(call: Call, q: Annotated[str, Query(max_length=200)], limit: Limit = 20) -> Json:
    """Return the resources whose metadata contain all of the words, in names or values, the youngest first."""
    words = re.findall(r"\w+", q.lower().replace("_", " "))
    if not words:
        return {"items": []}
    conditions = Conditions("NOT resource.hidden")
    for word in words:
        conditions.add("instr(lower(document), ?)", word)
    conditions.limit_to(call.caller)
    with call.read() as db:
        rows = db.execute(
            f"""SELECT resource.*, user.unique_id AS owner, document, {intact("metadata")} AS is_intact
                FROM metadata JOIN resource USING (id) LEFT JOIN user ON user.id = resource.owner_id
                WHERE {conditions} ORDER BY resource.id DESC LIMIT {limit}""",
            conditions.values,
        ).fetchall()
        named = names(db, [row["id"] for row in rows])
    if damaged := next((row for row in rows if not row["is_intact"]), None):
        raise DamagedError("metadata", damaged["id"])
    return {
        "items": [
            {
                "unique_id": row["mfid"],
                "resource_type": row["type"],
                "name": named[row["id"]]["name"],
                "owner_orcid": row["owner"],
                "creation_time": row["created"],
                "modification_time": row["modified"],
                "rank": 1 / (1 + position),
                "scientific_metadata": json.loads(row["document"]),
            }
            for position, row in enumerate(rows)
        ]
    }


class InstrumentChoice(Form):
    instrument_id: str | None = None
    instrument_mfid: str | None = None


def _add_record_routes(router: APIRouter, kind: Kind, new: type, patch: type, query_type: type) -> None:
    """Add the routes that create, list, read and change datasets, or samples."""

    def create(call: Call, body: Any) -> Json:
        with call.write() as db:
            owner = choose_owner(db, call.caller, body.owner, body.owner_orcid)
            project = home_project(db, call.caller, body.project_id, body.project_mfid)
            values: JsonObject = {name: getattr(body, name) for name in COLUMNS[kind]}
            values["timestamp"] = body.timestamp or now()
            if kind == "dataset":
                values["timed"] = int(body.timestamp is not None)
                values |= instrument_columns(db, body.instrument_name, body.instrument_id, body.instrument_mfid)
            number = insert(
                db, kind, values, mfid=body.unique_id, owner_id=owner, project_id=project, public=body.public
            )
            if body.scientific_metadata:
                write_metadata(db, number, body.scientific_metadata)
            call.add_revision(db, project)
            return load(db, call.caller, kind, number)

    def list_all(call: Call, query: Any) -> Json:
        with call.read() as db:
            project = select(db, "project", query.project_id, query.project_mfid)
            call.add_revision(db, project["id"] if project else None)
            if kind == "dataset" and query.keyword:  # clients that follow the results of a pipeline ask by keyword
                call.add_statements(db)
            return cursor_page(db, call.caller, kind, query)

    def get(call: Call, mfid: str, query: Annotated[Includes, Query()]) -> Json:
        with call.reading(mfid, kind) as (db, row):
            return load(db, call.caller, kind, row["id"], embed(query))

    def change_one(call: Call, mfid: str, body: Any) -> Json:
        changes = body.model_dump(exclude_unset=True)
        if changes.get("timestamp", "") is None:
            raise invalid("body", "timestamp", "cannot be null")
        with call.writing(mfid, EDITOR, kind) as (db, row):
            if kind == "dataset":
                changes = _dataset_changes(db, mfid, changes, load(db, call.caller, kind, row["id"]))
            change(db, kind, row["id"], changes)
            return load(db, call.caller, kind, row["id"])

    create.__annotations__["body"], change_one.__annotations__["body"] = new, patch
    list_all.__annotations__["query"] = Annotated[query_type, Query()]
    router.post(f"/{kind}s", status_code=201, name=f"create_{kind}")(short(create))
    router.get(f"/{kind}s", name=f"list_{kind}s")(list_all)
    router.get(f"/{kind}s/{{mfid}}", name=f"get_{kind}")(short(get))
    router.patch(f"/{kind}s/{{mfid}}", name=f"change_{kind}")(change_one)


def _dataset_changes(db: sqlite3.Connection, mfid: str, changes: JsonObject, current: JsonObject) -> JsonObject:
    """Return the changes of columns; an instrument that is registered has a route of its own."""
    for name in ("instrument_id", "instrument_mfid"):
        if name in changes and changes.pop(name) != current[name]:
            raise invalid("body", name, f"is changed with PUT /datasets/{mfid}/instrument")
    if "instrument_name" in changes and (label := changes.pop("instrument_name")) != current["instrument_name"]:
        changes |= instrument_columns(db, label)
    return {**changes, "timed": 1} if "timestamp" in changes else changes


_add_record_routes(router, "dataset", DatasetBody, DatasetPatch, DatasetQuery)
_add_record_routes(router, "sample", NewSample, SamplePatch, SampleQuery)


@router.get("/datasets/{mfid}/keywords")
def list_keywords(call: Call, mfid: str) -> Json:
    with call.reading(mfid, "dataset") as (db, row):
        rows = db.execute(
            "SELECT attached_keyword.* FROM attached_keyword JOIN keyword ON keyword.id = keyword_id"
            " WHERE dataset_id = ? ORDER BY folded",
            (row["id"],),
        ).fetchall()
        require_rows("attached_keyword", rows)
        return [_keyword_record(keyword) for keyword in rows]


@router.post("/datasets/{mfid}/keywords", status_code=201)
@short
def add_keyword(call: Call, mfid: str, keyword: str) -> Json:
    text = keyword.strip()
    if not text or len(text) > MAX_KEYWORD_CHARACTERS:
        raise invalid("query", "keyword", f"must have 1 to {MAX_KEYWORD_CHARACTERS} characters")
    with call.writing(mfid, CONTRIBUTOR, "dataset") as (db, row):
        return _keyword_record(attach_keyword(db, row["id"], text))


@router.put("/datasets/{mfid}/instrument")
def assign_instrument(call: Call, mfid: str, body: InstrumentChoice) -> Json:
    with call.writing(mfid, EDITOR, "dataset") as (db, row):
        instrument = select(db, "instrument", body.instrument_id, body.instrument_mfid, status=404)
        if instrument is None:
            raise refuse(422, "Name an instrument: instrument_id or instrument_mfid")
        previous = load(db, call.caller, "dataset", row["id"])
        change(db, "dataset", row["id"], {"instrument_id": instrument["id"], "instrument_label": None})
        return {
            "dataset_mfid": mfid,
            "previous_instrument": previous["instrument"],
            "previous_instrument_name": previous["instrument_name"],
            "instrument": load(db, call.caller, "dataset", row["id"])["instrument"],
        }


def attach_keyword(db: sqlite3.Connection, dataset_id: int, keyword: str) -> sqlite3.Row:
    """Attach a keyword to the dataset and return the row; a keyword keeps its first spelling there."""
    folded = keyword.casefold()
    db.execute("INSERT OR IGNORE INTO keyword (folded) VALUES (?)", (folded,))
    (number,) = db.execute("SELECT id FROM keyword WHERE folded = ?", (folded,)).fetchone()
    attached: sqlite3.Row | None = db.execute(
        "SELECT * FROM attached_keyword WHERE dataset_id = ? AND keyword_id = ?", (dataset_id, number)
    ).fetchone()
    if attached is not None:
        return attached
    (count,) = db.execute("SELECT COUNT(*) FROM attached_keyword WHERE dataset_id = ?", (dataset_id,)).fetchone()
    if count >= MAX_KEYWORDS:
        raise refuse(422, f"The dataset has {MAX_KEYWORDS} keywords; it cannot have more")
    touch(db, dataset_id)
    row: sqlite3.Row = db.execute(
        "INSERT INTO attached_keyword (dataset_id, keyword_id, spelling) VALUES (?, ?, ?) RETURNING *",
        (dataset_id, number, keyword),
    ).fetchone()
    return row


def _keyword_record(row: sqlite3.Row) -> Json:
    return {"id": row["id"], "keyword": row["spelling"]}


@router.get("/resources/{mfid}")
def get_resource(call: Call, mfid: str, query: Annotated[Includes, Query()]) -> Json:
    with call.reading(mfid) as (db, row):
        return load(db, call.caller, row["type"], row["id"], embed(query))


@router.get("/resources/{mfid}/links")
def list_links(call: Call, mfid: str) -> Json:
    with call.reading(mfid) as (db, row):
        return link_records(db, call.caller, [row["id"]])[row["id"]]


@router.get("/resources/{mfid}/metadata")
@short
def get_metadata(call: Call, mfid: str) -> Json:
    with call.reading(mfid) as (db, row):
        document = read_metadata(db, row["id"])
        return None if document is None else _wrapped(mfid, document)


@router.patch("/resources/{mfid}/metadata")
@short
def merge_metadata(call: Call, mfid: str, body: JsonObject) -> Json:
    with call.writing(mfid, CONTRIBUTOR) as (db, row):
        return _wrapped(mfid, write_metadata(db, row["id"], merged(written_metadata(db, row["id"]), body)))


@router.post("/resources/{mfid}/metadata", status_code=201)
@short
def replace_metadata(call: Call, mfid: str, body: JsonObject, overwrite: bool = False) -> Json:
    with call.writing(mfid, EDITOR if overwrite else CONTRIBUTOR) as (db, row):
        is_new = read_metadata(db, row["id"]) is None
        if not is_new and not overwrite:
            raise refuse(409, "Scientific metadata already exists; use PATCH to merge or overwrite=true to replace it")
        if not is_new:
            db.execute(  # as after any loss
                "UPDATE revision SET token = lower(hex(randomblob(8))) WHERE project_id = ?", (row["project_id"],)
            )
            db.execute(
                "UPDATE parsed SET document = '{}' WHERE file_id IN (SELECT id FROM file WHERE dataset_id = ?)",
                (row["id"],),
            )
        return _wrapped(mfid, write_metadata(db, row["id"], body))


def _wrapped(mfid: str, document: JsonObject) -> Json:
    return {"unique_id": mfid, "scientific_metadata": document}


class ProjectForm(Form):
    project_id: str | None = None
    project_mfid: str | None = None


@router.post("/resources/{mfid}/project")
def reassign_project(call: Call, mfid: str, body: ProjectForm, confirm: bool = False) -> Json:
    """Move a dataset or sample to another project; without `confirm`, only say what would change."""
    if (body.project_id is None) == (body.project_mfid is None):
        raise refuse(422, "Name exactly one of project_id and project_mfid")
    with call.writing(mfid, ADMIN, ("dataset", "sample")) as (db, row):
        target = select(db, "project", body.project_id, body.project_mfid, status=404)
        assert target is not None
        home_project(db, call.caller, body.project_id, body.project_mfid)
        if confirm:
            db.execute("UPDATE resource SET project_id = ? WHERE id = ?", (target["id"], row["id"]))
            touch(db, row["id"])
        return {"resource_id": mfid, "new_project_id": target["slug"], "new_project_mfid": target["mfid"]}


@router.put("/resources/{mfid}/access/public")
def make_public(call: Call, mfid: str) -> Json:
    _set_public(call, mfid, 1)
    return {"principal_id": "public", "principal_type": "public", "permission": "viewer"}


@router.delete("/resources/{mfid}/access/public")
def make_private(call: Call, mfid: str) -> Json:
    _set_public(call, mfid, 0)
    return {"detail": f"Resource {mfid} is private"}


def _set_public(call: AuthenticatedCall, mfid: str, value: int) -> None:
    with call.writing(mfid, ADMIN, ("dataset", "sample", "instrument")) as (db, row):
        db.execute("UPDATE resource SET public = ? WHERE id = ?", (value, row["id"]))
        touch(db, row["id"])


@router.post("/datasets/{dataset}/samples/{sample}", status_code=201)
def associate(call: Call, dataset: str, sample: str) -> Json:
    with call.write() as db:
        dataset_id = require(db, call.caller, dataset, EDITOR, "dataset")["id"]
        sample_id = require(db, call.caller, sample, VIEWER, "sample")["id"]
        is_new = db.execute(
            "INSERT OR IGNORE INTO association (dataset_id, sample_id) VALUES (?, ?)", (dataset_id, sample_id)
        ).rowcount
        if is_new:
            touch(db, dataset_id)
        return {"dataset_id": dataset, "sample_id": sample}


@router.delete("/datasets/{dataset}/samples/{sample}")
def dissociate(call: Call, dataset: str, sample: str) -> Json:
    with call.write() as db:
        dataset_id = require(db, call.caller, dataset, EDITOR, "dataset")["id"]
        sample_id = require(db, call.caller, sample, VIEWER, "sample")["id"]
        unlinked = db.execute(
            "DELETE FROM association WHERE dataset_id = ? AND sample_id = ?", (dataset_id, sample_id)
        ).rowcount
        if not unlinked:
            raise refuse(404, "The dataset and the sample are not linked")
        touch(db, dataset_id)
        return {"detail": f"Sample {sample} unlinked from dataset {dataset}"}


def _add_family_routes(router: APIRouter, kind: Kind) -> None:
    """Add the same four routes for datasets and for samples."""

    @router.post(f"/{kind}s/{{parent}}/children/{{child}}", status_code=201, name=f"link_{kind}s")
    @short
    def link(call: Call, parent: str, child: str, relationship_type: Relationship | None = None) -> Json:
        with call.write() as db:
            parent_id, child_id = _ends(db, call, kind, parent, child)
            _refuse_cycle(db, parent_id, child_id, parent, child)
            stored = db.execute(
                "INSERT INTO link (parent_id, child_id, relationship_type) VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
                " SET relationship_type = COALESCE(excluded.relationship_type, relationship_type)"
                " RETURNING relationship_type",
                (parent_id, child_id, relationship_type),
            ).fetchone()[0]
            touch(db, child_id)
            return {"parent_id": parent, "child_id": child, "relationship_type": stored}

    @router.delete(f"/{kind}s/{{parent}}/children/{{child}}", name=f"unlink_{kind}s")
    def unlink(call: Call, parent: str, child: str) -> Json:
        with call.write() as db:
            ends = _ends(db, call, kind, parent, child)
            if not db.execute("DELETE FROM link WHERE parent_id = ? AND child_id = ?", ends).rowcount:
                raise refuse(404, f"{child} is not a child of {parent}")
            touch(db, ends[1])
            return {"detail": f"{kind.capitalize()} {child} is no longer a child of {parent}"}

    def related(side: str, near: str, far: str) -> None:
        @router.get(f"/{kind}s/{{mfid}}/{side}", name=f"{kind}_{side}")
        def list_related(
            call: Call,
            mfid: str,
            relationship_type: Relationship | None = None,
            limit: ListLimit = 100,
            offset: Offset = 0,
        ) -> Json:
            conditions = Conditions("NOT resource.hidden")
            conditions.limit_to(call.caller)
            with call.reading(mfid, kind) as (db, row):
                linked = (
                    f"SELECT {far} FROM link WHERE {near} = ? AND relationship_type IS COALESCE(?, relationship_type)"
                )
                conditions.add(f"resource.id IN ({linked})", row["id"], relationship_type)
                rows, total = conditions.page(db, SELECTS[kind], "resource.mfid DESC", limit, offset)
                return page(records(db, call.caller, kind, rows), limit, total, offset)

    related("children", "parent_id", "child_id")
    related("parents", "child_id", "parent_id")


def _ends(db: sqlite3.Connection, call: AuthenticatedCall, kind: str, parent: str, child: str) -> tuple[int, int]:
    """Return both ids. A link states the origin of the child, so it needs the right to edit the child."""
    parent_row = require(db, call.caller, parent, VIEWER, kind)
    child_row = require(db, call.caller, child, EDITOR, kind)
    return parent_row["id"], child_row["id"]


def _refuse_cycle(db: sqlite3.Connection, parent_id: int, child_id: int, parent: str, child: str) -> None:
    if parent_id == child_id:
        raise refuse(422, f"{parent} cannot be its own parent")
    closes_cycle = db.execute(
        """WITH RECURSIVE below(id) AS (
               SELECT child_id FROM link WHERE parent_id = :child
               UNION SELECT child_id FROM link JOIN below ON parent_id = below.id)
           SELECT 1 FROM below WHERE id = :parent""",
        {"child": child_id, "parent": parent_id},
    ).fetchone()
    if closes_cycle:
        raise refuse(
            422, f"Linking {parent} (parent) to {child} (child) would close a cycle: {child} is above {parent}"
        )


_add_family_routes(router, "dataset")
_add_family_routes(router, "sample")


@router.get("/entity_graph_cte/{mfid}")
def entity_graph(call: Call, mfid: str, recursive: bool = False) -> Json:
    """Return the graph of the resource and its neighbours, or of all that it is connected to, in node-link form.

    It has those that the caller may read; edges run from parent to child.
    """
    with call.reading(mfid, ("dataset", "sample")) as (db, row):
        ids = [number for (number,) in db.execute(_COMPONENT if recursive else _NEIGHBOURS, {"start": row["id"]})]
        readable = {number for number, role in roles(db, call.caller, ids).items() if role >= VIEWER}
        named_rows = names(db, readable)
        edges = [
            {"source": named_rows[parent]["mfid"], "target": named_rows[child]["mfid"], "relationship_type": kind}
            for parent, child, kind in _edges(db, readable)
            if parent in readable and child in readable
        ]
    nodes = [
        {
            "id": row["mfid"],
            "entity_type": row["type"],
            "name": row["name"],
            f"{row['type']}_name": row["name"],
            "project_id": row["slug"],
        }
        for _, row in sorted(named_rows.items())
    ]
    return {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, "edges": edges, "links": edges}


def _edges(db: sqlite3.Connection, ids: set[int]) -> Iterator[tuple[int, int, str | None]]:
    rows = db.execute(
        f"""SELECT parent_id, child_id, relationship_type, {intact("link")} FROM link
            WHERE parent_id IN (SELECT value FROM json_each(:ids))
            UNION ALL SELECT sample_id, dataset_id, NULL, {intact("association")} FROM association
            WHERE dataset_id IN (SELECT value FROM json_each(:ids))""",
        {"ids": json.dumps(list(ids))},
    )
    for parent, child, relationship, is_intact in rows:
        if not is_intact:
            raise DamagedError("link", parent)
        yield parent, child, relationship


# ruff: noqa: S608 - SQL is built from constants of this package only; values are always bound
