"""Lists and facets of datasets and samples: their query parameters, the SQL of them, and the pages that it finds."""

from __future__ import annotations

import base64
import json
import sqlite3
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from crucible_lineage.server.catalogue.access import READABLE, Caller
from crucible_lineage.server.catalogue.records import SELECTS, Embed, records, within_bounds
from crucible_lineage.server.catalogue.resources import project_row, select_project, user_row
from crucible_lineage.server.http import MAX_ROW_ID, Json, invalid, moment

# ruff: noqa: S608 - SQL is put together from words of this package only; values are always bound


# field -> (column to group by, its value, its label)
_FIELDS = {
    "session": ("dataset.session_name",) * 3,
    "measurement": ("dataset.measurement",) * 3,
    "data_format": ("dataset.data_format",) * 3,
    "sample_type": ("sample.sample_type",) * 3,
    "owner": ("resource.owner_id", "owner.unique_id", "trim(owner.first_name || ' ' || owner.last_name)"),
    "project": ("resource.project_id", "home_resource.mfid", "COALESCE(home.title, home.slug)"),
    "instrument": ("dataset.instrument_id", "instrument_resource.mfid", "instrument.instrument_name"),
}
_EXTRA = {
    "owner": ("unique_id", "username", "first_name", "last_name"),
    "project": ("unique_id", "project_id", "title"),
    "instrument": ("unique_id", "instrument_id", "instrument_name"),
}
_EXTRA_COLUMNS = {
    "owner": "owner.unique_id, owner.username, owner.first_name, owner.last_name",
    "project": "home_resource.mfid, home.slug, home.title",
    "instrument": "instrument_resource.mfid, instrument.slug, instrument.instrument_name",
}
_JOINS = {
    "owner": "LEFT JOIN user AS owner ON owner.id = resource.owner_id",
    "project": "LEFT JOIN project AS home ON home.id = resource.project_id"
    " LEFT JOIN resource AS home_resource ON home_resource.id = home.id",
    "instrument": "LEFT JOIN instrument ON instrument.id = dataset.instrument_id"
    " LEFT JOIN resource AS instrument_resource ON instrument_resource.id = instrument.id",
}


class Conditions:
    """Conditions that all hold, with their values."""

    def __init__(self, *clauses: str, **values: object) -> None:
        self.clauses = list(clauses)
        self.values: dict[str, Any] = dict(values)

    def add(self, clause: str, *values: object) -> None:
        """One more condition; each `?` in it stands for one of the values."""
        for value in values:
            name = f"v{len(self.values)}"
            clause = clause.replace("?", f":{name}", 1)
            self.values[name] = value
        self.clauses.append(clause)

    def __str__(self) -> str:
        return " AND ".join(self.clauses)


_EXACT = {
    "dataset": ("dataset_name", "measurement", "data_type", "data_format", "session_name", "timestamp", "size"),
    "sample": ("sample_name", "sample_type", "description", "timestamp"),
}
_NULLABLE = {
    "owner_id_is_null": "resource.owner_id",
    "project_mfid_is_null": "resource.project_id",
    "instrument_mfid_is_null": "dataset.instrument_id",
    "measurement_is_null": "dataset.measurement",
    "data_format_is_null": "dataset.data_format",
    "session_name_is_null": "dataset.session_name",
    "sample_type_is_null": "sample.sample_type",
}
_TIMES = {
    "creation_time_gte": "resource.created >= ?",
    "creation_time_lte": "resource.created <= ?",
    "modification_time_gte": "resource.modified >= ?",
    "modification_time_lte": "resource.modified <= ?",
}
_SORTS = {"created": "resource.created", "updated": "resource.modified"}


