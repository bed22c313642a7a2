"""Accounts with their keys, users, and the health of the server."""

from __future__ import annotations

import secrets
import sqlite3
from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from crucible_lineage import __version__
from crucible_lineage.ids import new_mfid
from crucible_lineage.server.call import Call, Service
from crucible_lineage.server.catalogue.access import public_user, require_elevated, user_record
from crucible_lineage.server.catalogue.resources import find_user, user_row
from crucible_lineage.server.database import hash_key, register_key
from crucible_lineage.server.http import Form, Json, refuse
from crucible_lineage.server.http import router as new_router

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
    account = {name: user_record(row)[name] for name in ("unique_id", "username", "is_service_account")}
    return {**account, "api_key": key}
