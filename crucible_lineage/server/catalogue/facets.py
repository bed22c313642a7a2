"""Facets: how many of the datasets or samples that a query finds share each value of one field."""

from __future__ import annotations

import sqlite3

from crucible_lineage.server.catalogue.access import Caller
from crucible_lineage.server.catalogue.filters import where
from crucible_lineage.server.catalogue.queries import DatasetFacetQuery, SampleFacetQuery
from crucible_lineage.server.http import Json, invalid

__all__ = ["facet_page"]

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
            ORDER BY {query.sort} {direction}, value {direction} LIMIT {query.limit + 1} OFFSET {offset}""",  # noqa: S608
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
