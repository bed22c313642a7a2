"""The JSON records of resources and files, from rows of tables; lists of them: their parameters, SQL and pages."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model

from crucible_lineage.server.database import WITH_KEYWORD, JsonObject, Transaction, stored_time
from crucible_lineage.server.http import Count, Form, Json, Limit, Page, invalid
from crucible_lineage.server.resources import (
    ADMIN,
    CONTRIBUTOR,
    EDITOR,
    NAMED,
    PLATFORM_ADMIN,
    READABLE,
    ROLE_NAMES,
    VIEWER,
    Caller,
    members,
    metadata_of,
    public_user,
    roles,
    rows_of,
    select,
    user_row,
)

# ruff: noqa: S608 - SQL is built from constants of this package only; values are always bound


class Includes(Form):
    """What a caller wants included in a record."""

    include_metadata: bool = False
    include_links: bool = False
    include_owner: bool = False
    include_members: bool = False  # of a project
    include_datasets: bool = False  # of a sample; the list of datasets has them


NOTHING_MORE = Includes.model_construct()
FIELDS = {  # of records that are columns of `resource`, under the same name
    "dataset": ("dataset_name", "measurement", "data_type", "data_format", "session_name", "timestamp", "size"),
    "sample": ("sample_name", "sample_type", "description", "timestamp"),
    "project": ("organization", "title", "status"),
    "instrument": ("instrument_name", "manufacturer", "model", "location", "description", "instrument_type",
                   "other_id", "other_id_source", "status"),
}  # fmt: skip
NAMES = {"dataset": "dataset_name", "sample": "sample_name", "project": "title", "instrument": "instrument_name"}


def load(db: Transaction, caller: Caller, resource_id: int, embed: Includes = NOTHING_MORE) -> JsonObject:
    """Return the record of one resource, which must exist."""
    return records(db, caller, rows_of(db, "resource", [resource_id]), embed)[0]


def _by_id(db: Transaction, table: str, ids: Iterable[int | None]) -> dict[int | None, sqlite3.Row]:
    return {row["id"]: row for row in rows_of(db, table, ids)}


def records(
    db: Transaction, caller: Caller, rows: Sequence[sqlite3.Row], embed: Includes = NOTHING_MORE
) -> list[JsonObject]:
    """Return the records of these resources; the number of further queries does not depend on theirs."""
    ids = [row["id"] for row in rows]
    role_of = roles(db, caller, ids)
    owners = _by_id(db, "user", (row["owner_id"] for row in rows))
    others = _by_id(db, "resource", (row[end] for row in rows for end in ("project_id", "instrument_id")))
    documents = metadata_of(db, ids) if embed.include_metadata else {}
    links = link_records(db, caller, ids) if embed.include_links else {}
    asked = rows_of(db, "deletion", (row["id"] for row in rows if row["hidden"]), "row_id")
    deletions = dict(zip((row["row_id"] for row in asked), deletion_records(db, asked), strict=True))
    result: list[JsonObject] = []
    for row in rows:
        kind, number, role, owner = row["type"], row["id"], role_of[row["id"]], public_user(owners.get(row["owner_id"]))
        record: JsonObject = {
            "unique_id": row["mfid"],
            "resource_type": kind,
            **{name: row[name] for name in FIELDS[kind]},
            "creation_time": row["created"],
            "modification_time": row["modified"],
            "scientific_metadata": documents.get(number),
            "deletion_request": deletions.get(number),
            "capabilities": _capabilities(role, kind),
            "owner_orcid": owner and owner["unique_id"],
            "owner": owner if embed.include_owner else None,
        }
        if kind in NAMED:
            record["role"] = ROLE_NAMES[role] if VIEWER <= role < PLATFORM_ADMIN else None
            record |= {f"{kind}_id": row["slug"], "members": None}
        else:
            record |= {"public": bool(row["public"]), **_references(row, others)}
            record["links"] = links.get(number, []) if embed.include_links else None
        if kind == "project":
            record |= {"lead": owner, "project_lead_orcid": record["owner_orcid"]}
            record["members"] = members(db, number) if embed.include_members and role >= VIEWER else None
            record["scientific_metadata"] = record["scientific_metadata"] if role >= VIEWER else None
        result.append(record)
    return result


def _references(row: sqlite3.Row, others: Mapping[int | None, sqlite3.Row]) -> JsonObject:
    """Return the fields that refer to the project of a dataset or sample, and to the instrument of a dataset."""
    found: JsonObject = {}
    for kind in NAMED if row["type"] == "dataset" else ("project",):
        other, name = others.get(row[f"{kind}_id"]), NAMES[kind]
        own = other and {"unique_id": other["mfid"], f"{kind}_id": other["slug"], name: other[name]}
        found |= {kind: own, f"{kind}_id": own and own[f"{kind}_id"], f"{kind}_mfid": own and own["unique_id"]}
    if row["type"] == "dataset":
        found["instrument_name"] = (
            found["instrument"]["instrument_name"] if found["instrument"] else row["instrument_label"]
        )
    return found


def deletion_records(db: Transaction, rows: Sequence[sqlite3.Row]) -> list[JsonObject]:
    """Return the records of deletions. Who deletes what was asked for agrees with the request."""
    users = _by_id(db, "user", (row["requester"] for row in rows))
    result = []
    for row in rows:
        requester = public_user(users.get(row["requester"]))
        more = {"requester": requester, "requester_id": requester and requester["unique_id"]}
        more |= {"review_time": row["request_time"] and row["deleted_at"]}
        more |= {"status": "approved" if row["deleted_at"] else "pending"}
        result.append({name: row[name] for name in row.keys() if name != "row_id"} | more)  # noqa: SIM118
    return result


def _capabilities(role: int, kind: str) -> JsonObject:
    """Return what a role allows, in the form of the records."""
    administers = role >= ADMIN
    allowed: JsonObject = {"can_edit": role >= EDITOR, "can_manage_access": administers}
    allowed |= {"can_change_status": administers, "can_transfer": False, "max_grant_role": None}
    return allowed | ({"can_create_dataset": role >= CONTRIBUTOR} if kind == "project" else {})


def file_record(row: sqlite3.Row) -> JsonObject:
    """Return the record of a row of `file` that is joined with its dataset's MFID as `dataset_mfid`."""
    stored = row["filename"] if row["version"] == 1 else f"{row['mfid']}.{row['version']}"
    return {
        **{name: row[name] for name in ("mfid", "dataset_mfid", "filename", "size")},
        "storage_path": f"crucible-local/{row['dataset_mfid']}/_files/{stored}",
        "sha256_hash": row["sha256"],
        "storage_backend": "gcs",  # what clients call files that the service itself stores
        "access_note": None,
        "etag": etag(row),
    }


