"""Deletion: requested by editors, reviewed by administrators, recorded permanently."""

from __future__ import annotations

import sqlite3
from typing import Annotated, Literal

from pydantic import Field

from crucible_lineage.server.call import Call
from crucible_lineage.server.catalogue.access import ADMIN, EDITOR, Caller, not_found, public_user, require, roles
from crucible_lineage.server.catalogue.filters import Conditions
from crucible_lineage.server.catalogue.records import names
from crucible_lineage.server.catalogue.resources import project_row, remove, user_row
from crucible_lineage.server.database import JsonObject, now
from crucible_lineage.server.files.storage import sweep
from crucible_lineage.server.http import MAX_ROW_ID, Direction, Json, Limit, Offset, page, refuse
from crucible_lineage.server.http import router as new_router

router = new_router()

Words = Annotated[str | None, Field(max_length=2000)]
_REQUESTS = """SELECT deletion_request.*, resource.mfid, resource.type, home.slug AS home_slug,
    home_resource.mfid AS home_mfid FROM deletion_request
    JOIN resource ON resource.id = resource_id JOIN user AS requester ON requester.id = requester_id
    LEFT JOIN dataset ON dataset.id = resource_id LEFT JOIN sample ON sample.id = resource_id
    LEFT JOIN project AS home ON home.id = resource.project_id LEFT JOIN resource AS home_resource
    ON home_resource.id = home.id"""
_SORTS = {
    "request_time": "request_time",
    "resource_name": "COALESCE(dataset_name, sample_name, '')",
    "project_id": "home.slug",
    "requester_name": "requester.last_name",
    "status": "deletion_request.status",
}


@router.post("/resources/{mfid}/delete", status_code=201)
def request_deletion(call: Call, mfid: str, reason: Words = None) -> Json:
    with call.write() as db:
        row = require(db, call.caller, mfid, EDITOR, ("dataset", "sample"))
        try:
            number = db.execute(
                "INSERT INTO deletion_request (resource_id, requester_id, reason, request_time) VALUES (?, ?, ?, ?)",
                (row["id"], call.caller.id, reason, now()),
            ).lastrowid
        except sqlite3.IntegrityError:
            raise refuse(409, "A deletion request for this resource is already open") from None
        db.execute("UPDATE resource SET hidden = 1 WHERE id = ?", (row["id"],))
        return _record(db, call.caller, _find(db, number))


@router.delete("/resources/{mfid}")
def delete_resource(call: Call, mfid: str, force: bool = False) -> Json:
    with call.write() as db:
        row = require(db, call.caller, mfid, ADMIN)
        if force and not call.caller.elevated:
            raise refuse(403, "Only platform administrators delete without an approved request")
        request = db.execute(
            "SELECT * FROM deletion_request WHERE resource_id = ? AND status = 'approved'", (row["id"],)
        ).fetchone()
        if request is None and not force:
            raise refuse(409, "There is no approved deletion request for this resource")
        if db.execute("SELECT 1 FROM resource WHERE project_id = ?", (row["id"],)).fetchone():
            raise refuse(409, "The project still has datasets or samples")
        if db.execute("SELECT 1 FROM dataset WHERE instrument_id = ?", (row["id"],)).fetchone():
            raise refuse(409, "The instrument still has datasets")
        _write_audit(db, row, request)
        remove(db, row["id"])
    sweep(call.service.database, call.service.storage)
    return {"detail": f"Resource {mfid} permanently deleted"}


