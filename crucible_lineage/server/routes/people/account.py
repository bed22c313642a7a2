"""Health, and the caller's own account."""

from __future__ import annotations

import sqlite3
import time
from typing import Annotated, Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from crucible_lineage import __version__
from crucible_lineage.server.call import AuthenticatedCall, Call, Service
from crucible_lineage.server.catalogue.bodies import Text
from crucible_lineage.server.catalogue.people import user_record
from crucible_lineage.server.catalogue.references import USERNAME
from crucible_lineage.server.database import hash_key
from crucible_lineage.server.http import Form, Json, refuse
from crucible_lineage.server.http import router as new_router

router = new_router()

Username = Annotated[str, Field(min_length=3, max_length=24, pattern=USERNAME)]
Email = Annotated[str, Field(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")]


class ProfilePatch(Form):
    first_name: Text | None = None
    last_name: Text | None = None
    email: Email | None = None
    username: Username | None = None


@router.get("/health/live")
def live() -> Json:
    return {"status": "ok"}


@router.get("/health/ready")
def ready(request: Request) -> Response:
    service: Service = request.app.state.service
    start = time.perf_counter()
    try:
        with service.database.read() as db:
            revisions = [name for (name,) in db.execute("SELECT name FROM migration ORDER BY name DESC LIMIT 1")]
    except sqlite3.Error:
        return JSONResponse({"status": "degraded", "build": _build(), "database": {"status": "error"}}, 503)
    elapsed = round((time.perf_counter() - start) * 1000, 3)
    database = {"status": "ok", "latency_ms": elapsed, "schema_revisions": revisions}
    return JSONResponse({"status": "ok", "build": _build(), "database": database})


@router.get("/account")
def account(call: Call) -> Json:
    with call.read() as db:
        groups = db.execute(
            "SELECT slug FROM project JOIN access ON access.resource_id = project.id WHERE access.user_id = ?",
            (call.caller.id,),
        )
        return {
            "user_unique_id": call.caller.unique_id,
            "access_group_ids": [slug for (slug,) in groups],
            "user_info": user_record(_me(db, call)),
        }


@router.get("/account/profile")
def profile(call: Call) -> Json:
    caller = call.caller
    with call.read() as db:
        me = _me(db, call)
    return user_record(me) | {
        "authorization": {
            "platform_role": me["platform_role"],
            "effective_privilege_mode": "elevated" if caller.elevated else "normal",
            "can_elevate": caller.is_admin,
        },
        "capabilities": {
            "can_manage_service_accounts": caller.elevated,
            "can_manage_users": False,  # service accounts and roles are all that can be managed here
            "can_create_project": True,
            "can_register_instrument": not caller.is_service_account,
            "can_create_sample": True,
            "can_create_dataset": True,
            "can_create_for_others": caller.elevated,
        },
    }


@router.patch("/account/profile")
def change_profile(call: Call, body: ProfilePatch) -> Json:
    with call.write() as db:
        return update_user(db, call.caller.id, body)


@router.get("/account/apikey")
def api_key(call: Call) -> Json:
    """The key of this very request: others are stored as hashes only."""
    return {"api_key": call.key}


@router.get("/account/verify")
def verify(call: Call) -> Json:
    with call.read() as db:
        created = db.execute("SELECT created FROM api_key WHERE hash = ?", (hash_key(call.key),)).fetchone()[0]
    return {"valid": True, "created_at": created, "expires_at": "9999-12-31T23:59:59+00:00"}


def update_user(db: sqlite3.Connection, user_id: int, body: ProfilePatch) -> Json:
    given: dict[str, Any] = body.model_dump(exclude_unset=True)
    if any(given.get(name, "") is None for name in ("first_name", "last_name")):
        raise refuse(422, "first_name and last_name cannot be null")
    for name, value in given.items():
        try:
            db.execute(f"UPDATE user SET {name} = ? WHERE id = ?", (value, user_id))  # noqa: S608
        except sqlite3.IntegrityError:
            raise refuse(409, f"This {name} is taken") from None
    return user_record(db.execute("SELECT * FROM user WHERE id = ?", (user_id,)).fetchone())


def _me(db: sqlite3.Connection, call: AuthenticatedCall) -> sqlite3.Row:
    row: sqlite3.Row = db.execute("SELECT * FROM user WHERE id = ?", (call.caller.id,)).fetchone()
    return row


def _build() -> Json:
    return {"api_version": "3.0.0", "git_commit": f"crucible-lineage {__version__}", "branch": "embedded"}
