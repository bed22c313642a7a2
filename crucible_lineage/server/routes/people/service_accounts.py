"""Service accounts: users that are programs, with keys that administrators make."""

from __future__ import annotations

import secrets
import sqlite3

from crucible_lineage.server.catalogue.people import user_record
from crucible_lineage.server.database import register_key
from crucible_lineage.server.http import (
    Call,
    Form,
    Json,
    Limit,
    Offset,
    page,
    refuse,
)
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.routes.people.account import Username
from crucible_lineage.server.routes.people.users import Identifier, RoleChange, insert_user, require_elevated

router = new_router()

SERVICE_ACCOUNTS = (
    "SELECT user.*, (SELECT MAX(created) FROM api_key WHERE user_id = user.id) AS key_created FROM user"
    " WHERE is_service_account"
)


class NewServiceAccount(Form):
    username: Username
    unique_id: Identifier | None = None


@router.get("/service_accounts")
def list_service_accounts(call: Call, q: str | None = None, limit: Limit = 100, offset: Offset = 0) -> Json:
    require_elevated(call)
    with call.read() as db:
        rows = [row for row in db.execute(f"{SERVICE_ACCOUNTS} ORDER BY username") if not q or q in row["username"]]
    return page([_service_account(row) for row in rows[offset : offset + limit]], limit, len(rows), offset)


@router.post("/service_accounts", status_code=201)
def create_service_account(call: Call, body: NewServiceAccount) -> Json:
    require_elevated(call)
    key = secrets.token_urlsafe(32)
    with call.write() as db:
        row = insert_user(db, body.unique_id, body.username, body.username, "", None, is_service_account=True)
        register_key(db, key, row["id"])
        return _with_key(row, key)


@router.get("/service_accounts/{reference}")
def get_service_account(call: Call, reference: str) -> Json:
    require_elevated(call)
    with call.read() as db:
        return _service_account(_find_service_account(db, reference))


@router.patch("/service_accounts/{reference}")
def change_service_account(call: Call, reference: str, body: RoleChange) -> Json:
    require_elevated(call)
    with call.write() as db:
        row = _find_service_account(db, reference)
        db.execute("UPDATE user SET platform_role = ? WHERE id = ?", (body.platform_role, row["id"]))
        return _service_account(_find_service_account(db, reference))


@router.post("/service_accounts/{reference}/rotate_key")
def rotate_key(call: Call, reference: str) -> Json:
    require_elevated(call)
    key = secrets.token_urlsafe(32)
    with call.write() as db:
        row = _find_service_account(db, reference)
        db.execute("DELETE FROM api_key WHERE user_id = ?", (row["id"],))
        register_key(db, key, row["id"])
        return _with_key(row, key)


def _find_service_account(db: sqlite3.Connection, reference: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute(
        f"{SERVICE_ACCOUNTS} AND (unique_id = ?1 OR username = ?1)", (reference,)
    ).fetchone()
    if row is None:
        raise refuse(404, "Service account not found")
    return row


def _service_account(row: sqlite3.Row) -> Json:
    status = {"created_at": row["key_created"], "expires_at": None, "valid": True} if row["key_created"] else None
    return user_record(row) | {"api_key_status": status}


def _with_key(row: sqlite3.Row, key: str) -> Json:
    return {
        "unique_id": row["unique_id"],
        "username": row["username"],
        "is_service_account": True,
        "api_key": key,
    }
