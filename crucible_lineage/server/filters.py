"""Lists of datasets and samples: their query parameters, their SQL, and their pages."""

from __future__ import annotations

import base64
import json
import sqlite3
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from crucible_lineage.server.access import READABLE, Caller
from crucible_lineage.server.database import WITH_KEYWORD, JsonObject, stored_time
from crucible_lineage.server.http import MAX_ROW_ID, Json, invalid, page
from crucible_lineage.server.records import SELECTS, Embed, records
from crucible_lineage.server.resources import select, user_row

# ruff: noqa: S608 - SQL is built from constants of this package only; values are always bound


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


_EXACT = {
    "dataset": ("dataset_name", "measurement", "data_type", "data_format", "session_name", "timestamp", "size"),
    "sample": ("sample_name", "sample_type", "description", "timestamp"),
}
_TIMES = {
    "creation_time_gte": "resource.created >= ?",
    "creation_time_lte": "resource.created <= ?",
    "modification_time_gte": "resource.modified >= ?",
    "modification_time_lte": "resource.modified <= ?",
}
_SORTS = {"created": "resource.created", "updated": "resource.modified"}


def where(db: sqlite3.Connection, caller: Caller, kind: str, query: DatasetQuery | SampleQuery) -> Conditions:
    """Return the query's conditions, limited to what the caller may see and is not about to be deleted."""
    conditions = Conditions("resource.type = :kind", "NOT resource.hidden", kind=kind)
    conditions.limit_to(caller)
    filters = query.model_dump(exclude_unset=True, exclude_none=True)
    for name in _EXACT[kind]:
        if name in filters:
            conditions.add(f"{kind}.{name} = ?", filters[name])
    for name, clause in _TIMES.items():
        if name in filters:
            conditions.add(clause, filters[name])
    for name in ("owner_id", "owner_orcid"):
        if name in filters:
            conditions.add("resource.owner_id = ?", user_row(db, filters[name], status=422)["id"])
    if "public" in filters:
        conditions.add("resource.public = ?", int(filters["public"]))
    if (project := select(db, "project", query.project_id, query.project_mfid)) is not None:
        conditions.add("resource.project_id = ?", project["id"])
    if "project_mfid_is_null" in filters:
        conditions.add(f"resource.project_id IS {'' if filters['project_mfid_is_null'] else 'NOT '}NULL")
    _add_relations(conditions, caller, filters)
    return conditions


def _add_relations(conditions: Conditions, caller: Caller, filters: JsonObject) -> None:
    mfid = f"(SELECT id FROM resource WHERE mfid = ?{'' if caller.elevated else f' AND {READABLE}'})"
    if "unique_id" in filters:
        conditions.add("resource.mfid = ?", filters["unique_id"])
    if "sample_mfid" in filters:
        conditions.add(
            f"resource.id IN (SELECT dataset_id FROM association WHERE sample_id = {mfid})",
            filters["sample_mfid"],
        )
    if "dataset_mfid" in filters:
        conditions.add(
            f"resource.id IN (SELECT sample_id FROM association WHERE dataset_id = {mfid})",
            filters["dataset_mfid"],
        )
    if "instrument_mfid" in filters:
        conditions.add(f"dataset.instrument_id = {mfid}", filters["instrument_mfid"])
    if "instrument_name" in filters:
        conditions.add("COALESCE(instrument.instrument_name, dataset.instrument_label) = ?", filters["instrument_name"])
    for keyword in filters.get("keyword", ()):
        conditions.add(f"resource.id IN ({WITH_KEYWORD})", keyword.casefold())


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


def list_page(
    db: sqlite3.Connection, caller: Caller, kind: str, query: DatasetQuery | SampleQuery, conditions: Conditions
) -> Json:
    """Return one page by offset."""
    rows = _rows(db, kind, conditions, *_order(kind, query), f"LIMIT {query.limit} OFFSET {query.offset}")
    items = records(db, caller, kind, rows, embed(query))
    return page(items, query.limit, _count(db, kind, conditions), query.offset)


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
    offset: int = Field(0, ge=0, le=MAX_ROW_ID)
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


class ChildDatasetQuery(DatasetQuery):
    relationship_type: Relationship | None = None


class ChildSampleQuery(SampleQuery):
    relationship_type: Relationship | None = None
