"""The JSON records of resources and files, from rows of tables; lists of them: their parameters, SQL and pages."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from crucible_lineage.server.access import (
    ADMIN,
    CONTRIBUTOR,
    EDITOR,
    PLATFORM_ADMIN,
    READABLE,
    ROLE_NAMES,
    VIEWER,
    Caller,
    members,
    roles,
)
from crucible_lineage.server.database import WITH_KEYWORD, JsonObject, placeholders, stored_time
from crucible_lineage.server.http import MAX_ROW_ID, Json, invalid
from crucible_lineage.server.resources import select, user_row
from crucible_lineage.server.schema import DamagedError, intact, require_intact, require_rows

# ruff: noqa: S608 - SQL is built from constants of this package only; values are always bound


Record = dict[str, object]


@dataclass(frozen=True)
class Embed:
    """What a caller wants included in a record."""

    metadata: bool = False
    links: bool = False
    owner: bool = False
    members: bool = False


_COMMON = """resource.id, resource.mfid, resource.type, resource.public, resource.hidden, resource.created,
    resource.modified, resource.owner_id, resource.project_id AS home_id, owner.unique_id AS owner_unique_id,
    owner.username AS owner_username,
    owner.first_name AS owner_first_name, owner.last_name AS owner_last_name"""
_OWNER = "LEFT JOIN user AS owner ON owner.id = resource.owner_id"
_HOME = """LEFT JOIN project AS home ON home.id = resource.project_id
    LEFT JOIN resource AS home_resource ON home_resource.id = home.id"""

DATASETS = f"""SELECT {_COMMON}, dataset.*, home.slug AS home_slug, home.title AS home_title,
    home_resource.mfid AS home_mfid, instrument.slug AS instrument_slug, instrument.instrument_name,
    instrument_resource.mfid AS instrument_mfid
    FROM resource JOIN dataset ON dataset.id = resource.id {_OWNER} {_HOME}
    LEFT JOIN instrument ON instrument.id = dataset.instrument_id
    LEFT JOIN resource AS instrument_resource ON instrument_resource.id = dataset.instrument_id"""
SAMPLES = f"""SELECT {_COMMON}, sample.*, home.slug AS home_slug, home.title AS home_title,
    home_resource.mfid AS home_mfid
    FROM resource JOIN sample ON sample.id = resource.id {_OWNER} {_HOME}"""
PROJECTS = f"SELECT {_COMMON}, project.* FROM resource JOIN project ON project.id = resource.id {_OWNER}"
INSTRUMENTS = f"SELECT {_COMMON}, instrument.* FROM resource JOIN instrument ON instrument.id = resource.id {_OWNER}"
SELECTS = {"dataset": DATASETS, "sample": SAMPLES, "project": PROJECTS, "instrument": INSTRUMENTS}


def load(db: sqlite3.Connection, caller: Caller, kind: str, resource_id: int, embed: Embed = Embed()) -> Record:
    """Return the record of one resource, which must exist."""
    rows = db.execute(f"{SELECTS[kind]} WHERE resource.id = ?", (resource_id,)).fetchall()
    return records(db, caller, kind, rows, embed)[0]


def records(
    db: sqlite3.Connection, caller: Caller, kind: str, rows: Sequence[sqlite3.Row], embed: Embed = Embed()
) -> list[Record]:
    """Return the records of rows of the kind's select; the number of further queries does not depend on theirs."""
    ids = [row["id"] for row in rows]
    _require_intact(db, kind, rows)
    role_of = roles(db, caller, ids)
    documents = _documents(db, ids) if embed.metadata else {}
    links = link_records(db, caller, ids) if embed.links else {}
    deletions = _open_deletions(db, [row["id"] for row in rows if row["hidden"]])
    result: list[Record] = []
    for row in rows:
        number = row["id"]
        record = {
            "unique_id": row["mfid"],
            "resource_type": row["type"],
            **_SPECIFIC[kind](row),
            "creation_time": row["created"],
            "modification_time": row["modified"],
            "scientific_metadata": documents.get(number),
            "deletion_request": deletions.get(number),
            "capabilities": _capabilities(role_of[number], kind),
        }
        if embed.owner and kind != "project":
            record["owner"] = _owner(row)
        if kind in ("dataset", "sample"):
            record["links"] = links.get(number, []) if embed.links else None
        else:
            _add_members(db, row, record, role_of[number], embed)
        result.append(record)
    return result


