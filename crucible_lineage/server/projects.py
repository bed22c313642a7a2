"""Projects with their members, instruments, accounts with their keys, deletions, and the health of the server."""

from __future__ import annotations

import secrets
from functools import partial
from sqlite3 import Row
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from crucible_lineage import __version__
from crucible_lineage.ids import new_mfid
from crucible_lineage.server.call import Call
from crucible_lineage.server.database import Transaction, hash_key, now, register_key
from crucible_lineage.server.http import Form, Json, Name, Number, Page, Refusal, Text, delete, get, post
from crucible_lineage.server.records import FIELDS, Conditions, Includes, deletion_records, load, names, records
from crucible_lineage.server.resources import (
    ADMIN,
    EDITOR,
    ROLE_NAMES,
    VIEWER,
    Caller,
    change,
    choose_owner,
    find,
    find_user,
    insert,
    members,
    not_found,
    public_user,
    require,
    require_elevated,
    role_on,
    rows_of,
    user_record,
    user_row,
)
from crucible_lineage.server.storage import sweep

# ruff: noqa: S608 - SQL is built from constants of this package only; values are always bound

Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{2,24}$")]
Role = Literal["viewer", "contributor", "editor", "admin"]


def _add_routes(kind: str, filters: dict[str, str], owners: tuple[str, ...], needed: dict[str, Any]) -> None:
    """Add the routes that list and create projects, or instruments. Everybody may know that they exist."""

    def list_all(call: Call, db: Transaction, query: Any) -> Json:
        given = {column: getattr(query, name) for name, column in filters.items()}
        if kind == "instrument" and given["slug"] is None:
            given["status"] = given["status"] or "active"
        conditions = Conditions("SELECT * FROM resource", "type = :kind", "NOT hidden", kind=kind)
        conditions.equal(given)
        if kind == "project" and given["slug"] is not None:
            call.add_revision(db, find(db, given["slug"], kind))
        return conditions.page(db, "slug, mfid", query, partial(records, db, call.caller, embed=query))

    def create(call: Call, db: Transaction, body: Any) -> Json:
        references = [name for owner in owners if (name := getattr(body, owner)) is not None]
        if kind == "project" and len(references) != 1:
            raise Refusal(400, "Name exactly one project lead")
        slug, values = getattr(body, f"{kind}_id"), {name: getattr(body, name) for name in FIELDS[kind]}
        owner = choose_owner(db, call.caller, *references)
        if find(db, slug, kind) is not None:
            raise Refusal(409, f"The {kind}_id {slug} is taken: such a {kind} already exists")
        number = insert(db, kind, None, owner, {"slug": slug, **values})
        return load(db, call.caller, number, Includes(include_owner=True, include_members=True))

    optional = dict.fromkeys((*FIELDS[kind], *owners), (Text | None, None))
    fields: dict[str, Any] = optional | {f"{kind}_id": (Slug, ...), "status": (Text, "active"), **needed}
    asked: dict[str, Any] = dict.fromkeys(filters, (str | None, None)) | {"include_total": (bool, True)}
    create.__annotations__["body"] = create_model(f"new_{kind}", **fields)
    list_all.__annotations__["query"] = create_model(f"{kind}_query", __base__=(Includes, Page), **asked)
    get(f"/{kind}s")(list_all)
    post(f"/{kind}s", 201)(create)


_LEADS = ("project_lead", "project_lead_orcid", "project_lead_email", "project_lead_username")
_add_routes("project", {"project_id": "slug"}, _LEADS, {})
_BY = {"instrument_id": "slug", "instrument_name": "instrument_name", "status": "status"}
_NEEDED = {"instrument_name": (Name, ...), "location": (Text, ...)}
_add_routes("instrument", _BY, ("owner", "owner_orcid"), _NEEDED)


@get("/projects/{mfid}/users", of="project")
def list_members(db: Transaction, row: Row, query: Page) -> Json:
    return _page(members(db, row["id"]), query)


@post("/projects/{mfid}/users/{user}", of="project", role=ADMIN)
def add_member(db: Transaction, row: Row, user: str, role: Role = "contributor") -> Json:
    member = user_row(db, user)
    if member["id"] == row["owner_id"]:
        raise Refusal(409, "The project's lead is already part of it")
    added = "INSERT OR IGNORE INTO member (project_id, user_id, role) VALUES (?, ?, ?)"
    if not db.execute(added, (row["id"], member["id"], ROLE_NAMES.index(role))).rowcount:
        raise Refusal(409, f"{user} is already a member of this project")
    change(db, row["id"])
    return members(db, row["id"])


