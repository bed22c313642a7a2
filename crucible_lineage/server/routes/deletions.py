"""Deletion: requested by editors, done by platform administrators, and listed for good."""

from __future__ import annotations

import sqlite3
from typing import Annotated, Literal

from pydantic import Field

from crucible_lineage.server.call import Call
from crucible_lineage.server.catalogue.access import (
    ADMIN,
    EDITOR,
    VIEWER,
    Caller,
    not_found,
    public_user,
    require,
    require_elevated,
    role_on,
)
from crucible_lineage.server.catalogue.filters import Conditions
from crucible_lineage.server.catalogue.records import names
from crucible_lineage.server.catalogue.resources import remove
from crucible_lineage.server.database import now
from crucible_lineage.server.files.storage import sweep
from crucible_lineage.server.http import MAX_ROW_ID, Json, Limit, Offset, page, refuse
from crucible_lineage.server.http import router as new_router

# ruff: noqa: ARG001 - a route declares each parameter that clients may send, used or not

router = new_router()


@router.post("/resources/{mfid}/delete", status_code=201)
def request_deletion(call: Call, mfid: str, reason: Annotated[str | None, Field(max_length=2000)] = None) -> Json:
    """Hide a dataset or sample, and ask for its deletion."""
    with call.write() as db:
        row = require(db, call.caller, mfid, EDITOR, ("dataset", "sample"))
        try:
            requested = db.execute(
                "INSERT INTO deletion_request (resource_id, requester_id, reason, request_time) VALUES (?, ?, ?, ?)"
                " RETURNING *",
                (row["id"], call.caller.id, reason, now()),
            ).fetchone()
        except sqlite3.IntegrityError:
            raise refuse(409, "A deletion request for this resource is already open") from None
        db.execute("UPDATE resource SET hidden = 1 WHERE id = ?", (row["id"],))
        return _record(db, requested)


@router.get("/deletion_requests")
def list_requests(
    call: Call,
    status: Literal["pending"] | None = None,
    scope: Literal["accessible", "submitted"] = "accessible",
    limit: Limit = 100,
    offset: Offset = 0,
) -> Json:
    """List the requests that the caller made, or could make as an administrator of the project, newest first."""
    with call.read() as db:
        rows = db.execute("SELECT * FROM deletion_request ORDER BY id DESC").fetchall()
        rows = [row for row in rows if _is_visible(db, call.caller, row)]
        rows = [row for row in rows if scope == "accessible" or row["requester_id"] == call.caller.id]
        return page([_record(db, row) for row in rows[offset : offset + limit]], limit, len(rows), offset)


@router.get("/deletion_requests/{number}")
def get_request(call: Call, number: int) -> Json:
    with call.read() as db:
        row = None
        if 0 < number <= MAX_ROW_ID:
            row = db.execute("SELECT * FROM deletion_request WHERE id = ?", (number,)).fetchone()
        if row is None or not _is_visible(db, call.caller, row):
            raise not_found("deletion request")
        return _record(db, row)


@router.delete("/resources/{mfid}")
def delete_resource(call: Call, mfid: str, force: bool = False) -> Json:
    """Delete a resource for good, whether that was requested or not."""
    with call.write() as db:
        row = require(db, call.caller, mfid, VIEWER)
        require_elevated(call.caller)
        if db.execute("SELECT 1 FROM resource WHERE project_id = ?", (row["id"],)).fetchone():
            raise refuse(409, "The project still has datasets or samples")
        if db.execute("SELECT 1 FROM dataset WHERE instrument_id = ?", (row["id"],)).fetchone():
            raise refuse(409, "The instrument still has datasets")
        named = names(db, [row["id"]])[row["id"]]
        request = db.execute("SELECT * FROM deletion_request WHERE resource_id = ?", (row["id"],)).fetchone()
        asked = (request["requester_id"], request["reason"], request["request_time"]) if request else (None,) * 3
        db.execute(
            "INSERT INTO deleted (mfid, type, name, project_slug, requester_id, reason, request_time, deleted_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (row["mfid"], row["type"], named["name"], named["slug"], *asked, now()),
        )
        remove(db, row["id"])
    sweep(call.service.database, call.service.storage)
    return {"detail": f"Resource {mfid} permanently deleted"}


@router.get("/deletion_audit")
def list_deleted(call: Call, resource_id: str | None = None, limit: Limit = 100, offset: Offset = 0) -> Json:
    """List what was deleted for good, newest first: all of it for administrators, else what the caller asked for."""
    conditions = Conditions("1")
    if resource_id is not None:
        conditions.add("mfid = ?", resource_id)
    if not call.caller.elevated:
        conditions.add("requester_id = ?", call.caller.id)
    with call.read() as db:
        rows, total = conditions.page(db, "SELECT * FROM deleted", "id DESC", limit, offset)
    items = [
        {
            "id": row["id"],
            "resource_type": row["type"],
            "resource_id": row["mfid"],
            "resource_name": row["name"],
            "project_id": row["project_slug"],
            **{name: row[name] for name in ("reason", "request_time", "deleted_at")},
        }
        for row in rows
    ]
    return page(items, limit, total, offset)


def _is_visible(db: sqlite3.Connection, caller: Caller, row: sqlite3.Row) -> bool:
    return bool(row["requester_id"] == caller.id or role_on(db, caller, row["resource_id"]) >= ADMIN)


def _record(db: sqlite3.Connection, row: sqlite3.Row) -> Json:
    resource = names(db, [row["resource_id"]])[row["resource_id"]]
    requester = public_user(db.execute("SELECT * FROM user WHERE id = ?", (row["requester_id"],)).fetchone())
    return {
        "id": row["id"],
        "resource_type": resource["type"],
        "resource_id": resource["mfid"],
        "resource_name": resource["name"],
        "project_id": resource["slug"],
        "requester_id": requester and requester["unique_id"],
        "requester": requester,
        "reason": row["reason"],
        "status": "pending",
        "request_time": row["request_time"],
    }