def _require_intact(db: sqlite3.Connection, kind: str, rows: Sequence[sqlite3.Row]) -> None:
    """Refuse to answer with rows that differ from what was written, or refer to such rows."""
    ids = {row["id"] for row in rows}
    instruments = {row["instrument_id"] for row in rows} if kind == "dataset" else set[int | None]()
    projects = {row["home_id"] for row in rows}
    referenced = {"project": projects, "instrument": instruments, "user": {row["owner_id"] for row in rows}}
    require_intact(
        db, resource=ids | projects | instruments, **{**referenced, kind: ids | set(referenced.get(kind, ()))}
    )


def file_record(row: sqlite3.Row) -> Record:
    """Return the record of a row of `file` that is joined with its dataset's MFID as `dataset_mfid`."""
    require_rows("file", [row])
    return {
        **{name: row[name] for name in ("mfid", "dataset_mfid", "filename", "size", "storage_path", "access_note")},
        "sha256_hash": row["sha256"],
        "storage_backend": row["backend"],
        "etag": etag(row),
    }


def etag(row: sqlite3.Row) -> str:
    """Return the entity tag, which changes whenever the file's content does."""
    return f'"{(row["sha256"] or "")[:16]}-{row["version"]}"'


def _dataset(row: sqlite3.Row) -> Record:
    instrument = None
    if row["instrument_mfid"] is not None:
        instrument = {"unique_id": row["instrument_mfid"], "instrument_id": row["instrument_slug"],
                      "instrument_name": row["instrument_name"]}  # fmt: skip
    names = ("dataset_name", "measurement", "data_type", "data_format", "session_name", "timestamp", "size")
    return {
        **{name: row[name] for name in names},
        **_shared(row),
        "instrument_name": row["instrument_name"] if instrument else row["instrument_label"],
        "instrument_id": row["instrument_slug"],
        "instrument_mfid": row["instrument_mfid"],
        "instrument": instrument,
    }


def _sample(row: sqlite3.Row) -> Record:
    return {**{name: row[name] for name in ("sample_name", "sample_type", "description", "timestamp")}, **_shared(row)}


def _shared(row: sqlite3.Row) -> Record:
    project = {"unique_id": row["home_mfid"], "project_id": row["home_slug"], "title": row["home_title"]}
    return {
        "public": bool(row["public"]),
        "owner_orcid": row["owner_unique_id"],
        "owner": None,
        "project_id": row["home_slug"],
        "project_mfid": row["home_mfid"],
        "project": project if row["home_mfid"] is not None else None,
        "project_relation": None,
    }


def _project(row: sqlite3.Row) -> Record:
    return {
        "project_id": row["slug"],
        **{name: row[name] for name in ("organization", "title", "status")},
        "lead": _owner(row),
        "project_lead_orcid": row["owner_unique_id"],
    }


def _instrument(row: sqlite3.Row) -> Record:
    names = ("instrument_name", "manufacturer", "model", "location", "description", "instrument_type", "other_id")
    return {
        "instrument_id": row["slug"],
        **{name: row[name] for name in (*names, "other_id_source", "status")},
        "owner_orcid": row["owner_unique_id"],
        "owner": None,
    }


def _owner(row: sqlite3.Row) -> Record | None:
    """Return the owner of the resource in a row."""
    if row["owner_unique_id"] is None:
        return None
    return {name: row[f"owner_{name}"] for name in ("unique_id", "username", "first_name", "last_name")}


_SPECIFIC = {"dataset": _dataset, "sample": _sample, "project": _project, "instrument": _instrument}


def _documents(db: sqlite3.Connection, ids: Sequence[int]) -> dict[int, object]:
    rows = db.execute(f"SELECT * FROM metadata WHERE id IN ({placeholders(ids)})", ids).fetchall()
    require_rows("metadata", rows)
    return {row["id"]: json.loads(row["document"]) for row in rows}


