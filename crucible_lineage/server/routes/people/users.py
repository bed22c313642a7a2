"""Users: list, look up; and service accounts, users that are programs, with keys that administrators make."""

# ruff: noqa: ARG001 - a route declares each parameter that clients may send, used or not
# ruff: noqa: S608 - SQL is put together from words of this package only; values are always bound
from __future__ import annotations

import re
import secrets
import sqlite3
from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import Field

from crucible_lineage.ids import new_mfid
from crucible_lineage.server.call import AuthenticatedCall, Call
from crucible_lineage.server.catalogue.access import (
    ADMIN,
    PLATFORM_ADMIN,
    ROLE_NAMES,
    VIEWER,
    require,
    user_roles,
)
from crucible_lineage.server.catalogue.filters import Where
from crucible_lineage.server.catalogue.people import public_user, user_record
from crucible_lineage.server.catalogue.references import user_row
from crucible_lineage.server.database import register_key
from crucible_lineage.server.http import Direction, Form, Json, Limit, Offset, page, refuse
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.routes.people.account import Username

router = new_router()

SearchLimit = Annotated[int, Query(ge=1, le=50)]
PlatformRole = Literal["none", "contributor", "admin"]
Identifier = Annotated[str, Field(pattern=r"^(\d{4}-\d{4}-\d{4}-\d{3}[0-9X]|[0-9a-hjkmnp-tv-z]{26})$")]
Names = Annotated[list[str], Field(max_length=1000)]


SERVICE_ACCOUNTS = (
    "SELECT user.*, (SELECT MAX(created) FROM api_key WHERE user_id = user.id) AS key_created FROM user"
    " WHERE is_service_account"
)


class References(Form):
    orcids: Names = Field(default_factory=list)
    usernames: Names = Field(default_factory=list)
    emails: Names = Field(default_factory=list)


class NewServiceAccount(Form):
    username: Username
    unique_id: Identifier | None = None


class Promotion(Form):
    platform_role: PlatformRole


