"""Accounts with their keys, users, deletions, and the health of the server."""

from __future__ import annotations

import secrets
import sqlite3
from typing import Annotated, Literal

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from crucible_lineage import __version__
from crucible_lineage.ids import new_mfid
from crucible_lineage.server.access import (
    ADMIN,
    EDITOR,
    VIEWER,
    Caller,
    not_found,
    public_user,
    require,
    require_elevated,
    role_on,
    user_record,
)
from crucible_lineage.server.call import Call, Service
from crucible_lineage.server.database import hash_key, now, register_key
from crucible_lineage.server.filters import Conditions
from crucible_lineage.server.http import MAX_ROW_ID, Form, Json, Limit, Offset, page, refuse
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.records import names
from crucible_lineage.server.resources import find_user, remove, user_row
from crucible_lineage.server.storage import sweep

# ruff: noqa: ARG001 - a route declares each parameter that clients may send, used or not

router = new_router()

Username = Annotated[str, Field(min_length=3, max_length=24, pattern=r"^[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*$")]
Identifier = Annotated[str, Field(pattern=r"^(\d{4}-\d{4}-\d{4}-\d{3}[0-9X]|[0-9a-hjkmnp-tv-z]{26})$")]
Names = Annotated[list[str], Field(max_length=1000)]
NEVER = "9999-12-31T23:59:59+00:00"


class References(Form):
    orcids: Names = Field(default_factory=list)
    usernames: Names = Field(default_factory=list)
    emails: Names = Field(default_factory=list)


class NewAccount(Form):
    username: Username
    unique_id: Identifier | None = None


@router.get("/health/live")
def live() -> Json:
    return {"status": "ok"}


@router.get("/health/ready")
def ready(request: Request) -> Response:
    service: Service = request.app.state.service
    build = {"api_version": "3.0.0", "git_commit": f"crucible-lineage {__version__}", "branch": "embedded"}
    try:
        with service.database.read() as db:
            db.execute("SELECT 1 FROM setting").fetchone()
    except sqlite3.Error:
        return JSONResponse({"status": "degraded", "build": build, "database": {"status": "error"}}, 503)
    return JSONResponse({"status": "ok", "build": build, "database": {"status": "ok"}})


@router.get("/account")
def account(call: Call) -> Json:
    with call.read() as db:
        groups = db.execute(
            "SELECT slug FROM project JOIN member ON member.project_id = project.id WHERE user_id = ?",
            (call.caller.id,),
        ).fetchall()
        return {
            "user_unique_id": call.caller.unique_id,
            "access_group_ids": [slug for (slug,) in groups],
            "user_info": user_record(user_row(db, call.caller.unique_id)),
        }


@router.get("/account/profile")
def profile(call: Call) -> Json:
    caller = call.caller
    with call.read() as db:
        me = user_record(user_row(db, caller.unique_id))
    allowed = ("can_create_project", "can_register_instrument", "can_create_sample", "can_create_dataset")
    return me | {
        "authorization": {
            "platform_role": me["platform_role"],
            "effective_privilege_mode": "elevated" if caller.elevated else "normal",
            "can_elevate": caller.is_admin,
        },
        "capabilities": {
            **dict.fromkeys(allowed, True),
            "can_manage_service_accounts": caller.elevated,
            "can_create_for_others": caller.elevated,
        },
    }


@router.get("/account/apikey")
def api_key(call: Call) -> Json:
    """Return the key of this request; the others are stored only as hashes."""
    return {"api_key": call.key}


@router.get("/account/verify")
def verify(call: Call) -> Json:
    with call.read() as db:
        created = db.execute("SELECT created FROM api_key WHERE hash = ?", (hash_key(call.key),)).fetchone()[0]
    return {"valid": True, "created_at": created, "expires_at": NEVER}


@router.get("/users/search")
def search_users(
    call: Call,
    q: Annotated[str, Query(min_length=1, max_length=200)],
    limit: Annotated[int, Query(ge=1, le=50)] = 20,
) -> Json:
    names = "lower(first_name || ' ' || last_name || ' ' || COALESCE(username, ''))"
    with call.read() as db:
        rows = db.execute(
            f"SELECT * FROM user WHERE instr({names}, lower(?)) ORDER BY last_name, unique_id LIMIT ?",  # noqa: S608
            (q, limit),
        )
        return [public_user(row) for row in rows]


@router.post("/users/resolve")
def resolve_users(call: Call, body: References) -> Json:
    with call.read() as db:
        references = [*body.orcids, *body.usernames, *body.emails]
        return {reference: public_user(find_user(db, reference)) for reference in references}


@router.get("/users/{reference}")
def get_user(call: Call, reference: str) -> Json:
    with call.read() as db:
        return user_record(user_row(db, reference))


@router.post("/service_accounts", status_code=201)
def create_account(call: Call, body: NewAccount) -> Json:
    """Create the account of another user, with a key."""
    require_elevated(call.caller)
    with call.write() as db:
        try:
            row = db.execute(
                "INSERT INTO user (unique_id, username, first_name, last_name, is_service_account)"
                " VALUES (?, ?, ?, '', 1) RETURNING *",
                (body.unique_id or new_mfid(), body.username, body.username),
            ).fetchone()
        except sqlite3.IntegrityError:
            raise refuse(409, "A user with this identifier or username already exists") from None
        return _new_key(db, row)


@router.post("/service_accounts/{reference}/rotate_key")
def rotate_key(call: Call, reference: str) -> Json:
    """Replace the keys of an account by a new one."""
    require_elevated(call.caller)
    with call.write() as db:
        row = user_row(db, reference)
        db.execute("DELETE FROM api_key WHERE user_id = ?", (row["id"],))
        return _new_key(db, row)


def _new_key(db: sqlite3.Connection, row: sqlite3.Row) -> Json:
    key = secrets.token_urlsafe(32)
    register_key(db, key, row["id"])
    return user_record(row) | {"api_key": key}


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
    scope: Literal["accessible", "submitted", "reviewable"] = "accessible",
    limit: Limit = 100,
    offset: Offset = 0,
) -> Json:
    """List the requests that the caller made, or could make as an administrator of the project, newest first."""
    with call.read() as db:
        rows = db.execute("SELECT * FROM deletion_request ORDER BY id DESC").fetchall()
        rows = [row for row in rows if _is_visible(db, call.caller, row, scope)]
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


def _is_visible(db: sqlite3.Connection, caller: Caller, row: sqlite3.Row, scope: str = "accessible") -> bool:
    is_own, may_delete = row["requester_id"] == caller.id, role_on(db, caller, row["resource_id"]) >= ADMIN
    return bool({"submitted": is_own, "reviewable": may_delete}.get(scope, is_own or may_delete))


def _record(db: sqlite3.Connection, row: sqlite3.Row) -> Json:
    resource = names(db, [row["resource_id"]])[row["resource_id"]]
    requester = public_user(db.execute("SELECT * FROM user WHERE id = ?", (row["requester_id"],)).fetchone())
    return {
        **{name: row[name] for name in ("id", "reason", "request_time")},
        "resource_type": resource["type"],
        "resource_id": resource["mfid"],
        "resource_name": resource["name"],
        "project_id": resource["slug"],
        "requester_id": requester and requester["unique_id"],
        "requester": requester,
        "status": "pending",
    }