def link_records(db: sqlite3.Connection, caller: Caller, ids: Sequence[int]) -> dict[int, list[Record]]:
    """Return the links of each resource, as seen from it, to resources that the caller may read."""
    marks = placeholders(ids)
    rows = db.execute(
        f"""SELECT child_id AS near, parent_id AS far, 'source' AS direction, relationship_type AS type,
            {intact("link")} AS is_intact FROM link WHERE child_id IN ({marks})
            UNION ALL SELECT parent_id, child_id, 'target', relationship_type, {intact("link")} FROM link
            WHERE parent_id IN ({marks})
            UNION ALL SELECT dataset_id, sample_id, 'undirected', NULL, {intact("association")} FROM association
            WHERE dataset_id IN ({marks})
            UNION ALL SELECT sample_id, dataset_id, 'undirected', NULL, {intact("association")} FROM association
            WHERE sample_id IN ({marks})""",
        [*ids, *ids, *ids, *ids],
    ).fetchall()
    if damaged := next((row for row in rows if not row["is_intact"]), None):
        raise DamagedError("link", damaged["near"])
    ends = names(db, {row["far"] for row in rows})
    role_of = roles(db, caller, ends)
    links: dict[int, list[Record]] = defaultdict(list)
    older_names = {"source": "parent", "target": "child", "undirected": "associated"}
    for row in rows:
        if role_of[row["far"]] >= VIEWER:
            end = ends[row["far"]]
            links[row["near"]].append(
                {
                    "unique_id": end["mfid"],
                    "resource_type": end["type"],
                    "name": end["name"],
                    "direction": row["direction"],
                    "relationship": older_names[row["direction"]],
                    "relationship_type": row["type"],
                }
            )
    return links


def names(db: sqlite3.Connection, ids: Iterable[int]) -> dict[int, sqlite3.Row]:
    """Map each id to a row with `mfid`, `type`, `name` and the project's `slug`."""
    ids = set(ids)
    require_intact(db, **dict.fromkeys(("resource", "dataset", "sample", "project", "instrument"), ids))
    rows = db.execute(
        """SELECT resource.id, mfid, type, home.slug AS slug,
                COALESCE(dataset_name, sample_name, project.title, project.slug, instrument.instrument_name) AS name
            FROM resource LEFT JOIN dataset USING (id) LEFT JOIN sample USING (id) LEFT JOIN project USING (id)
            LEFT JOIN instrument USING (id) LEFT JOIN project AS home ON home.id = resource.project_id
            WHERE resource.id IN (SELECT value FROM json_each(?))""",
        (json.dumps(list(ids)),),
    )
    return {row["id"]: row for row in rows}


def _open_deletions(db: sqlite3.Connection, ids: Sequence[int]) -> dict[int, Record]:
    rows = db.execute(
        f"""SELECT deletion_request.*, user.unique_id AS requester FROM deletion_request
            JOIN user ON user.id = requester_id WHERE resource_id IN ({placeholders(ids)})""",
        ids,
    )
    return {
        row["resource_id"]: {name: row[name] for name in ("id", "reason", "request_time")}
        | {"status": "pending", "requester_id": row["requester"]}
        for row in rows
    }


def _add_members(db: sqlite3.Connection, row: sqlite3.Row, record: Record, role: int, embed: Embed) -> None:
    """Add the caller's role, and for those who have one, the members of a project."""
    record["role"] = ROLE_NAMES[role] if VIEWER <= role < PLATFORM_ADMIN else None
    record["members"] = None
    if row["type"] == "project":
        record["members"] = members(db, row["id"]) if embed.members and role >= VIEWER else None
        record["scientific_metadata"] = record["scientific_metadata"] if role >= VIEWER else None


def _capabilities(role: int, kind: str) -> Record:
    """Return what a role allows, in the form of the records."""
    administers = role >= ADMIN
    allowed: Record = {"can_edit": role >= EDITOR, "can_manage_access": administers, "can_change_status": administers}
    allowed |= {"can_transfer": False, "max_grant_role": None}
    return allowed | ({"can_create_dataset": role >= CONTRIBUTOR} if kind == "project" else {})


