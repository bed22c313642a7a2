"""Projects with their members, instruments, accounts with their keys, deletions, and the health of the server."""

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
    ROLE_NAMES,
    VIEWER,
    Caller,
    members,
    not_found,
    public_user,
    require,
    require_elevated,
    role_on,
    user_record,
)
from crucible_lineage.server.call import Call, Service
from crucible_lineage.server.database import hash_key, now, register_key
from crucible_lineage.server.http import MAX_ROW_ID, Form, Json, LenientBody, Limit, Name, Offset, Text, page, refuse
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.records import INSTRUMENTS, PROJECTS, Conditions, Embed, load, names, records
from crucible_lineage.server.resources import choose_owner, find_user, insert, named_row, touch, user_row
from crucible_lineage.server.storage import sweep

# ruff: noqa: ARG001 - a route declares each parameter that clients may send, used or not
# ruff: noqa: S608 - SQL is built from constants of this package only; values are always bound

router = new_router()

Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{2,24}$")]
Role = Literal["viewer", "contributor", "editor", "admin"]
Status = Literal["active", "maintenance", "decommissioned"]


class NewProject(LenientBody):
    project_id: Slug
    organization: Text | None = None
    title: Text | None = None
    status: Text = "active"
    project_lead: str | None = None
    project_lead_orcid: str | None = None
    project_lead_email: str | None = None
    project_lead_username: str | None = None


