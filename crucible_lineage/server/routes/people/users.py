"""Users: list, look up, create, change."""

# ruff: noqa: ARG001 - a route declares each parameter that clients may send, used or not
# ruff: noqa: S608 - SQL is put together from words of this package only; values are always bound
from __future__ import annotations

import sqlite3
from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import BaseModel, Field

from crucible_lineage.ids import new_mfid
from crucible_lineage.server.catalogue.access import (
    ADMIN,
    CONTRIBUTOR,
    PLATFORM_ADMIN,
    ROLE_NAMES,
    ROLE_VALUES,
    VIEWER,
    find,
    require,
    user_roles,
)
from crucible_lineage.server.catalogue.bodies import Text
from crucible_lineage.server.catalogue.filters import Where
from crucible_lineage.server.catalogue.people import public_user, user_record
from crucible_lineage.server.catalogue.references import project_row, user_row
from crucible_lineage.server.http import (
    AuthenticatedCall,
    Call,
    Direction,
    Form,
    Json,
    Limit,
    Offset,
    page,
    refuse,
)
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.routes.people.account import Email, ProfilePatch, Username, update_user
from crucible_lineage.server.routes.resources.projects import projects_page

router = new_router()

MEMBER_ROLES = ("viewer", "contributor", "editor", "admin")
PlatformRole = Literal["none", "contributor", "admin"]
Identifier = Annotated[str, Field(pattern=r"^(\d{4}-\d{4}-\d{4}-\d{3}[0-9X]|[0-9a-hjkmnp-tv-z]{26})$")]
Names = Annotated[list[str], Field(max_length=1000)]


class References(Form):
    orcids: Names = Field(default_factory=list)
    usernames: Names = Field(default_factory=list)
    emails: Names = Field(default_factory=list)


class UserInfo(BaseModel):
    first_name: Text
    last_name: Text
    username: Username | None = None
    email: Email | None = None
    orcid: Identifier | None = None


class NewUser(Form):
    user_info: UserInfo
    project_ids: list[str] = Field(default_factory=list)


class RoleChange(Form):
    platform_role: PlatformRole