class Conditions:
    """SQL conditions, joined by AND, with their values."""

    def __init__(self, *clauses: str, **values: object) -> None:
        self.clauses = list(clauses)
        self.values: JsonObject = dict(values)

    def add(self, clause: str, *values: object) -> None:
        """Add a condition, in which each `?` stands for one of the values."""
        for value in values:
            name = f"v{len(self.values)}"
            clause = clause.replace("?", f":{name}", 1)
            self.values[name] = value
        self.clauses.append(clause)

    def __str__(self) -> str:
        return " AND ".join(self.clauses)

    def limit_to(self, caller: Caller) -> None:
        """Add that the caller may read the resource, whose id is the value `user`."""
        self.values["user"] = caller.id
        if not caller.elevated:
            self.add(READABLE)

    def page(
        self, db: sqlite3.Connection, select: str, order: str, limit: int, offset: int
    ) -> tuple[list[sqlite3.Row], int]:
        """Return the rows on one page of a select, and the number of all rows that meet the conditions."""
        (total,) = db.execute(f"SELECT COUNT(*) FROM ({select} WHERE {self})", self.values).fetchone()
        sql = f"{select} WHERE {self} ORDER BY {order} LIMIT {limit} OFFSET {offset}"
        return db.execute(sql, self.values).fetchall(), total


_KEYED = {
    "dataset": ("dataset_name", "measurement", "data_type", "data_format", "session_name", "timestamp", "size"),
    "sample": ("sample_name", "sample_type", "description", "timestamp"),
}
_FILTERS = {  # READ: the resource with an MFID, if the caller may read it
    "unique_id": "resource.mfid = ?",
    "public": "resource.public = ?",
    "creation_time_gte": "resource.created >= ?",
    "creation_time_lte": "resource.created <= ?",
    "modification_time_gte": "resource.modified >= ?",
    "modification_time_lte": "resource.modified <= ?",
    "project_mfid_is_null": "(resource.project_id IS NULL) = ?",
    "sample_mfid": "resource.id IN (SELECT dataset_id FROM association WHERE sample_id = READ)",
    "dataset_mfid": "resource.id IN (SELECT sample_id FROM association WHERE dataset_id = READ)",
    "instrument_mfid": "dataset.instrument_id = READ",
    "instrument_name": "COALESCE(instrument.instrument_name, dataset.instrument_label) = ?",
}
_SORTS = {"created": "resource.created", "updated": "resource.modified"}


def where(db: sqlite3.Connection, caller: Caller, kind: str, query: DatasetQuery | SampleQuery) -> Conditions:
    """Return the query's conditions, limited to what the caller may see and is not about to be deleted."""
    conditions = Conditions("resource.type = :kind", "NOT resource.hidden", kind=kind)
    conditions.limit_to(caller)
    readable = f"(SELECT id FROM resource WHERE mfid = ?{'' if caller.elevated else f' AND {READABLE}'})"
    for name, value in query.model_dump(exclude_unset=True, exclude_none=True).items():
        if name in _FILTERS:
            conditions.add(_FILTERS[name].replace("READ", readable), value)
        elif name in _KEYED[kind]:
            conditions.add(f"{kind}.{name} = ?", value)
        elif name in ("owner_id", "owner_orcid"):
            conditions.add("resource.owner_id = ?", user_row(db, value, status=422)["id"])
        for keyword in value if name == "keyword" else ():
            conditions.add(f"resource.id IN ({WITH_KEYWORD})", keyword.casefold())
    if (project := select(db, "project", query.project_id, query.project_mfid)) is not None:
        conditions.add("resource.project_id = ?", project["id"])
    return conditions


def cursor_page(db: sqlite3.Connection, caller: Caller, kind: str, query: DatasetQuery | SampleQuery) -> Json:
    """Return one page in the requested order, with a cursor to the next; the first page has the total."""
    conditions = where(db, caller, kind, query)
    total = None
    if query.include_total or (query.include_total is None and query.cursor is None):
        total = _count(db, kind, conditions)
    column, direction = _order(kind, query)
    if query.cursor is not None:
        value, mfid = _decode(query.cursor)
        sign = "<" if direction == "DESC" else ">"
        conditions.add(f"({column}, resource.mfid) {sign} (?, ?)", value, mfid)
    rows = _rows(db, kind, conditions, column, direction, f"LIMIT {query.limit + 1}")
    more, rows = len(rows) > query.limit, rows[: query.limit]
    items = records(db, caller, kind, rows, embed(query))
    if query.project_id or query.project_mfid:
        for item in items:
            item["project_relation"] = "assigned"
    next_cursor = _encode(_sort_value(rows[-1], kind, query), rows[-1]["mfid"]) if more and rows else None
    return {"items": items, "limit": query.limit, "total": total, "next_cursor": next_cursor}