@router.get("/users")
def list_users(
    call: Call,
    q: str | None = None,
    search_fields: Annotated[list[str], Query(max_length=10)] = [],  # noqa: B006
    first_name: str | None = None,
    last_name: str | None = None,
    username: str | None = None,
    email: str | None = None,
    unique_id: str | None = None,
    is_service_account: bool | None = None,
    platform_role: Annotated[list[PlatformRole], Query(max_length=10)] = [],  # noqa: B006
    permissive: bool = False,
    sort: Literal["name", "username", "unique_id", "email"] = "name",
    direction: Direction = "asc",
    include_total: bool = True,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Json:
    if platform_role:
        require_elevated(call)
    exact = {"first_name": first_name, "last_name": last_name, "username": username, "email": email,
             "unique_id": unique_id}  # fmt: skip
    found = Where("1")
    for column, value in exact.items():
        if value is not None:
            found.add(f"{column} = ?", value)
    if is_service_account is not None:
        found.add("is_service_account = ?", int(is_service_account))
    if platform_role:
        found.add("platform_role IN (" + ",".join(f"'{role}'" for role in platform_role) + ")")
    if q:
        found.add("instr(lower(first_name || ' ' || last_name || ' ' || COALESCE(username, '')), lower(?))", q)
    order = {"name": "last_name"}.get(sort, sort)
    with call.read() as db:
        total = db.execute(f"SELECT COUNT(*) FROM user WHERE {found}", found.values).fetchone()[0]
        rows = db.execute(
            f"SELECT * FROM user WHERE {found} ORDER BY {order} {direction}, id LIMIT {limit} OFFSET {offset}",
            found.values,
        )
        return page([user_record(row) for row in rows], limit, total, offset)


@router.get("/users/search")
def search_users(call: Call, q: Annotated[str, Query(min_length=1, max_length=200)], limit: SearchLimit = 20) -> Json:
    pattern = "%" + re.sub(r"([%_\\])", r"\\\1", q) + "%"
    with call.read() as db:
        rows = db.execute(
            "SELECT * FROM user WHERE (first_name || ' ' || last_name || ' ' || COALESCE(username, ''))"
            " LIKE ? ESCAPE '\\' ORDER BY last_name, unique_id LIMIT ?",
            (pattern, limit),
        )
        return [public_user(row) for row in rows]


@router.post("/users/resolve")
def resolve_users(call: Call, body: References) -> Json:
    with call.read() as db:
        return {reference: _resolved(db, reference) for reference in [*body.orcids, *body.usernames, *body.emails]}


@router.get("/users/{reference}")
def get_user(call: Call, reference: str) -> Json:
    with call.read() as db:
        return user_record(user_row(db, reference))


@router.delete("/users/{reference}/apikey", status_code=204)
def revoke_keys(call: Call, reference: str) -> Response:
    require_elevated(call)
    with call.write() as db:
        db.execute("DELETE FROM api_key WHERE user_id = ?", (user_row(db, reference)["id"],))
    return Response(status_code=204)


@router.get("/users/{reference}/apikey/verify")
def verify_keys(call: Call, reference: str) -> Json:
    with call.read() as db:
        user = user_row(db, reference)
        if user["id"] != call.caller.id:
            require_elevated(call)
        created = db.execute("SELECT MAX(created) FROM api_key WHERE user_id = ?", (user["id"],)).fetchone()[0]
    return {"valid": created is not None, "created_at": created, "expires_at": None}


@router.patch("/users/{reference}/platform_role")
def change_platform_role(call: Call, reference: str, body: Promotion) -> Json:
    require_elevated(call)
    with call.write() as db:
        return user_record(_promoted(db, user_row(db, reference), body.platform_role))


@router.get("/users/{reference}/access_groups")
def list_access_groups(call: Call, reference: str) -> Json:
    with call.read() as db:
        user_row(db, reference)
    return []  # grants to users and projects are all that there is


@router.get("/users/{reference}/datasets/{mfid}")
def check_access(call: Call, reference: str, mfid: str) -> Json:
    with call.read() as db:
        user = user_row(db, reference)
        own = user["id"] == call.caller.id
        row = require(db, call.caller, mfid, VIEWER if own else ADMIN, "dataset")
        held = user_roles(db, user["id"], [row["id"]])[row["id"]]
        role = PLATFORM_ADMIN if user["platform_role"] == "admin" and held < VIEWER else held
        return {"resource_mfid": mfid, "user_id": user["unique_id"], "effective_access": ROLE_NAMES[role]}


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
        try:
            row = db.execute(
                "INSERT INTO user (unique_id, username, first_name, last_name, is_service_account)"
                " VALUES (?, ?, ?, '', 1) RETURNING *",
                (body.unique_id or new_mfid(), body.username, body.username),
            ).fetchone()
        except sqlite3.IntegrityError:
            raise refuse(409, "A user with this identifier or username already exists") from None
        register_key(db, key, row["id"])
        return _with_key(row, key)


@router.get("/service_accounts/{reference}")
def get_service_account(call: Call, reference: str) -> Json:
    require_elevated(call)
    with call.read() as db:
        return _service_account(_service_account_row(db, reference))


@router.patch("/service_accounts/{reference}")
def change_service_account(call: Call, reference: str, body: Promotion) -> Json:
    require_elevated(call)
    with call.write() as db:
        _promoted(db, _service_account_row(db, reference), body.platform_role)
        return _service_account(_service_account_row(db, reference))


@router.post("/service_accounts/{reference}/rotate_key")
def rotate_key(call: Call, reference: str) -> Json:
    require_elevated(call)
    key = secrets.token_urlsafe(32)
    with call.write() as db:
        row = _service_account_row(db, reference)
        db.execute("DELETE FROM api_key WHERE user_id = ?", (row["id"],))
        register_key(db, key, row["id"])
        return _with_key(row, key)


def require_elevated(call: AuthenticatedCall) -> None:
    if not call.caller.elevated:
        raise refuse(403, "Only platform administrators may do this")


def _resolved(db: sqlite3.Connection, reference: str) -> dict[str, Any] | None:
    return public_user(
        db.execute(
            "SELECT * FROM user WHERE unique_id = ?1 OR username = ?1 OR (email = ?1 AND instr(?1, '@'))", (reference,)
        ).fetchone()
    )


def _service_account_row(db: sqlite3.Connection, reference: str) -> sqlite3.Row:
    number = user_row(db, reference)["id"]
    row: sqlite3.Row | None = db.execute(f"{SERVICE_ACCOUNTS} AND user.id = ?", (number,)).fetchone()
    if row is None:
        raise refuse(404, "Service account not found")
    return row


def _promoted(db: sqlite3.Connection, user: sqlite3.Row, role: str) -> sqlite3.Row:
    """The user with this role on the platform; one administrator always stays."""
    others = db.execute("SELECT 1 FROM user WHERE platform_role = 'admin' AND id <> ?", (user["id"],)).fetchone()
    if user["platform_role"] == "admin" and role != "admin" and others is None:
        raise refuse(409, "The last administrator stays one")
    db.execute("UPDATE user SET platform_role = ? WHERE id = ?", (role, user["id"]))
    row: sqlite3.Row = db.execute("SELECT * FROM user WHERE id = ?", (user["id"],)).fetchone()
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