@router.get("/deletion_requests")
def list_requests(
    call: Call,
    status: Literal["pending", "approved", "rejected"] | None = None,
    scope: Literal["accessible", "submitted", "reviewable"] = "accessible",
    project_mfid: str | None = None,
    sort: Literal["request_time", "resource_name", "project_id", "requester_name", "status"] = "request_time",
    direction: Direction | None = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Json:
    conditions = Conditions("1")
    if status is not None:
        conditions.add("deletion_request.status = ?", status)
    with call.read() as db:
        if project_mfid is not None:
            conditions.add("resource.project_id = ?", project_row(db, project_mfid, status=422)["id"])
        default = "desc" if sort == "request_time" else "asc"
        rows = db.execute(
            f"{_REQUESTS} WHERE {conditions} ORDER BY {_SORTS[sort]} {direction or default}, deletion_request.id",
            conditions.values,
        ).fetchall()
        role_of = roles(db, call.caller, {row["resource_id"] for row in rows})
        own = {row["id"] for row in rows if row["requester_id"] == call.caller.id}
        administered = {row["id"] for row in rows if role_of[row["resource_id"]] >= ADMIN}
        visible = {"accessible": own | administered, "submitted": own, "reviewable": administered}[scope]
        rows = [row for row in rows if row["id"] in visible]
        items = [_record(db, call.caller, row) for row in rows[offset : offset + limit]]
        return page(items, limit, len(rows), offset)


@router.get("/deletion_requests/{number}")
def get_request(call: Call, number: int) -> Json:
    with call.read() as db:
        return _record(db, call.caller, _visible(db, call.caller, number))


@router.patch("/deletion_requests/{number}")
def review_request(
    call: Call, number: int, status: Literal["approved", "rejected"], reviewer_notes: Words = None
) -> Json:
    with call.write() as db:
        row = _visible(db, call.caller, number)
        if not _may_review(db, call.caller, row):
            raise refuse(403, "Reviewing this deletion needs the role admin on the resource")
        if row["status"] != "pending":
            raise refuse(409, f"The request has already been {row['status']}")
        db.execute(
            "UPDATE deletion_request SET status = ?, review_time = ?, reviewer_id = ?, reviewer_notes = ? WHERE id = ?",
            (status, now(), call.caller.id, reviewer_notes, number),
        )
        if status == "rejected":
            db.execute("UPDATE resource SET hidden = 0 WHERE id = ?", (row["resource_id"],))
        return _record(db, call.caller, _find(db, number))


@router.get("/deletion_audit")
def list_audit(
    call: Call,
    resource_id: str | None = None,
    requester_id: str | None = None,
    reviewer_id: str | None = None,
    project_id: str | None = None,
    project_mfid: str | None = None,
    scope: Literal["all", "submitted"] = "all",
    direction: Direction = "desc",
    limit: Limit = 100,
    offset: Offset = 0,
) -> Json:
    conditions = Conditions("1")
    for column, value in (("resource_mfid", resource_id), ("project_slug", project_id), ("project_mfid", project_mfid)):
        if value is not None:
            conditions.add(f"{column} = ?", value)
    with call.read() as db:
        for column, reference in (("requester_id", requester_id), ("reviewer_id", reviewer_id)):
            if reference is not None:
                conditions.add(f"{column} = ?", user_row(db, reference, status=422)["id"])
        if scope == "submitted" or not call.caller.elevated:
            conditions.add("requester_id = ?", call.caller.id)
        rows, total = conditions.page(db, "SELECT * FROM deletion_audit", f"id {direction}", limit, offset)
        return page([_audit_record(db, row) for row in rows], limit, total, offset)


@router.get("/deletion_audit/{number}")
def get_audit(call: Call, number: int) -> Json:
    with call.read() as db:
        row = None
        if 0 < number <= MAX_ROW_ID:
            row = db.execute("SELECT * FROM deletion_audit WHERE id = ?", (number,)).fetchone()
        if row is None or not (call.caller.elevated or row["requester_id"] == call.caller.id):
            raise not_found("deletion audit entry")
        return _audit_record(db, row)


def _find(db: sqlite3.Connection, number: int | None) -> sqlite3.Row:
    row: sqlite3.Row | None = None
    if number is not None and 0 < number <= MAX_ROW_ID:
        row = db.execute(f"{_REQUESTS} WHERE deletion_request.id = ?", (number,)).fetchone()
    if row is None:
        raise not_found("deletion request")
    return row


def _visible(db: sqlite3.Connection, caller: Caller, number: int) -> sqlite3.Row:
    """Return the request, if the caller made it or may review it."""
    row = _find(db, number)
    if row["requester_id"] != caller.id and not _may_review(db, caller, row):
        raise not_found("deletion request")
    return row


def _may_review(db: sqlite3.Connection, caller: Caller, row: sqlite3.Row) -> bool:
    return roles(db, caller, [row["resource_id"]])[row["resource_id"]] >= ADMIN


def _write_audit(db: sqlite3.Connection, row: sqlite3.Row, request: sqlite3.Row | None) -> None:
    name = names(db, [row["id"]])[row["id"]]
    project = db.execute("SELECT mfid FROM resource WHERE id = ?", (row["project_id"],)).fetchone()
    columns = ("requester_id", "reason", "request_time", "review_time", "reviewer_id", "reviewer_notes")
    db.execute(
        "INSERT INTO deletion_audit (resource_type, resource_mfid, resource_name, project_slug, project_mfid,"
        " requester_id, reason, request_time, review_time, reviewer_id, reviewer_notes, deleted_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            row["type"], row["mfid"], name["name"], name["slug"], project["mfid"] if project else None,
            *(request[column] if request else None for column in columns), now(),
        ),
    )  # fmt: skip


def _people(db: sqlite3.Connection, row: sqlite3.Row) -> JsonObject:
    result: JsonObject = {}
    for role in ("requester", "reviewer"):
        user = public_user(db.execute("SELECT * FROM user WHERE id = ?", (row[f"{role}_id"],)).fetchone())
        result[f"{role}_id"] = user["unique_id"] if user else None
        result[role] = user
    return result


def _record(db: sqlite3.Connection, caller: Caller, row: sqlite3.Row) -> Json:
    return {
        "id": row["id"],
        "resource_type": row["type"],
        "resource_id": row["mfid"],
        "resource_name": names(db, [row["resource_id"]])[row["resource_id"]]["name"],
        "project_id": row["home_slug"],
        "project_mfid": row["home_mfid"],
        **_people(db, row),
        **{name: row[name] for name in ("reason", "status", "request_time", "review_time", "reviewer_notes")},
        "capabilities": {"can_review": row["status"] == "pending" and _may_review(db, caller, row)},
    }


def _audit_record(db: sqlite3.Connection, row: sqlite3.Row) -> Json:
    return {
        "id": row["id"],
        "resource_type": row["resource_type"],
        "resource_id": row["resource_mfid"],
        "resource_name": row["resource_name"],
        "project_id": row["project_slug"],
        "project_mfid": row["project_mfid"],
        **_people(db, row),
        **{name: row[name] for name in ("reason", "request_time", "review_time", "reviewer_notes", "deleted_at")},
    }