def where(db: sqlite3.Connection, caller: Caller, kind: str, query: ResourceQuery) -> Conditions:
    """Return the query's condition among what the caller may see, without what is about to be deleted."""
    if len(query.accessible_to_user) + len(query.accessible_to_project) > 10:
        raise invalid("query", "accessible_to_user", "at most 10 access selectors in one request", kind="too_long")
    found = Conditions("resource.type = :kind", "NOT resource.hidden", kind=kind, user=caller.id)
    if not caller.elevated:
        found.add(READABLE)
    given = query.model_dump(exclude_unset=True, exclude_none=True)
    for name in _EXACT[kind]:
        if name in given:
            found.add(f"{kind}.{name} = ?", given[name])
    for name, column in _NULLABLE.items():
        if name in given:
            found.add(f"{column} IS {'NULL' if given[name] else 'NOT NULL'}")
    for name, clause in _TIMES.items():
        if name in given:
            found.add(clause, given[name])
    _add_people(db, caller, found, given)
    _add_project(db, found, query)
    _add_relations(found, caller, given)
    return found


def _add_people(db: sqlite3.Connection, caller: Caller, found: Conditions, given: dict[str, Any]) -> None:
    for name in ("owner_id", "owner_orcid"):
        if name in given:
            found.add("resource.owner_id = ?", user_row(db, given[name], status=422)["id"])
    if given.get("affiliation"):
        found.add("resource.owner_id = ?", caller.id)
    if "public" in given:
        found.add("resource.public = ?", int(given["public"]))
    if given.get("visibility", "all") != "all":
        found.add("resource.public = ?", int(given["visibility"] == "public"))
    for reference in given.get("accessible_to_user", ()):
        user = user_row(db, reference, status=422)
        if user["platform_role"] != "admin":
            found.add(READABLE.replace(":user", "?"), *[user["id"]] * READABLE.count(":user"))
    for reference in given.get("accessible_to_project", ()):
        project = project_row(db, reference, status=422)["id"]
        found.add(
            "(resource.public OR resource.project_id = ?"
            " OR resource.id IN (SELECT resource_id FROM access WHERE project_id = ?))",
            project,
            project,
        )


def _add_project(db: sqlite3.Connection, found: Conditions, query: ResourceQuery) -> None:
    project = select_project(db, query.project_id, query.project_mfid)
    if project is None:
        if "project_scope" in query.model_fields_set:
            raise invalid("query", "project_scope", "needs project_id or project_mfid", query.project_scope)
        return
    assigned = "resource.project_id = ?"
    shared = "resource.id IN (SELECT resource_id FROM access WHERE project_id = ?)"
    match query.project_scope:
        case "assigned":
            found.add(assigned, project["id"])
        case "shared":
            found.add(shared, project["id"])
        case "all":
            found.add(f"({assigned} OR {shared})", project["id"], project["id"])


def _add_relations(found: Conditions, caller: Caller, given: dict[str, Any]) -> None:
    mfid = f"(SELECT id FROM resource WHERE mfid = ?{'' if caller.elevated else f' AND {READABLE}'})"
    if "unique_id" in given:
        found.add("resource.mfid = ?", given["unique_id"])
    if "sample_mfid" in given:
        found.add(
            f"resource.id IN (SELECT dataset_id FROM association WHERE sample_id = {mfid})",
            given["sample_mfid"],
        )
    if "dataset_mfid" in given:
        found.add(
            f"resource.id IN (SELECT sample_id FROM association WHERE dataset_id = {mfid})",
            given["dataset_mfid"],
        )
    if "instrument_mfid" in given:
        found.add(f"dataset.instrument_id = {mfid}", given["instrument_mfid"])
    if "instrument_name" in given:
        found.add("COALESCE(instrument.instrument_name, dataset.instrument_label) = ?", given["instrument_name"])
    for keyword in given.get("keyword", ()):
        found.add(
            "resource.id IN (SELECT dataset_id FROM attached_keyword JOIN keyword ON keyword.id = keyword_id"
            " WHERE instr(folded, ?))",
            keyword.casefold(),
        )