@router.get("/users")
def list_users(
    call: Call,
    q: str | None = None,
    search_fields: Annotated[list[str], Query()] = [],  # noqa: B006
    first_name: str | None = None,
    last_name: str | None = None,
    username: str | None = None,
    email: str | None = None,
    unique_id: str | None = None,
    is_service_account: bool | None = None,
    platform_role: Annotated[list[PlatformRole], Query()] = [],  # noqa: B006
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


@router.post("/users/resolve")
def resolve_users(call: Call, body: References) -> Json:
    with call.read() as db:
        return {reference: _resolved(db, reference) for reference in [*body.orcids, *body.usernames, *body.emails]}


@router.post("/users", status_code=201)
def create_user(call: Call, body: NewUser) -> Json:
    require_elevated(call)
    info = body.user_info
    with call.write() as db:
        row = insert_user(db, info.orcid, info.username, info.first_name, info.last_name, info.email)
        for reference in body.project_ids:
            project = project_row(db, reference, status=422)
            values = (project["id"], row["id"], CONTRIBUTOR)
            db.execute("INSERT INTO access (resource_id, user_id, role) VALUES (?, ?, ?)", values)
        return user_record(row)


@router.get("/users/{reference}")
def get_user(call: Call, reference: str) -> Json:
    with call.read() as db:
        return user_record(user_row(db, reference))


@router.patch("/users/{reference}")
def change_user(call: Call, reference: str, body: ProfilePatch) -> Json:
    with call.write() as db:
        row = user_row(db, reference)
        if row["id"] != call.caller.id:
            require_elevated(call)
        return update_user(db, row["id"], body)


@router.patch("/users/{reference}/platform_role")
def set_platform_role(call: Call, reference: str, body: RoleChange) -> Json:
    require_elevated(call)
    with call.write() as db:
        row = user_row(db, reference)
        if row["id"] == call.caller.id and body.platform_role != "admin":
            raise refuse(409, "You cannot take the administrator's role from yourself")
        db.execute("UPDATE user SET platform_role = ? WHERE id = ?", (body.platform_role, row["id"]))
        return user_record(user_row(db, row["unique_id"]))


@router.delete("/users/{reference}/apikey", status_code=204)
def revoke_keys(call: Call, reference: str) -> Response:
    require_elevated(call)
    with call.write() as db:
        db.execute("DELETE FROM api_key WHERE user_id = ?", (user_row(db, reference)["id"],))
    return Response(status_code=204)


@router.get("/users/{reference}/apikey/verify")
def verify_key(call: Call, reference: str) -> Json:
    with call.read() as db:
        row = user_row(db, reference)
        if row["id"] != call.caller.id:
            require_elevated(call)
        created = db.execute("SELECT MAX(created) FROM api_key WHERE user_id = ?", (row["id"],)).fetchone()[0]
    return {"valid": created is not None, "created_at": created, "expires_at": None}


@router.get("/users/{reference}/datasets/{mfid}")
def check_access(call: Call, reference: str, mfid: str) -> Json:
    with call.read() as db:
        user = user_row(db, reference)
        if user["id"] == call.caller.id:
            row = find(db, mfid, "dataset")
        else:
            row = require(db, call.caller, mfid, ADMIN, "dataset")
        held = user_roles(db, user["id"], [row["id"]])[row["id"]]
        role = PLATFORM_ADMIN if user["platform_role"] == "admin" and held < VIEWER else held
        return {"resource_mfid": mfid, "user_id": user["unique_id"], "effective_access": ROLE_NAMES[role]}


@router.get("/users/{reference}/projects")
def list_user_projects(
    call: Call,
    reference: str,
    role: Annotated[list[Literal["viewer", "contributor", "editor", "admin", "owner"]], Query()] = [],  # noqa: B006
    sort: Literal["project_id", "title", "created", "updated"] | None = None,
    direction: Direction | None = None,
    include_total: bool = True,
    include_metadata: bool = False,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Json:
    with call.read() as db:
        user = user_row(db, reference)["id"]
        found = Where("NOT resource.hidden")
        numbers = ",".join(str(ROLE_VALUES[name]) for name in role or MEMBER_ROLES)
        member = f"resource.id IN (SELECT resource_id FROM access WHERE user_id = ? AND role IN ({numbers}))"
        if not role or "owner" in role:
            found.add(f"(owner_id = ? OR {member})", user, user)
        else:
            found.add(member, user)
        return projects_page(db, call.caller, found, sort, direction, limit, offset, include_metadata, False)


@router.get("/users/{reference}/access_groups")
def list_user_groups(call: Call, reference: str) -> Json:
    with call.read() as db:
        found = db.execute(
            "SELECT slug FROM access JOIN project ON project.id = resource_id WHERE access.user_id = ? ORDER BY slug",
            (user_row(db, reference)["id"],),
        )
        return [slug for (slug,) in found]


def require_elevated(call: AuthenticatedCall) -> None:
    if not call.caller.elevated:
        raise refuse(403, "Only platform administrators may do this")


def _resolved(db: sqlite3.Connection, reference: str) -> dict[str, Any] | None:
    return public_user(
        db.execute(
            "SELECT * FROM user WHERE unique_id = ?1 OR username = ?1 OR (email = ?1 AND instr(?1, '@'))", (reference,)
        ).fetchone()
    )


def insert_user(
    db: sqlite3.Connection,
    unique_id: str | None,
    username: str | None,
    first_name: str,
    last_name: str,
    email: str | None,
    *,
    is_service_account: bool = False,
) -> sqlite3.Row:
    try:
        row: sqlite3.Row = db.execute(
            "INSERT INTO user (unique_id, username, first_name, last_name, email, is_service_account)"
            " VALUES (?, ?, ?, ?, ?, ?) RETURNING *",
            (unique_id or new_mfid(), username, first_name, last_name, email, int(is_service_account)),
        ).fetchone()
    except sqlite3.IntegrityError:
        raise refuse(409, "A user with this identifier, username or email already exists") from None
    return row