def etag(row: sqlite3.Row) -> str:
    """Return the entity tag, which changes whenever the file's content does."""
    return f'"{row["sha256"][:16]}-{row["version"]}"'


def edges(db: Transaction, ids: Iterable[int]) -> dict[tuple[int, int], str | None]:
    """Return the type of each edge at these resources, by its parent and child."""
    rows = [row for end in ("parent_id", "child_id") for row in rows_of(db, "link", ids, end)]
    return {(row["parent_id"], row["child_id"]): row["relationship_type"] for row in rows}


def link_records(db: Transaction, caller: Caller, ids: Sequence[int]) -> dict[int, list[JsonObject]]:
    """Return the links of each resource, as seen from it, to resources that the caller may read."""
    found, wanted = edges(db, ids), set(ids)
    ends = names(db, {end for pair in found for end in pair})
    role_of = roles(db, caller, ends)
    links: dict[int, list[JsonObject]] = defaultdict(list)
    for (parent, child), kind in sorted(found.items()):  # in one order, whatever is asked for with it
        is_tie = ends[parent]["resource_type"] != ends[child]["resource_type"]
        for near, far, direction in ((child, parent, "source"), (parent, child, "target")):
            direction = "undirected" if is_tie else direction
            if near in wanted and role_of[far] >= VIEWER:
                end = {name: ends[far][name] for name in ("unique_id", "resource_type", "name")}
                links[near].append({**end, "direction": direction, "relationship_type": kind})
    return links