def cursor_page(db: sqlite3.Connection, caller: Caller, kind: str, query: DatasetQuery | SampleQuery) -> Json:
    """One page in the order that was asked for, with a cursor to the next; the total on the first page."""
    found = where(db, caller, kind, query)
    total = None
    if query.include_total or (query.include_total is None and query.cursor is None):
        total = _count(db, kind, found)
    column, direction = _order(kind, query)
    if query.cursor is not None:
        value, mfid = _decode(query.cursor)
        sign = "<" if direction == "DESC" else ">"
        found.add(f"({column}, resource.mfid) {sign} (?, ?)", value, mfid)
    rows = db.execute(
        f"{SELECTS[kind]} WHERE {found} ORDER BY {column} {direction}, resource.mfid {direction}"
        f" LIMIT {query.limit + 1}",
        found.values,
    ).fetchall()
    wanted = rows[: query.limit]
    shown = within_bounds(db, [row["id"] for row in wanted]) if query.include_metadata else len(wanted)
    more = len(rows) > shown
    rows = rows[:shown]
    items = records(db, caller, kind, rows, _embed(query))
    _mark_relation(items, query)
    next_cursor = _encode(_sort_value(rows[-1], kind, query), rows[-1]["mfid"]) if more and rows else None
    return {"items": items, "limit": query.limit, "total": total, "next_cursor": next_cursor}


def list_page(
    db: sqlite3.Connection, caller: Caller, kind: str, query: DatasetQuery | SampleQuery, found: Conditions
) -> Json:
    """One page by offset."""
    column, direction = _order(kind, query)
    total = _count(db, kind, found)
    rows = db.execute(
        f"{SELECTS[kind]} WHERE {found} ORDER BY {column} {direction}, resource.mfid {direction}"
        f" LIMIT {query.limit} OFFSET {query.offset}",
        found.values,
    ).fetchall()
    if query.include_metadata and (most := within_bounds(db, [row["id"] for row in rows])) < len(rows):
        raise invalid(
            "query", "limit", f"the metadata of so many are too large for one answer; ask for {most} at a time"
        )
    items = records(db, caller, kind, rows, _embed(query))
    return {"items": items, "limit": query.limit, "total": total, "offset": query.offset}


def _count(db: sqlite3.Connection, kind: str, found: Conditions) -> int:
    source = f"resource JOIN {kind} ON {kind}.id = resource.id"
    if kind == "dataset":
        source += " LEFT JOIN instrument ON instrument.id = dataset.instrument_id"
    return int(db.execute(f"SELECT COUNT(*) FROM {source} WHERE {found}", found.values).fetchone()[0])


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


def _embed(query: DatasetQuery | SampleQuery) -> Embed:
    return Embed(
        metadata=query.include_metadata,
        links=query.include_links,
        owner=query.include_owner,
        datasets=getattr(query, "include_datasets", True),
    )


def _mark_relation(items: list[Json], query: ResourceQuery) -> None:
    """Say whether each item lives in the project that was asked for or is only shared with it."""
    if query.project_id is None and query.project_mfid is None:
        return
    for item in items:
        slug, mfid = item["project_id"], item["project_mfid"]
        here = mfid is not None and (mfid == query.project_mfid or slug.lower() == (query.project_id or "").lower())
        here = here or mfid == query.project_id
        item["project_relation"] = "assigned" if here else "shared"


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


def _stored_time(text: str) -> str:
    """A moment as times are stored; text that is none is a validation error."""
    return moment(text).isoformat(timespec="microseconds")


Moment = Annotated[str, AfterValidator(_stored_time)]
Principals = Annotated[list[str], Field(max_length=10)]