@router.get("/projects")
def list_projects(
    call: Call,
    project_id: str | None = None,
    include_metadata: bool = False,
    include_members: bool = False,
    include_total: bool = True,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Json:
    """Return a page of projects. Everybody may know that a project exists."""
    conditions = Conditions("NOT resource.hidden")
    with call.read() as db:
        if project_id is not None:
            conditions.add("project.slug = ?", project_id)
            row = db.execute("SELECT id FROM project WHERE slug = ?", (project_id,)).fetchone()
            call.add_revision(db, row and row["id"])
        rows, total = conditions.page(db, PROJECTS, "slug, resource.mfid", limit, offset)
        embed = Embed(metadata=include_metadata, members=include_members)
        return page(records(db, call.caller, "project", rows, embed), limit, total, offset)


@router.post("/projects", status_code=201)
def create_project(call: Call, body: NewProject) -> Json:
    references = [body.project_lead, body.project_lead_orcid, body.project_lead_email, body.project_lead_username]
    leads = [reference for reference in references if reference is not None]
    if len(leads) != 1:
        raise refuse(400, "Name exactly one project lead")
    with call.write() as db:
        lead = choose_owner(db, call.caller, leads[0])
        _refuse_taken(db, "project", body.project_id)
        values = {
            "slug": body.project_id,
            **{name: getattr(body, name) for name in ("organization", "title", "status")},
        }
        return load(db, call.caller, "project", insert(db, "project", values, owner_id=lead), Embed(members=True))


@router.get("/projects/{reference}")
def get_project(call: Call, reference: str, include_metadata: bool = False, include_members: bool = False) -> Json:
    with call.read() as db:
        row = named_row(db, "project", reference)
        call.add_revision(db, row["id"])
        embed = Embed(metadata=include_metadata, members=include_members)
        return load(db, call.caller, "project", row["id"], embed)


@router.get("/projects/{reference}/users")
def list_members(call: Call, reference: str, limit: Limit = 100, offset: Offset = 0) -> Json:
    with call.read() as db:
        found = members(db, _require(db, call, reference, VIEWER)["id"])
        return page(found[offset : offset + limit], limit, len(found), offset)


@router.post("/projects/{reference}/users/{user}")
def add_member(call: Call, reference: str, user: str, role: Role = "contributor") -> Json:
    with call.write() as db:
        row = _require(db, call, reference, ADMIN)
        member = user_row(db, user)
        if member["id"] == row["owner_id"]:
            raise refuse(409, "The project's lead is already part of it")
        try:
            db.execute(
                "INSERT INTO member (project_id, user_id, role) VALUES (?, ?, ?)",
                (row["id"], member["id"], ROLE_NAMES.index(role)),
            )
        except sqlite3.IntegrityError:
            raise refuse(409, f"{user} is already a member of this project") from None
        touch(db, row["id"])
        return members(db, row["id"])


@router.delete("/projects/{reference}/users/{user}")
def remove_member(call: Call, reference: str, user: str) -> Json:
    with call.write() as db:
        row = _require(db, call, reference, ADMIN)
        values = (row["id"], user_row(db, user)["id"])
        if not db.execute("DELETE FROM member WHERE project_id = ? AND user_id = ?", values).rowcount:
            raise refuse(404, f"{user} is not a member of this project")
        return members(db, row["id"])


class NewInstrument(LenientBody):
    instrument_id: Slug
    instrument_name: Name
    location: Text
    manufacturer: Text | None = None
    model: Text | None = None
    instrument_type: Text | None = None
    description: Text | None = None
    other_id: Text | None = None
    other_id_source: Text | None = None
    owner: str | None = None
    owner_orcid: str | None = None


@router.get("/instruments")
def list_instruments(
    call: Call,
    instrument_id: str | None = None,
    instrument_name: str | None = None,
    status: Status | None = None,
    include_metadata: bool = False,
    include_owner: bool = False,
    include_members: bool = False,
    include_total: bool = True,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Json:
    """Return a page of instruments, by default of the active ones."""
    status = status or ("active" if instrument_id is None else None)
    conditions = Conditions("NOT hidden")
    for column, value in (("slug", instrument_id), ("instrument_name", instrument_name), ("status", status)):
        if value is not None:
            conditions.add(f"instrument.{column} = ?", value)
    with call.read() as db:
        rows, total = conditions.page(db, INSTRUMENTS, "slug, resource.mfid", limit, offset)
        embed = Embed(metadata=include_metadata, owner=include_owner)
        return page(records(db, call.caller, "instrument", rows, embed), limit, total, offset)


@router.post("/instruments", status_code=201)
def create_instrument(call: Call, body: NewInstrument) -> Json:
    with call.write() as db:
        owner = choose_owner(db, call.caller, body.owner, body.owner_orcid)
        _refuse_taken(db, "instrument", body.instrument_id)
        values = {"slug": body.instrument_id, **body.model_dump(exclude={"instrument_id", "owner", "owner_orcid"})}
        return load(db, call.caller, "instrument", insert(db, "instrument", values, owner_id=owner), Embed(owner=True))


@router.get("/instruments/{reference}")
def get_instrument(
    call: Call,
    reference: str,
    include_metadata: bool = False,
    include_owner: bool = False,
    include_members: bool = False,
) -> Json:
    with call.read() as db:
        row = named_row(db, "instrument", reference)
        return load(db, call.caller, "instrument", row["id"], Embed(metadata=include_metadata, owner=include_owner))


def _require(db: sqlite3.Connection, call: Call, reference: str, role: int) -> sqlite3.Row:
    return require(db, call.caller, named_row(db, "project", reference)["mfid"], role, "project")


def _refuse_taken(db: sqlite3.Connection, kind: str, slug: str) -> None:
    """409 if another project or instrument has this short name."""
    if db.execute(f"SELECT 1 FROM {kind} WHERE slug = ?", (slug,)).fetchone():
        article = "An" if kind == "instrument" else "A"
        raise refuse(409, f"{article} {kind} with {kind}_id {slug} already exists")


Username = Annotated[str, Field(min_length=3, max_length=24, pattern=r"^[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*$")]
Identifier = Annotated[str, Field(pattern=r"^(\d{4}-\d{4}-\d{4}-\d{3}[0-9X]|[0-9a-hjkmnp-tv-z]{26})$")]
References = Annotated[list[str], Field(max_length=1000)]
NEVER = "9999-12-31T23:59:59+00:00"


class UserReferences(Form):
    orcids: References = Field(default_factory=list)
    usernames: References = Field(default_factory=list)
    emails: References = Field(default_factory=list)


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
    call: Call, q: Annotated[str, Query(min_length=1, max_length=200)], limit: Annotated[int, Query(ge=1, le=50)] = 20
) -> Json:
    names = "lower(first_name || ' ' || last_name || ' ' || COALESCE(username, ''))"
    with call.read() as db:
        rows = db.execute(
            f"SELECT * FROM user WHERE instr({names}, lower(?)) ORDER BY last_name, unique_id LIMIT ?", (q, limit)
        )
        return [public_user(row) for row in rows]


@router.post("/users/resolve")
def resolve_users(call: Call, body: UserReferences) -> Json:
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
    with call.writing(mfid, EDITOR, ("dataset", "sample")) as (db, row):
        try:
            requested = db.execute(
                "INSERT INTO deletion_request (resource_id, requester_id, reason, request_time) VALUES (?, ?, ?, ?)"
                " RETURNING *",
                (row["id"], call.caller.id, reason, now()),
            ).fetchone()
        except sqlite3.IntegrityError:
            raise refuse(409, "A deletion request for this resource is already open") from None
        db.execute("UPDATE resource SET hidden = 1 WHERE id = ?", (row["id"],))
        return _request_record(db, requested)


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
        return page([_request_record(db, row) for row in rows[offset : offset + limit]], limit, len(rows), offset)


@router.get("/deletion_requests/{number}")
def get_request(call: Call, number: int) -> Json:
    with call.read() as db:
        row = None
        if 0 < number <= MAX_ROW_ID:
            row = db.execute("SELECT * FROM deletion_request WHERE id = ?", (number,)).fetchone()
        if row is None or not _is_visible(db, call.caller, row):
            raise not_found("deletion request")
        return _request_record(db, row)


@router.delete("/resources/{mfid}")
def delete_resource(call: Call, mfid: str, force: bool = False) -> Json:
    """Delete a resource for good, whether that was requested or not."""
    with call.writing(mfid, VIEWER) as (db, row):
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
        db.execute(  # contents that nothing else needs may be swept at once
            "INSERT OR IGNORE INTO released_content SELECT sha256, '' FROM file"
            " WHERE dataset_id = ? AND sha256 IS NOT NULL",
            (row["id"],),
        )
        db.execute("DELETE FROM resource WHERE id = ?", (row["id"],))
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
            "review_time": row["deleted_at"] if row["request_time"] else None,  # who deletes what was asked for agrees
        }
        for row in rows
    ]
    return page(items, limit, total, offset)


def _is_visible(db: sqlite3.Connection, caller: Caller, row: sqlite3.Row, scope: str = "accessible") -> bool:
    is_own, may_delete = row["requester_id"] == caller.id, role_on(db, caller, row["resource_id"]) >= ADMIN
    return bool({"submitted": is_own, "reviewable": may_delete}.get(scope, is_own or may_delete))


def _request_record(db: sqlite3.Connection, row: sqlite3.Row) -> Json:
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