def _rows(
    db: sqlite3.Connection, kind: str, conditions: Conditions, column: str, direction: str, part: str
) -> list[sqlite3.Row]:
    order = f"{column} {direction}, resource.mfid {direction}"
    return db.execute(f"{SELECTS[kind]} WHERE {conditions} ORDER BY {order} {part}", conditions.values).fetchall()


def _count(db: sqlite3.Connection, kind: str, conditions: Conditions) -> int:
    source = f"resource JOIN {kind} ON {kind}.id = resource.id"
    if kind == "dataset":
        source += " LEFT JOIN instrument ON instrument.id = dataset.instrument_id"
    return int(db.execute(f"SELECT COUNT(*) FROM {source} WHERE {conditions}", conditions.values).fetchone()[0])


def _order(kind: str, query: DatasetQuery | SampleQuery) -> tuple[str, str]:
    if query.sort is None:
        if query.direction is not None:
            raise invalid("query", "direction", "needs sort", query.direction)
        return "resource.mfid", "DESC"
    if query.sort == "name":
        return f"COALESCE({kind}.{kind}_name, '')", (query.direction or "asc").upper()
    return _SORTS[query.sort], (query.direction or "desc").upper()


def _sort_value(row: sqlite3.Row, kind: str, query: DatasetQuery | SampleQuery) -> str:
    columns = {None: "mfid", "name": f"{kind}_name", "created": "created", "updated": "modified"}
    return row[columns[query.sort]] or ""


def embed(query: Includes) -> Embed:
    """Return what a query wants included."""
    return Embed(metadata=query.include_metadata, links=query.include_links, owner=query.include_owner)


def _encode(*parts: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def _decode(cursor: str) -> tuple[str, str]:
    try:
        value, mfid = json.loads(base64.urlsafe_b64decode(cursor.encode()))
    except (ValueError, TypeError, RecursionError):
        raise invalid("query", "cursor", "is not a cursor of this list") from None
    if not isinstance(value, str) or not isinstance(mfid, str):
        raise invalid("query", "cursor", "is not a cursor of this list")
    return value, mfid


Moment = Annotated[str, AfterValidator(stored_time)]


class Includes(BaseModel):
    """What a caller wants included in a record."""

    model_config = ConfigDict(extra="forbid")

    include_metadata: bool = False
    include_links: bool = False
    include_owner: bool = False
    include_datasets: bool = False  # of a sample; the list of datasets has them


class _ListQuery(Includes):
    """The parameters that lists of datasets and of samples share."""

    limit: int = Field(100, ge=0, le=1000)
    cursor: str | None = None
    include_total: bool | None = None
    sort: Literal["created", "updated", "name"] | None = None
    direction: Literal["asc", "desc"] | None = None
    project_id: str | None = None
    project_mfid: str | None = None
    project_mfid_is_null: bool | None = None
    owner_id: str | None = None
    owner_orcid: str | None = None
    public: bool | None = None
    unique_id: str | None = None
    timestamp: str | None = None
    creation_time_gte: Moment | None = None
    creation_time_lte: Moment | None = None
    modification_time_gte: Moment | None = None
    modification_time_lte: Moment | None = None


class DatasetQuery(_ListQuery):
    keyword: Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=20)] = []
    dataset_name: str | None = None
    measurement: str | None = None
    data_type: str | None = None
    data_format: str | None = None
    session_name: str | None = None
    size: int | None = Field(None, ge=0, le=MAX_ROW_ID)
    sample_mfid: str | None = None
    instrument_mfid: str | None = None
    instrument_name: str | None = None


class SampleQuery(_ListQuery):
    dataset_mfid: str | None = None
    sample_name: str | None = None
    sample_type: str | None = None
    description: str | None = None


Relationship = Literal["is_derived_from", "is_part_of"]  # also in the CHECK of schema.py