class ResourceQuery(BaseModel):
    """What datasets and samples are both filtered by."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=0, le=1000)
    cursor: str | None = None
    include_total: bool | None = None
    project_id: str | None = None
    project_mfid: str | None = None
    project_scope: Literal["assigned", "shared", "all"] = "assigned"
    project_mfid_is_null: bool | None = None
    owner_id: str | None = None
    owner_id_is_null: bool | None = None
    affiliation: Annotated[list[Literal["owner"]], Field(max_length=5)] = []
    visibility: Literal["all", "public", "private"] = "all"
    creation_time_gte: Moment | None = None
    creation_time_lte: Moment | None = None
    modification_time_gte: Moment | None = None
    modification_time_lte: Moment | None = None
    accessible_to_user: Principals = []
    accessible_to_project: Principals = []
    direction: Literal["asc", "desc"] | None = None


class _ListQuery(ResourceQuery):
    """What only lists take, and facets do not."""

    offset: int = Field(0, ge=0, le=MAX_ROW_ID)
    include_metadata: bool = False
    include_links: bool = False
    include_owner: bool = False
    owner_orcid: str | None = None
    public: bool | None = None
    unique_id: str | None = None
    timestamp: str | None = None
    anchor_mfid: str | None = None
    sort: Literal["created", "updated", "name"] | None = None


class _DatasetFilters(ResourceQuery):
    sample_mfid: str | None = None
    instrument_mfid: str | None = None
    instrument_mfid_is_null: bool | None = None
    measurement: str | None = None
    data_format: str | None = None
    session_name: str | None = None
    measurement_is_null: bool | None = None
    data_format_is_null: bool | None = None
    session_name_is_null: bool | None = None


class DatasetQuery(_DatasetFilters, _ListQuery):
    keyword: Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=20)] = []
    dataset_name: str | None = None
    data_type: str | None = None
    size: int | None = Field(None, ge=0, le=MAX_ROW_ID)
    instrument_name: str | None = None


Relationship = Literal["is_derived_from", "is_part_of"]  # also in the CHECK of schema.py


class ChildDatasetQuery(DatasetQuery):
    relationship_type: Relationship | None = None


class DatasetFacetQuery(_DatasetFilters):
    field: Literal["session", "measurement", "data_format", "owner", "instrument", "project"]
    sort: Literal["value", "label", "count"] = "value"


class _SampleFilters(ResourceQuery):
    dataset_mfid: str | None = None
    sample_type: str | None = None
    sample_type_is_null: bool | None = None


class SampleQuery(_SampleFilters, _ListQuery):
    include_datasets: bool = True
    sample_name: str | None = None
    description: str | None = None


class ChildSampleQuery(SampleQuery):
    relationship_type: Relationship | None = None


class SampleFacetQuery(_SampleFilters):
    field: Literal["sample_type", "owner", "project"]
    sort: Literal["value", "label", "count"] = "value"


def facet_page(db: sqlite3.Connection, caller: Caller, kind: str, query: DatasetFacetQuery | SampleFacetQuery) -> Json:
    """One page of buckets; the cursor is the number of buckets already seen."""
    offset = int(query.cursor) if query.cursor and query.cursor.isdigit() and len(query.cursor) < 12 else 0
    if query.cursor and not query.cursor.isdigit():
        raise invalid("query", "cursor", "is not a cursor of this list")
    found = where(db, caller, kind, query)
    group, value, label = _FIELDS[query.field]
    extra = _EXTRA_COLUMNS.get(query.field)
    direction = (query.direction or "asc").upper()
    rows = db.execute(
        f"""SELECT {value} AS value, {label} AS label, COUNT(*) AS count{", " + extra if extra else ""}
            FROM resource JOIN {kind} ON {kind}.id = resource.id {_JOINS.get(query.field, "")}
            WHERE {found} GROUP BY {group}
            ORDER BY {query.sort} {direction}, value {direction} LIMIT {query.limit + 1} OFFSET {offset}""",
        found.values,
    ).fetchall()
    items = [_bucket(query.field, row) for row in rows[: query.limit]]
    next_cursor = str(offset + query.limit) if len(rows) > query.limit and query.limit else None
    return {"field": query.field, "items": items, "limit": query.limit, "next_cursor": next_cursor}


def _bucket(field: str, row: sqlite3.Row) -> Json:
    bucket = {"value": row["value"], "label": row["label"], "count": row["count"]}
    if field in _EXTRA:
        bucket[field] = dict(zip(_EXTRA[field], tuple(row)[3:], strict=True)) if row["value"] is not None else None
    return bucket
