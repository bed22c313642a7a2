"""Accounts, users, service accounts, and access to resources."""

from __future__ import annotations

import secrets
import sqlite3
import time
from typing import Annotated, Literal

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from crucible_lineage import __version__
from crucible_lineage.ids import new_mfid
from crucible_lineage.server.call import AuthenticatedCall, Call, Service
from crucible_lineage.server.catalogue.access import (
    ADMIN,
    OWNER,
    PLATFORM_ADMIN,
    PUBLIC_GRANT,
    ROLE_NAMES,
    ROLE_VALUES,
    VIEWER,
    grants,
    project_grant,
    public_user,
    require,
    user_grant,
    user_record,
    user_roles,
)
from crucible_lineage.server.catalogue.filters import Conditions
from crucible_lineage.server.catalogue.resources import (
    USERNAME,
    find_user,
    hand_over,
    home_project,
    project_row,
    select,
    touch,
    user_row,
)
from crucible_lineage.server.database import JsonObject, hash_key, register_key
from crucible_lineage.server.http import Direction, Form, Json, Limit, Offset, SearchLimit, Text, page, refuse
from crucible_lineage.server.http import router as new_router

router = new_router()

Username = Annotated[str, Field(min_length=3, max_length=24, pattern=USERNAME)]
Email = Annotated[str, Field(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")]


# ruff: noqa: ARG001 - a route declares each parameter that clients may send, used or not
# ruff: noqa: S608 - SQL is built from constants of this package only; values are always bound


PlatformRole = Literal["none", "contributor", "admin"]
Identifier = Annotated[str, Field(pattern=r"^(\d{4}-\d{4}-\d{4}-\d{3}[0-9X]|[0-9a-hjkmnp-tv-z]{26})$")]
Names = Annotated[list[str], Field(max_length=1000)]


SERVICE_ACCOUNTS = "SELECT user.*, (SELECT MAX(created) FROM api_key WHERE user_id = user.id) AS key_created FROM user"


_NAMES_CONTAIN = "instr(lower(first_name || ' ' || last_name || ' ' || COALESCE(username, '')), lower(?))"
SHARED = ("dataset", "sample", "instrument")


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
            "user_info": user_record(_user(db, call.caller.id)),
        }


@router.get("/account/profile")
def profile(call: Call) -> Json:
    caller = call.caller
    with call.read() as db:
        me = _user(db, call.caller.id)
    return user_record(me) | {
        "authorization": {
            "platform_role": me["platform_role"],
            "effective_privilege_mode": "elevated" if caller.elevated else "normal",
            "can_elevate": caller.is_admin,
        },
        "capabilities": {
            "can_manage_service_accounts": caller.elevated,
            "can_manage_users": False,  # only service accounts and roles can be managed here
            "can_create_project": True,
            "can_register_instrument": not caller.is_service_account,
            "can_create_sample": True,
            "can_create_dataset": True,
            "can_create_for_others": caller.elevated,
        },
    }


@router.patch("/account/profile")
def change_profile(call: Call, body: ProfilePatch) -> Json:
    changes: JsonObject = body.model_dump(exclude_unset=True)
    if any(changes.get(name, "") is None for name in ("first_name", "last_name")):
        raise refuse(422, "first_name and last_name cannot be null")
    with call.write() as db:
        for name, value in changes.items():
            try:
                db.execute(f"UPDATE user SET {name} = ? WHERE id = ?", (value, call.caller.id))
            except sqlite3.IntegrityError:
                raise refuse(409, f"This {name} is taken") from None
        return user_record(_user(db, call.caller.id))


@router.get("/account/apikey")
def api_key(call: Call) -> Json:
    """Return the key of this request; the others are stored only as hashes."""
    return {"api_key": call.key}


@router.get("/account/verify")
def verify(call: Call) -> Json:
    with call.read() as db:
        created = db.execute("SELECT created FROM api_key WHERE hash = ?", (hash_key(call.key),)).fetchone()[0]
    return {"valid": True, "created_at": created, "expires_at": "9999-12-31T23:59:59+00:00"}


def _user(db: sqlite3.Connection, number: int) -> sqlite3.Row:
    row: sqlite3.Row = db.execute("SELECT * FROM user WHERE id = ?", (number,)).fetchone()
    return row


def _build() -> Json:
    return {"api_version": "3.0.0", "git_commit": f"crucible-lineage {__version__}", "branch": "embedded"}


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
    conditions = Conditions("1")
    for column, value in exact.items():
        if value is not None:
            conditions.add(f"{column} = ?", value)
    if is_service_account is not None:
        conditions.add("is_service_account = ?", int(is_service_account))
    if platform_role:
        conditions.add("platform_role IN (" + ",".join(f"'{role}'" for role in platform_role) + ")")
    if q:
        conditions.add(_NAMES_CONTAIN, q)
    order = {"name": "last_name"}.get(sort, sort)
    with call.read() as db:
        rows, total = conditions.page(db, "SELECT * FROM user", f"{order} {direction}, id", limit, offset)
        return page([user_record(row) for row in rows], limit, total, offset)


@router.get("/users/search")
def search_users(call: Call, q: Annotated[str, Query(min_length=1, max_length=200)], limit: SearchLimit = 20) -> Json:
    conditions = Conditions()
    conditions.add(_NAMES_CONTAIN, q)
    with call.read() as db:
        rows, _ = conditions.page(db, "SELECT * FROM user", "last_name, unique_id", limit, 0)
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
        return user_record(_set_role(db, user_row(db, reference), body.platform_role))


@router.get("/users/{reference}/access_groups")
def list_access_groups(call: Call, reference: str) -> Json:
    with call.read() as db:
        user_row(db, reference)
    return []  # there are only grants to users and projects


@router.get("/users/{reference}/datasets/{mfid}")
def check_access(call: Call, reference: str, mfid: str) -> Json:
    with call.read() as db:
        user = user_row(db, reference)
        is_own = user["id"] == call.caller.id
        row = require(db, call.caller, mfid, VIEWER if is_own else ADMIN, "dataset")
        own_role = user_roles(db, user["id"], [row["id"]])[row["id"]]
        role = PLATFORM_ADMIN if user["platform_role"] == "admin" and own_role < VIEWER else own_role
        return {"resource_mfid": mfid, "user_id": user["unique_id"], "effective_access": ROLE_NAMES[role]}


@router.get("/service_accounts")
def list_service_accounts(call: Call, q: str | None = None, limit: Limit = 100, offset: Offset = 0) -> Json:
    require_elevated(call)
    with call.read() as db:
        conditions = Conditions("is_service_account")
        if q:
            conditions.add("instr(lower(username), lower(?))", q)
        rows, total = conditions.page(db, SERVICE_ACCOUNTS, "username", limit, offset)
        return page([_service_account(row) for row in rows], limit, total, offset)


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
        _set_role(db, _service_account_row(db, reference), body.platform_role)
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


def _service_account_row(db: sqlite3.Connection, reference: str) -> sqlite3.Row:
    number = user_row(db, reference)["id"]
    row: sqlite3.Row | None = db.execute(
        f"{SERVICE_ACCOUNTS} WHERE is_service_account AND user.id = ?", (number,)
    ).fetchone()
    if row is None:
        raise refuse(404, "Service account not found")
    return row


def _set_role(db: sqlite3.Connection, user: sqlite3.Row, role: str) -> sqlite3.Row:
    """Set the user's platform role; one administrator must remain."""
    others = db.execute("SELECT 1 FROM user WHERE platform_role = 'admin' AND id <> ?", (user["id"],)).fetchone()
    if user["platform_role"] == "admin" and role != "admin" and others is None:
        raise refuse(409, "The last administrator cannot be demoted")
    db.execute("UPDATE user SET platform_role = ? WHERE id = ?", (role, user["id"]))
    return _user(db, user["id"])


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


class Permission(Form):
    permission: Literal["viewer", "contributor", "editor", "admin"]


class NewOwner(Form):
    new_owner: str


class ProjectForm(Form):
    project_id: str | None = None
    project_mfid: str | None = None


@router.get("/resources/{mfid}/access")
def list_access(call: Call, mfid: str) -> Json:
    with call.read() as db:
        row = require(db, call.caller, mfid, VIEWER)
        return grants(db, row["id"])


@router.put("/resources/{mfid}/access/public")
def make_public(call: Call, mfid: str) -> Json:
    _set_public(call, mfid, 1)
    return PUBLIC_GRANT


@router.delete("/resources/{mfid}/access/public")
def make_private(call: Call, mfid: str) -> Json:
    _set_public(call, mfid, 0)
    return {"detail": f"Resource {mfid} is private"}


def _set_public(call: AuthenticatedCall, mfid: str, value: int) -> None:
    with call.write() as db:
        row = require(db, call.caller, mfid, ADMIN, SHARED)
        db.execute("UPDATE resource SET public = ? WHERE id = ?", (value, row["id"]))
        touch(db, row["id"])


@router.put("/resources/{mfid}/access/{kind}/{principal}")
def grant_access(call: Call, mfid: str, kind: Literal["users", "projects"], principal: str, body: Permission) -> Json:
    role = ROLE_VALUES[body.permission]
    with call.write() as db:
        row = require(db, call.caller, mfid, ADMIN)
        column, principal_row = _principal(db, kind, principal)
        if kind == "users" and principal_row["id"] == row["owner_id"]:
            raise refuse(422, "The owner has every right already")
        db.execute(
            f"INSERT INTO access (resource_id, {column}, role) VALUES (?, ?, ?)"
            f" ON CONFLICT (resource_id, {column}) DO UPDATE SET role = excluded.role",
            (row["id"], principal_row["id"], role),
        )
        touch(db, row["id"])
        return (user_grant if kind == "users" else project_grant)(principal_row, body.permission)


@router.delete("/resources/{mfid}/access/{kind}/{principal}")
def revoke_access(call: Call, mfid: str, kind: Literal["users", "projects"], principal: str) -> Json:
    with call.write() as db:
        row = require(db, call.caller, mfid, ADMIN)
        column, principal_row = _principal(db, kind, principal)
        revoked = db.execute(
            f"DELETE FROM access WHERE resource_id = ? AND {column} = ?",
            (row["id"], principal_row["id"]),
        ).rowcount
        if not revoked:
            raise refuse(404, f"{principal} has no grant on this resource")
        touch(db, row["id"])
        return {"detail": f"Access of {principal} revoked"}


@router.get("/resources/{mfid}/access_groups")
def list_resource_access_groups(call: Call, mfid: str) -> Json:
    with call.read() as db:
        require(db, call.caller, mfid, VIEWER)
    return []  # there are only grants to users and projects


@router.post("/resources/{mfid}/transfer_ownership")
def transfer_ownership(call: Call, mfid: str, body: NewOwner, confirm: bool = Query(False)) -> Json:
    with call.write() as db:
        row = require(db, call.caller, mfid, OWNER)
        new_owner = user_row(db, body.new_owner)
        previous_owner = db.execute("SELECT * FROM user WHERE id = ?", (row["owner_id"],)).fetchone()
        if confirm:
            hand_over(db, row, body.new_owner)
        return {
            "resource_id": mfid,
            "previous_owner": user_record(previous_owner) if previous_owner else None,
            "new_owner": user_record(new_owner),
        }


@router.post("/resources/{mfid}/project")
def reassign_project(call: Call, mfid: str, body: ProjectForm, confirm: bool = Query(False)) -> Json:
    if (body.project_id is None) == (body.project_mfid is None):
        raise refuse(422, "Name exactly one of project_id and project_mfid")
    with call.write() as db:
        row = require(db, call.caller, mfid, ADMIN, ("dataset", "sample"))
        target = select(db, "project", body.project_id, body.project_mfid, status=404)
        assert target is not None
        home_project(db, call.caller, body.project_id, body.project_mfid)
        previous = db.execute(
            "SELECT mfid, slug FROM resource JOIN project USING (id) WHERE id = ?", (row["project_id"],)
        ).fetchone()
        if confirm:
            db.execute("UPDATE resource SET project_id = ? WHERE id = ?", (target["id"], row["id"]))
            touch(db, row["id"])
        return {
            "resource_id": mfid,
            "resource_mfid": mfid,
            "previous_project_id": previous["slug"] if previous else None,
            "previous_project_mfid": previous["mfid"] if previous else None,
            "new_project_id": target["slug"],
            "new_project_mfid": target["mfid"],
        }


def _principal(db: sqlite3.Connection, kind: str, reference: str) -> tuple[str, sqlite3.Row]:
    if kind == "users":
        return "user_id", user_row(db, reference)
    return "project_id", project_row(db, reference)