def names(db: Transaction, ids: Iterable[int]) -> dict[int, JsonObject]:
    """Map each id to its `unique_id`, `resource_type`, `name` and the `project_id` of its project."""
    rows = rows_of(db, "resource", ids)
    projects = _by_id(db, "resource", (row["project_id"] for row in rows))
    return {
        row["id"]: {
            "unique_id": row["mfid"],
            "resource_type": row["type"],
            "name": row[NAMES[row["type"]]] or row["slug"],
            "project_id": projects[row["project_id"]]["slug"] if row["project_id"] else None,
        }
        for row in rows
    }


class Conditions:
    """A select with its SQL conditions, joined by AND, and their values."""

    def __init__(self, select: str, *clauses: str, **values: object) -> None:
        self.select = select
        self.clauses = list(clauses)
        self.values: JsonObject = dict(values)

    def add(self, clause: str, *values: object) -> None:
        """Add a condition, in which each `?` stands for one of the values."""
        for value in values:
            name = f"v{len(self.values)}"
            clause = clause.replace("?", f":{name}", 1)
            self.values[name] = value
        self.clauses.append(clause)

    def equal(self, values: Mapping[str, object]) -> None:
        """Add that columns have these values, where they are given."""
        for column, value in values.items():
            if value is not None:
                self.add(f"{column} = ?", value)

    def limit_to(self, caller: Caller) -> None:
        """Add that the caller may read the resource, whose id is the value `user`."""
        self.values["user"] = caller.id
        if not caller.elevated:
            self.add(READABLE)

    def __str__(self) -> str:
        return f"{self.select} WHERE {' AND '.join(self.clauses) or 'TRUE'}"

    def rows(self, db: Transaction, order: str, limit: int, offset: int = 0) -> list[sqlite3.Row]:
        """Return the rows on one page."""
        return db.execute(f"{self} ORDER BY {order} LIMIT {limit} OFFSET {offset}", self.values).fetchall()

    def count(self, db: Transaction) -> int:
        """Return the number of all rows."""
        return int(db.execute(f"SELECT COUNT(*) FROM ({self})", self.values).fetchone()[0])

    def page(self, db: Transaction, order: str, query: Page, shown: Callable[[list[sqlite3.Row]], list[Any]]) -> Json:
        """Return a page by offset, of the records that `shown` makes of rows."""
        items = shown(self.rows(db, order, query.limit, query.offset))
        return {"items": items, "limit": query.limit, "total": self.count(db), "offset": query.offset}


StoredMoment = Annotated[str, AfterValidator(stored_time)]
_OF_BOTH: dict[str, tuple[Any, str]] = {  # filters of lists, with their types. READ: the resource, if it may be read
    "unique_id": (str, "mfid = ?"),
    "public": (bool, "public = ?"),
    "creation_time_gte": (StoredMoment, "created >= ?"),
    "creation_time_lte": (StoredMoment, "created <= ?"),
    "modification_time_gte": (StoredMoment, "modified >= ?"),
    "modification_time_lte": (StoredMoment, "modified <= ?"),
    "project_mfid_is_null": (bool, "(project_id IS NULL) = ?"),
}
_USED = "(SELECT used.instrument_name FROM resource AS used WHERE used.id = resource.instrument_id)"
_OWN: dict[str, dict[str, tuple[Any, str]]] = {
    "dataset": {
        "size": (Count, "size = ?"),
        "sample_mfid": (str, "resource.id IN (SELECT child_id FROM link WHERE parent_id = READ)"),
        "instrument_mfid": (str, "instrument_id = READ"),
        "instrument_name": (str, f"COALESCE({_USED}, instrument_label) = ?"),
    },
    "sample": {"dataset_mfid": (str, "resource.id IN (SELECT parent_id FROM link WHERE child_id = READ)")},
}
_FILTERS = {kind: {name: (str, f"{name} = ?") for name in FIELDS[kind]} | _OF_BOTH | own for kind, own in _OWN.items()}