@delete("/projects/{mfid}/users/{user}", of="project", role=ADMIN)
def remove_member(db: Transaction, row: Row, user: str) -> Json:
    values = (row["id"], user_row(db, user)["id"])
    if not db.execute("DELETE FROM member WHERE project_id = ? AND user_id = ?", values).rowcount:
        raise Refusal(404, f"{user} is not a member of this project")
    return members(db, row["id"])


def _page(found: list[Json], query: Page) -> Json:
    items = found[query.offset : query.offset + query.limit]
    return {"items": items, "limit": query.limit, "total": len(found), "offset": query.offset}


References = Annotated[list[str], Field(max_length=1000)]
NEVER = "9999-12-31T23:59:59+00:00"


class NewUser(Form):
    username: Annotated[str, Field(min_length=3, max_length=24, pattern=r"^[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*$")]
    unique_id: Annotated[str, Field(pattern=r"^(\d{4}-\d{4}-\d{4}-\d{3}[0-9X]|[0-9a-hjkmnp-tv-z]{26})$")] | None = None


@get("/health/live", is_open=True)
def live() -> Json:
    return {"status": "ok"}


@get("/health/ready", is_open=True)
def ready(call: Call) -> Json:
    build = {"api_version": "3.0.0", "git_commit": f"crucible-lineage {__version__}", "branch": "embedded"}
    with call.service.database.read() as db:
        db.first("SELECT 1 FROM setting")
    return {"status": "ok", "build": build, "database": {"status": "ok"}}


@get("/account")
def account(call: Call, db: Transaction) -> Json:
    mine = "SELECT slug FROM resource JOIN member ON member.project_id = resource.id WHERE user_id = ?"
    return {
        "user_unique_id": call.caller.unique_id,
        "access_group_ids": [slug for (slug,) in db.execute(mine, (call.caller.id,))],
        "user_info": user_record(user_row(db, call.caller.unique_id)),
    }


@get("/account/profile")
def profile(call: Call, db: Transaction) -> Json:
    caller, me = call.caller, user_record(user_row(db, call.caller.unique_id))
    allowed = ("can_create_project", "can_register_instrument", "can_create_sample", "can_create_dataset")
    elevated = dict.fromkeys(("can_manage_service_accounts", "can_create_for_others"), caller.elevated)
    return me | {
        "authorization": {
            "platform_role": me["platform_role"],
            "effective_privilege_mode": "elevated" if caller.elevated else "normal",
            "can_elevate": caller.is_admin,
        },
        "capabilities": {**dict.fromkeys(allowed, True), **elevated},
    }


@get("/account/apikey")
def api_key(call: Call) -> Json:
    """Return the key of this request; the others are stored only as hashes."""
    return {"api_key": call.key}


@get("/account/verify")
def verify(call: Call, db: Transaction) -> Json:
    row = db.first("SELECT created AS created_at FROM api_key WHERE hash = ?", hash_key(call.key))
    return {"valid": True, "expires_at": NEVER, **dict(row or {})}


@get("/users/search")
def search_users(
    db: Transaction,
    q: Annotated[str, Field(min_length=1, max_length=200)],
    limit: Annotated[int, Field(ge=1, le=50)] = 20,
) -> Json:
    names = "lower(first_name || ' ' || last_name || ' ' || COALESCE(username, ''))"
    found = f"SELECT * FROM user WHERE instr({names}, lower(?)) ORDER BY last_name, unique_id LIMIT ?"
    return [public_user(row) for row in db.execute(found, (q, limit))]


@post("/users/resolve")
def resolve_users(db: Transaction, body: dict[Literal["orcids", "usernames", "emails"], References]) -> Json:
    return {reference: public_user(find_user(db, reference)) for some in body.values() for reference in some}


@get("/users/{reference}")
def get_user(db: Transaction, reference: str) -> Json:
    return user_record(user_row(db, reference))


@post("/service_accounts", 201)
def create_account(call: Call, db: Transaction, body: NewUser) -> Json:
    """Create the account of another user, with a key."""
    require_elevated(call.caller)
    added = db.execute(
        "INSERT OR IGNORE INTO user (unique_id, username, first_name, last_name, is_service_account)"
        " VALUES (?, ?, ?, '', 1)",
        (body.unique_id or new_mfid(), body.username, body.username),
    ).rowcount
    if not added:
        raise Refusal(409, "A user with this identifier or username already exists")
    return _new_key(db, user_row(db, body.username))


