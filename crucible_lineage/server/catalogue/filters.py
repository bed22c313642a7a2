"""From the query of a dataset or sample list to SQL, and the pages that it finds."""

# ruff: noqa: S608 - SQL is put together from words of this package only; values are always bound
from __future__ import annotations

import base64
import json
import sqlite3
from typing import Any

from crucible_lineage.server.catalogue.access import READABLE, Caller
from crucible_lineage.server.catalogue.queries import DatasetQuery, ResourceQuery, SampleQuery
from crucible_lineage.server.catalogue.records import SELECTS, Embed, records, within_bounds
from crucible_lineage.server.catalogue.references import project_row, select_project, user_row
from crucible_lineage.server.http import Json, invalid

__all__ = ["Where", "cursor_page", "list_page", "where"]


class Where:
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


def where(db: sqlite3.Connection, caller: Caller, kind: str, query: ResourceQuery) -> Where:
    """Return the query's condition among what the caller may see, without what is about to be deleted."""
    if len(query.accessible_to_user) + len(query.accessible_to_project) > 10:
        raise invalid("query", "accessible_to_user", "at most 10 access selectors in one request", kind="too_long")
    found = Where("resource.type = :kind", "NOT resource.hidden", kind=kind, user=caller.id)
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


def _add_people(db: sqlite3.Connection, caller: Caller, found: Where, given: dict[str, Any]) -> None:
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


def _add_project(db: sqlite3.Connection, found: Where, query: ResourceQuery) -> None:
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


def _add_relations(found: Where, caller: Caller, given: dict[str, Any]) -> None:
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
    db: sqlite3.Connection, caller: Caller, kind: str, query: DatasetQuery | SampleQuery, found: Where
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


def _count(db: sqlite3.Connection, kind: str, found: Where) -> int:
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