def where(db: Transaction, caller: Caller, kind: str, query: ListQuery) -> Conditions:
    """Return the query's conditions, limited to what the caller may see and is not about to be deleted."""
    conditions = Conditions("SELECT * FROM resource", "type = :kind", "NOT hidden", kind=kind)
    conditions.limit_to(caller)
    readable = f"(SELECT id FROM resource WHERE mfid = ?{'' if caller.elevated else f' AND {READABLE}'})"
    for name, value in query.model_dump(exclude_unset=True, exclude_none=True).items():
        if name in _FILTERS[kind]:
            conditions.add(_FILTERS[kind][name][1].replace("READ", readable), value)
        elif name in ("owner_id", "owner_orcid"):
            conditions.add("owner_id = ?", user_row(db, value, status=422)["id"])
        for keyword in value if name == "keyword" else ():
            conditions.add(f"resource.id IN ({WITH_KEYWORD})", keyword.casefold())
    if (project := select(db, "project", query.project_id, query.project_mfid)) is not None:
        conditions.add("project_id = ?", project["id"])
    return conditions


def cursor_page(db: Transaction, caller: Caller, kind: str, query: ListQuery) -> Json:
    """Return one page in the requested order, with a cursor to the next; the first page has the total."""
    if query.sort is None and query.direction is not None:
        raise invalid("query", "direction", "needs sort")
    conditions = where(db, caller, kind, query)
    total = None
    if query.include_total or (query.include_total is None and query.cursor is None):
        total = conditions.count(db)
    name = {None: "mfid", "name": NAMES[kind], "created": "created", "updated": "modified"}[query.sort]
    column = f"COALESCE({name}, '')" if query.sort == "name" else name
    direction = query.direction or ("asc" if query.sort == "name" else "desc")
    if query.cursor is not None:
        try:
            reached, mfid = json.loads(base64.urlsafe_b64decode(query.cursor.encode()))
        except (ValueError, TypeError, RecursionError):
            reached = mfid = None
        if not isinstance(reached, str) or not isinstance(mfid, str):
            raise invalid("query", "cursor", "is not a cursor of this list")
        conditions.add(f"({column}, mfid) {'<' if direction == 'desc' else '>'} (?, ?)", reached, mfid)
    rows = conditions.rows(db, f"{column} {direction}, mfid {direction}", query.limit + 1)
    more, rows = len(rows) > query.limit, rows[: query.limit]
    last = json.dumps((rows[-1][name] or "", rows[-1]["mfid"])) if more and rows else None
    next_cursor = None if last is None else base64.urlsafe_b64encode(last.encode()).decode()
    items = records(db, caller, rows, query)
    return {"items": items, "limit": query.limit, "total": total, "next_cursor": next_cursor}


class ListQuery(Includes):
    """The parameters that lists of datasets and of samples share."""

    limit: Limit = 100
    cursor: str | None = None
    include_total: bool | None = None
    sort: Literal["created", "updated", "name"] | None = None
    direction: Literal["asc", "desc"] | None = None
    project_id: str | None = None
    project_mfid: str | None = None
    owner_id: str | None = None
    owner_orcid: str | None = None


def list_query(kind: str) -> type[ListQuery]:
    """Return the parameters of the list of this kind: it can be filtered by each of its fields."""
    more: dict[str, Any] = {name: (type_ | None, None) for name, (type_, _) in _FILTERS[kind].items()}
    if kind == "dataset":
        more["keyword"] = (list[Annotated[str, Field(max_length=500)]], Field(default=[], max_length=20))
    return create_model(f"{kind}_query", __base__=ListQuery, **more)