@post("/service_accounts/{reference}/rotate_key")
def rotate_key(call: Call, db: Transaction, reference: str) -> Json:
    """Replace the keys of an account by a new one."""
    require_elevated(call.caller)
    row = user_row(db, reference)
    db.execute("DELETE FROM api_key WHERE user_id = ?", (row["id"],))
    return _new_key(db, row)


def _new_key(db: Transaction, row: Row) -> Json:
    key = secrets.token_urlsafe(32)
    register_key(db, key, row["id"])
    return user_record(row) | {"api_key": key}


@post("/resources/{mfid}/delete", 201, of=("dataset", "sample"), role=EDITOR)
def request_deletion(
    call: Call, db: Transaction, row: Row, reason: Annotated[str, Field(max_length=2000)] | None = None
) -> Json:
    """Hide a dataset or sample, and ask for its deletion."""
    if row["hidden"]:
        raise Refusal(409, "A deletion request for this resource is already open")
    db.execute("UPDATE resource SET hidden = 1 WHERE id = ?", (row["id"],))
    return deletion_records(db, [_deletion(db, row, call.caller.id, reason, now())])[0]


def _deletion(db: Transaction, row: Row, requester: int | None, reason: str | None, moment: str | None) -> Row:
    """Return the new row of a deletion, which stays when the resource is gone."""
    about = names(db, [row["id"]])[row["id"]]
    number = db.add(
        "deletion", row_id=row["id"], resource_id=row["mfid"], resource_type=row["type"], resource_name=about["name"],
        project_id=about["project_id"], requester=requester, reason=reason, request_time=moment,
    )  # fmt: skip
    return rows_of(db, "deletion", [number])[0]


@get("/deletion_requests")
def list_requests(
    call: Call,
    db: Transaction,
    query: Page,
    status: Literal["pending"] | None = None,  # noqa: ARG001 - all requests are
    scope: Literal["accessible", "submitted", "reviewable"] = "accessible",
) -> Json:
    """List the requests that the caller made, or could make as an administrator of the project, newest first."""
    rows = db.execute(f"{_OPEN} ORDER BY id DESC").fetchall()
    return _page(deletion_records(db, [row for row in rows if _is_visible(db, call.caller, row, scope)]), query)


@get("/deletion_requests/{number}")
def get_request(call: Call, db: Transaction, number: Number) -> Json:
    row = db.first(f"{_OPEN} AND id = ?", number)
    if row is None or not _is_visible(db, call.caller, row):
        raise not_found("deletion request")
    return deletion_records(db, [row])[0]


@delete("/resources/{mfid}")
def delete_resource(call: Call, mfid: str, force: bool = False) -> Json:  # noqa: ARG001 - clients send `force`
    """Delete a resource for good, whether that was requested or not."""
    with call.write() as db:
        row = require(db, call.caller, mfid, VIEWER)
        require_elevated(call.caller)
        if db.first("SELECT 1 FROM resource WHERE ? IN (project_id, instrument_id)", row["id"]):
            raise Refusal(409, f"The {row['type']} still has datasets or samples")
        if not row["hidden"]:
            _deletion(db, row, None, None, None)
        db.execute("UPDATE deletion SET deleted_at = ? WHERE row_id = ?", (now(), row["id"]))
        db.execute(  # contents that nothing else needs may be swept at once
            "INSERT OR IGNORE INTO released_content SELECT sha256, '' FROM file WHERE dataset_id = ?",
            (row["id"],),
        )
        db.execute("DELETE FROM resource WHERE id = ?", (row["id"],))
    sweep(call.service.database, call.service.storage)
    return {"detail": f"Resource {mfid} permanently deleted"}


@get("/deletion_audit")
def list_deleted(call: Call, db: Transaction, query: Page, resource_id: str | None = None) -> Json:
    """List what was deleted for good, newest first: all of it for administrators, else what the caller asked for."""
    conditions = Conditions("SELECT * FROM deletion", "deleted_at IS NOT NULL")
    conditions.equal({"resource_id": resource_id, "requester": None if call.caller.elevated else call.caller.id})
    return conditions.page(db, "id DESC", query, partial(deletion_records, db))


_OPEN = "SELECT * FROM deletion WHERE deleted_at IS NULL"


def _is_visible(db: Transaction, caller: Caller, row: Row, scope: str = "accessible") -> bool:
    is_own, may_delete = row["requester"] == caller.id, role_on(db, caller, row["row_id"]) >= ADMIN
    return bool({"submitted": is_own, "reviewable": may_delete}.get(scope, is_own or may_delete))
