"""Datasets and samples: their records, metadata, links and graphs; and search for all resources."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from crucible_lineage.server.access import ADMIN, CONTRIBUTOR, EDITOR, VIEWER, require, roles
from crucible_lineage.server.call import Call
from crucible_lineage.server.database import JsonObject, now
from crucible_lineage.server.http import (
    Count,
    Form,
    Json,
    Limit,
    Moment,
    Offset,
    Refusal,
    Text,
    delete,
    get,
    invalid,
    page,
    patch,
    post,
    put,
)
from crucible_lineage.server.records import (
    FIELDS,
    SELECTS,
    Conditions,
    Includes,
    cursor_page,
    edges,
    link_records,
    list_query,
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
from crucible_lineage.server.schema import LOSE

# ruff: noqa: S608 - SQL is built from constants of this package only; values are always bound

MAX_KEYWORD_CHARACTERS = 500
MAX_KEYWORDS = 1000  # chosen: per dataset
Relationship = Literal["is_derived_from", "is_part_of"]  # also in the CHECK of schema.py

_COMPONENT = """
    WITH RECURSIVE reached(id) AS (
        SELECT :start
        UNION SELECT child_id FROM reached JOIN link ON parent_id = reached.id
        UNION SELECT parent_id FROM reached JOIN link ON child_id = reached.id
        UNION SELECT sample_id FROM reached JOIN association ON dataset_id = reached.id
        UNION SELECT dataset_id FROM reached JOIN association ON sample_id = reached.id)
    SELECT id FROM reached
"""

Words = Annotated[str, Field(min_length=3, max_length=200)]
Hits = Annotated[int, Field(ge=1, le=50)]
_NAMES = {
    "dataset": "dataset_name",
    "sample": "sample_name",
    "project": "COALESCE(title, '') || ' ' || slug",
    "instrument": "instrument_name || ' ' || COALESCE(instrument_type, '') || ' ' || COALESCE(manufacturer, '')",
}


def _add_search(kind: str) -> None:
    """Add the search by name for one kind of resource."""

    @get(f"/{kind}s/search")
    def search(
        call: Call, q: Words, limit: Hits = 20, project_id: str | None = None, include_owner: bool = False
    ) -> Json:
        conditions = Conditions("NOT hidden", f"instr(lower({_NAMES[kind]}), lower(:q))", q=q)
        if kind in ("dataset", "sample"):
            conditions.limit_to(call.caller)
        with call.read() as db:
            if project_id is not None:
                conditions.add("project_id = ?", named_row(db, "project", project_id, 422)["id"])
            rows = conditions.rows(db, SELECTS[kind], f"length({_NAMES[kind]}), mfid", limit)
            return {"items": records(db, call.caller, kind, rows, Includes(include_owner=include_owner))}


for _kind in _NAMES:
    _add_search(_kind)


@get("/resources/metadata/search")
def search_metadata(call: Call, q: Annotated[str, Field(max_length=200)], limit: Hits = 20) -> Json:
    """Return the resources whose metadata contain all of the words, in names or values, the youngest first."""
    words = re.findall(r"\w+", q.lower().replace("_", " "))
    if not words:
        return {"items": []}
    conditions = Conditions("NOT resource.hidden")
    for word in words:
        conditions.add("instr(lower(document), ?)", word)
    conditions.limit_to(call.caller)
    with call.read() as db:
        rows = conditions.rows(
            db,
            "SELECT resource.*, metadata.*, user.unique_id AS owner FROM metadata JOIN resource USING (id)"
            " LEFT JOIN user ON user.id = resource.owner_id",
            "resource.id DESC",
            limit,
        )
        named = names(db, [row["id"] for row in rows])
    return {
        "items": [
            {
                **{name: named[row["id"]][name] for name in ("unique_id", "resource_type", "name")},
                "owner_orcid": row["owner"],
                "creation_time": row["created"],
                "modification_time": row["modified"],
                "rank": 1 / (1 + position),
                "scientific_metadata": json.loads(row["document"]),
            }
            for position, row in enumerate(rows)
        ]
    }


class _New(BaseModel):
    unique_id: str | None = None
    public: bool = False
    owner: str | None = None
    owner_orcid: str | None = None
    project_id: str | None = None
    project_mfid: str | None = None
    timestamp: Moment | None = None
    scientific_metadata: dict[str, object] | None = None


class _Patch(Form):
    timestamp: Moment | None = None


class ProjectForm(Form):
    project_id: str | None = None
    project_mfid: str | None = None


class InstrumentForm(Form):
    instrument_id: str | None = None
    instrument_mfid: str | None = None


def _add_record_routes(kind: str) -> None:
    """Add the routes that create, list, read, change and link datasets, or samples."""
    fields: dict[str, Any] = {name: (Text | None, None) for name in FIELDS[kind] if name not in ("timestamp", "size")}
    if kind == "dataset":
        chosen = {"instrument_name": (Text | None, None), "instrument_id": (str | None, None)}
        fields |= {**chosen, "instrument_mfid": (str | None, None)}

    def create(call: Call, body: Any) -> Json:
        with call.write() as db:
            owner = choose_owner(db, call.caller, body.owner, body.owner_orcid)
            project = home_project(db, call.caller, body.project_id, body.project_mfid)
            values: JsonObject = body.model_dump(exclude=set(_New.model_fields))
            values["timestamp"] = body.timestamp or now()
            if kind == "dataset":
                chosen = [values.pop(name) for name in ("instrument_name", "instrument_id", "instrument_mfid")]
                values |= {"timed": int(body.timestamp is not None), **instrument_columns(db, *chosen)}
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

    def get_one(call: Call, mfid: str, query: Includes) -> Json:
        with call.reading(mfid, kind) as (db, row):
            return load(db, call.caller, kind, row["id"], query)

    def change_one(call: Call, mfid: str, body: Any) -> Json:
        changes = body.model_dump(exclude_unset=True)
        if changes.get("timestamp", "") is None:
            raise invalid("body", "timestamp", "cannot be null")
        with call.writing(mfid, EDITOR, kind) as (db, row):
            if kind == "dataset":
                changes = _dataset_changes(db, mfid, changes, load(db, call.caller, kind, row["id"]))
            change(db, kind, row["id"], changes)
            return load(db, call.caller, kind, row["id"])

    def link(call: Call, parent: str, child: str, relationship_type: Relationship | None = None) -> Json:
        with call.write() as db:
            ends = _ends(db, call, parent, kind, child, kind)
            _refuse_cycle(db, *ends, parent, child)
            stored = db.execute(
                "INSERT INTO link (parent_id, child_id, relationship_type) VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
                " SET relationship_type = COALESCE(excluded.relationship_type, relationship_type)"
                " RETURNING relationship_type",
                (*ends, relationship_type),
            ).fetchone()[0]
            touch(db, ends[1])
            return {"parent_id": parent, "child_id": child, "relationship_type": stored}

    def unlink(call: Call, parent: str, child: str) -> Json:
        with call.write() as db:
            ends = _ends(db, call, parent, kind, child, kind)
            if not db.execute("DELETE FROM link WHERE parent_id = ? AND child_id = ?", ends).rowcount:
                raise Refusal(404, f"{child} is not a child of {parent}")
            touch(db, ends[1])
            return {"detail": f"{kind.capitalize()} {child} is no longer a child of {parent}"}

    def add_relatives(side: str, near: str, far: str) -> None:
        @get(f"/{kind}s/{{mfid}}/{side}")
        def list_related(
            call: Call,
            mfid: str,
            relationship_type: Relationship | None = None,
            limit: Limit = 100,
            offset: Offset = 0,
        ) -> Json:
            conditions = Conditions("NOT hidden")
            conditions.limit_to(call.caller)
            with call.reading(mfid, kind) as (db, row):
                linked = f"{near} = ? AND relationship_type IS COALESCE(?, relationship_type)"
                found = f"resource.id IN (SELECT {far} FROM link WHERE {linked})"
                conditions.add(found, row["id"], relationship_type)
                rows = conditions.rows(db, SELECTS[kind], "mfid DESC", limit, offset)
                return page(records(db, call.caller, kind, rows), limit, conditions.count(db, SELECTS[kind]), offset)

    size: dict[str, Any] = {"size": (Count | None, None)} if kind == "dataset" else {}  # later, that of its files
    create.__annotations__["body"] = create_model(f"new_{kind}", __base__=_New, **fields, **size)
    change_one.__annotations__["body"] = create_model(f"{kind}_patch", __base__=_Patch, **fields)
    list_all.__annotations__["query"] = list_query(kind)
    post(f"/{kind}s", 201, is_short=True)(create)
    get(f"/{kind}s")(list_all)
    get(f"/{kind}s/{{mfid}}", is_short=True)(get_one)
    patch(f"/{kind}s/{{mfid}}")(change_one)
    post(f"/{kind}s/{{parent}}/children/{{child}}", 201, is_short=True)(link)
    delete(f"/{kind}s/{{parent}}/children/{{child}}")(unlink)
    add_relatives("children", "parent_id", "child_id")
    add_relatives("parents", "child_id", "parent_id")


def _dataset_changes(db: sqlite3.Connection, mfid: str, changes: JsonObject, current: JsonObject) -> JsonObject:
    """Return the changes of columns; an instrument that is registered has a route of its own."""
    for name in ("instrument_id", "instrument_mfid"):
        if name in changes and changes.pop(name) != current[name]:
            raise invalid("body", name, f"is changed with PUT /datasets/{mfid}/instrument")
    if "instrument_name" in changes and (label := changes.pop("instrument_name")) != current["instrument_name"]:
        changes |= instrument_columns(db, label)
    return {**changes, "timed": 1} if "timestamp" in changes else changes


def _ends(db: sqlite3.Connection, call: Call, parent: str, kind: str, child: str, child_kind: str) -> tuple[int, int]:
    """Return both ids. A link states the origin of the child, so it needs the right to edit the child."""
    parent_row = require(db, call.caller, parent, VIEWER, kind)
    return parent_row["id"], require(db, call.caller, child, EDITOR, child_kind)["id"]


def _refuse_cycle(db: sqlite3.Connection, parent_id: int, child_id: int, parent: str, child: str) -> None:
    if parent_id == child_id:
        raise Refusal(422, f"{parent} cannot be its own parent")
    closes_cycle = db.execute(
        """WITH RECURSIVE below(id) AS (
               SELECT child_id FROM link WHERE parent_id = :child
               UNION SELECT child_id FROM link JOIN below ON parent_id = below.id)
           SELECT 1 FROM below WHERE id = :parent""",
        {"child": child_id, "parent": parent_id},
    ).fetchone()
    if closes_cycle:
        raise Refusal(
            422, f"Linking {parent} (parent) to {child} (child) would close a cycle: {child} is above {parent}"
        )


_add_record_routes("dataset")
_add_record_routes("sample")


@get("/datasets/{mfid}/keywords")
def list_keywords(call: Call, mfid: str) -> Json:
    with call.reading(mfid, "dataset") as (db, row):
        rows = db.execute(
            "SELECT attached_keyword.* FROM attached_keyword JOIN keyword ON keyword.id = keyword_id"
            " WHERE dataset_id = ? ORDER BY folded",
            (row["id"],),
        )
        return [{"id": keyword["id"], "keyword": keyword["spelling"]} for keyword in rows]


@post("/datasets/{mfid}/keywords", 201, is_short=True)
def add_keyword(call: Call, mfid: str, keyword: str) -> Json:
    """Attach a keyword; one that the dataset has keeps its first spelling."""
    text = keyword.strip()
    if not text or len(text) > MAX_KEYWORD_CHARACTERS:
        raise invalid("query", "keyword", f"must have 1 to {MAX_KEYWORD_CHARACTERS} characters")
    with call.writing(mfid, CONTRIBUTOR, "dataset") as (db, row):
        db.execute("INSERT OR IGNORE INTO keyword (folded) VALUES (?)", (text.casefold(),))
        (number,) = db.execute("SELECT id FROM keyword WHERE folded = ?", (text.casefold(),)).fetchone()
        added = db.execute(
            "INSERT OR IGNORE INTO attached_keyword (dataset_id, keyword_id, spelling) VALUES (?, ?, ?)",
            (row["id"], number, text),
        ).rowcount
        mine = "SELECT * FROM attached_keyword WHERE dataset_id = ?"
        if added:
            touch(db, row["id"])
            if len(db.execute(mine, (row["id"],)).fetchall()) > MAX_KEYWORDS:
                raise Refusal(422, f"The dataset has {MAX_KEYWORDS} keywords; it cannot have more")
        attached = db.execute(f"{mine} AND keyword_id = ?", (row["id"], number)).fetchone()
        return {"id": attached["id"], "keyword": attached["spelling"]}


@put("/datasets/{mfid}/instrument")
def assign_instrument(call: Call, mfid: str, body: InstrumentForm) -> Json:
    with call.writing(mfid, EDITOR, "dataset") as (db, row):
        instrument = select(db, "instrument", body.instrument_id, body.instrument_mfid, status=404)
        if instrument is None:
            raise Refusal(422, "Name an instrument: instrument_id or instrument_mfid")
        previous = load(db, call.caller, "dataset", row["id"])
        change(db, "dataset", row["id"], {"instrument_id": instrument["id"], "instrument_label": None})
        return {
            "dataset_mfid": mfid,
            "previous_instrument": previous["instrument"],
            "previous_instrument_name": previous["instrument_name"],
            "instrument": load(db, call.caller, "dataset", row["id"])["instrument"],
        }


@get("/resources/{mfid}")
def get_resource(call: Call, mfid: str, query: Includes) -> Json:
    with call.reading(mfid) as (db, row):
        return load(db, call.caller, row["type"], row["id"], query)


@get("/resources/{mfid}/links")
def list_links(call: Call, mfid: str) -> Json:
    with call.reading(mfid) as (db, row):
        return link_records(db, call.caller, [row["id"]])[row["id"]]


@get("/resources/{mfid}/metadata", is_short=True)
def get_metadata(call: Call, mfid: str) -> Json:
    with call.reading(mfid) as (db, row):
        document = read_metadata(db, row["id"])
        return None if document is None else {"unique_id": mfid, "scientific_metadata": document}


@patch("/resources/{mfid}/metadata", is_short=True)
def merge_metadata(call: Call, mfid: str, body: JsonObject) -> Json:
    with call.writing(mfid, CONTRIBUTOR) as (db, row):
        document = write_metadata(db, row["id"], merged(written_metadata(db, row["id"]), body))
        return {"unique_id": mfid, "scientific_metadata": document}


@post("/resources/{mfid}/metadata", 201, is_short=True)
def replace_metadata(call: Call, mfid: str, body: JsonObject, overwrite: bool = False) -> Json:
    with call.writing(mfid, EDITOR if overwrite else CONTRIBUTOR) as (db, row):
        is_new = read_metadata(db, row["id"]) is None
        if not is_new and not overwrite:
            raise Refusal(409, "Scientific metadata already exists; use PATCH to merge or overwrite=true to replace it")
        if not is_new:
            db.execute(f"{LOSE}?", (row["project_id"],))
            found = "UPDATE parsed SET document = '{}' WHERE file_id IN (SELECT id FROM file WHERE dataset_id = ?)"
            db.execute(found, (row["id"],))
        return {"unique_id": mfid, "scientific_metadata": write_metadata(db, row["id"], body)}


@post("/resources/{mfid}/project")
def reassign_project(call: Call, mfid: str, body: ProjectForm, confirm: bool = False) -> Json:
    """Move a dataset or sample to another project; without `confirm`, only say what would change."""
    if (body.project_id is None) == (body.project_mfid is None):
        raise Refusal(422, "Name exactly one of project_id and project_mfid")
    with call.writing(mfid, ADMIN, ("dataset", "sample")) as (db, row):
        target = select(db, "project", body.project_id, body.project_mfid, status=404)
        assert target is not None
        home_project(db, call.caller, body.project_id, body.project_mfid)
        if confirm:
            change(db, "resource", row["id"], {"project_id": target["id"]})
        return {"resource_id": mfid, "new_project_id": target["slug"], "new_project_mfid": target["mfid"]}


@put("/resources/{mfid}/access/public")
def make_public(call: Call, mfid: str) -> Json:
    with call.writing(mfid, ADMIN, ("dataset", "sample", "instrument")) as (db, row):
        change(db, "resource", row["id"], {"public": 1})
        return {"principal_id": "public", "principal_type": "public", "permission": "viewer"}


@delete("/resources/{mfid}/access/public")
def make_private(call: Call, mfid: str) -> Json:
    with call.writing(mfid, ADMIN, ("dataset", "sample", "instrument")) as (db, row):
        change(db, "resource", row["id"], {"public": 0})
        return {"detail": f"Resource {mfid} is private"}


@post("/datasets/{dataset}/samples/{sample}", 201)
def associate(call: Call, dataset: str, sample: str) -> Json:
    with call.write() as db:
        ends = _ends(db, call, sample, "sample", dataset, "dataset")
        if db.execute("INSERT OR IGNORE INTO association (sample_id, dataset_id) VALUES (?, ?)", ends).rowcount:
            touch(db, ends[1])
        return {"dataset_id": dataset, "sample_id": sample}


@delete("/datasets/{dataset}/samples/{sample}")
def dissociate(call: Call, dataset: str, sample: str) -> Json:
    with call.write() as db:
        ends = _ends(db, call, sample, "sample", dataset, "dataset")
        if not db.execute("DELETE FROM association WHERE sample_id = ? AND dataset_id = ?", ends).rowcount:
            raise Refusal(404, "The dataset and the sample are not linked")
        touch(db, ends[1])
        return {"detail": f"Sample {sample} unlinked from dataset {dataset}"}


@get("/entity_graph_cte/{mfid}")
def entity_graph(call: Call, mfid: str, recursive: bool = False) -> Json:
    """Return the graph of the resource and its neighbours, or of all that it is connected to, in node-link form.

    It has those that the caller may read; edges run from parent to child.
    """
    with call.reading(mfid, ("dataset", "sample")) as (db, row):
        ids = {row["id"]}.union(*((parent, child) for parent, child, *_ in edges(db, [row["id"]])))
        if recursive:
            ids = {number for (number,) in db.execute(_COMPONENT, {"start": row["id"]})}
        named = names(db, (number for number, role in roles(db, call.caller, ids).items() if role >= VIEWER))
        found = edges(db, named)
    shown = [
        {"source": named[parent]["unique_id"], "target": named[child]["unique_id"], "relationship_type": kind}
        for parent, child, kind, _ in found
        if parent in named and child in named
    ]
    nodes = [
        {
            "id": one["unique_id"],
            "entity_type": one["resource_type"],
            "name": one["name"],
            f"{one['resource_type']}_name": one["name"],
            "project_id": one["project_id"],
        }
        for _, one in sorted(named.items())
    ]
    return {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, "edges": shown, "links": shown}
