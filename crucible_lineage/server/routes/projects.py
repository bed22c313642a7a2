"""Projects with their members, and instruments with their service accounts."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, Field

from crucible_lineage.server.call import Call
from crucible_lineage.server.catalogue.access import (
    ADMIN,
    CONTRIBUTOR,
    EDITOR,
    ROLE_NAMES,
    ROLE_VALUES,
    VIEWER,
    members,
    require,
    user_record,
)
from crucible_lineage.server.catalogue.filters import Conditions, add_affiliation
from crucible_lineage.server.catalogue.records import INSTRUMENTS, PROJECTS, Embed, load, records
from crucible_lineage.server.catalogue.resources import (
    SLUG,
    change,
    choose_owner,
    insert,
    instrument_row,
    project_row,
    touch,
    user_row,
)
from crucible_lineage.server.database import JsonObject
from crucible_lineage.server.http import Direction, Form, Json, LenientBody, Limit, Name, Offset, Text, page, refuse
from crucible_lineage.server.http import router as new_router

# ruff: noqa: ARG001 - a route declares each parameter that clients may send, used or not
# ruff: noqa: S608 - SQL is built from constants of this package only; values are always bound


router = new_router()

Slug = Annotated[str, Field(pattern=SLUG)]
Few = Annotated[list[str], Query(max_length=10)]
Role = Literal["viewer", "contributor", "editor", "admin"]
_SORTS = {"project_id": "slug", "title": "title", "created": "resource.created", "updated": "resource.modified"}


Status = Literal["active", "maintenance", "decommissioned"]
_INSTRUMENT_SORTS = {"instrument_id": "slug", "name": "instrument_name", "created": "created", "updated": "modified"}


class _ProjectFields(BaseModel):
    organization: Text | None = None
    title: Text | None = None
    status: Text | None = None


class NewProject(LenientBody, _ProjectFields):
    project_id: Slug
    project_lead: str | None = None
    project_lead_orcid: str | None = None
    project_lead_email: str | None = None
    project_lead_username: str | None = None


class ProjectPatch(Form, _ProjectFields):
    project_id: Slug | None = None


@router.get("/projects")
def list_projects(
    call: Call,
    project_id: str | None = None,
    include_metadata: bool = False,
    include_members: bool = False,
    sort: Literal["project_id", "title", "created", "updated"] | None = None,
    direction: Direction | None = None,
    member_ref: Few = [],  # noqa: B006
    member_role: Few = [],  # noqa: B006
    accessible_to_user: Few = [],  # noqa: B006
    accessible_to_project: Few = [],  # noqa: B006
    include_total: bool = True,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Json:
    """Return a page of projects. Everybody may know that a project exists."""
    with call.read() as db:
        conditions = Conditions("NOT resource.hidden", user=call.caller.id)
        if project_id is not None:
            conditions.add("project.slug = ?", project_id)
            call.add_revision(db, _project_id(db, project_id))
        for reference in [*member_ref, *accessible_to_user]:
            _add_member(conditions, user_row(db, reference, status=422)["id"], member_role)
        for reference in accessible_to_project:
            conditions.add("resource.id = ?", project_row(db, reference, status=422)["id"])
        order = _order(_SORTS, sort, "project_id", direction)
        rows, total = conditions.page(db, PROJECTS, order, limit, offset)
        embed = Embed(metadata=include_metadata, members=include_members)
        return page(records(db, call.caller, "project", rows, embed), limit, total, offset)


@router.post("/projects", status_code=201)
def create_project(call: Call, body: NewProject) -> Json:
    references = [body.project_lead, body.project_lead_orcid, body.project_lead_email, body.project_lead_username]
    leads = [reference for reference in references if reference is not None]
    if len(leads) != 1:
        raise refuse(400, "Name exactly one project lead")
    with call.write() as db:
        lead = user_row(db, leads[0], status=422)
        if lead["id"] != call.caller.id and not call.caller.elevated:
            raise refuse(403, "Only platform administrators create projects for others")
        _refuse_taken(db, "project", body.project_id)
        values = {
            "slug": body.project_id,
            "organization": body.organization,
            "title": body.title,
            "status": body.status or "active",
        }
        number = insert(db, "project", values, owner_id=lead["id"])
        return load(db, call.caller, "project", number, Embed(members=True))


@router.get("/projects/{reference}")
def get_project(call: Call, reference: str, include_metadata: bool = False, include_members: bool = False) -> Json:
    with call.read() as db:
        row = project_row(db, reference)
        call.add_revision(db, row["id"])
        embed = Embed(metadata=include_metadata, members=include_members)
        return load(db, call.caller, "project", row["id"], embed)


@router.patch("/projects/{reference}")
def change_project(call: Call, reference: str, body: ProjectPatch) -> Json:
    changes: JsonObject = body.model_dump(exclude_unset=True)
    with call.write() as db:
        project = project_row(db, reference)
        row = require(db, call.caller, project["mfid"], ADMIN, "project")
        _set_slug(db, "project", project, changes)
        change(db, "project", row["id"], changes)
        return load(db, call.caller, "project", row["id"], Embed(members=True))


@router.get("/projects/{reference}/users")
def list_members(call: Call, reference: str, limit: Limit = 100, offset: Offset = 0) -> Json:
    with call.read() as db:
        row = require(db, call.caller, project_row(db, reference)["mfid"], VIEWER, "project")
        project_members = members(db, row["id"])
        return page(project_members[offset : offset + limit], limit, len(project_members), offset)


@router.post("/projects/{reference}/users/{user}")
def add_member(call: Call, reference: str, user: str, role: Role = "contributor") -> Json:
    with call.write() as db:
        row = require(db, call.caller, project_row(db, reference)["mfid"], ADMIN, "project")
        member = user_row(db, user)
        if member["id"] == row["owner_id"]:
            raise refuse(409, "The project's lead is already part of it")
        try:
            db.execute(
                "INSERT INTO access (resource_id, user_id, role) VALUES (?, ?, ?)",
                (row["id"], member["id"], ROLE_VALUES[role]),
            )
        except sqlite3.IntegrityError:
            raise refuse(409, f"{user} is already a member of this project") from None
        touch(db, row["id"])
        return members(db, row["id"])


@router.patch("/projects/{reference}/users/{user}")
def change_member(call: Call, reference: str, user: str, role: Role) -> Json:
    with call.write() as db:
        row = require(db, call.caller, project_row(db, reference)["mfid"], ADMIN, "project")
        values = (ROLE_VALUES[role], row["id"], user_row(db, user)["id"])
        if not db.execute("UPDATE access SET role = ? WHERE resource_id = ? AND user_id = ?", values).rowcount:
            raise refuse(404, f"{user} is not a member of this project")
        return members(db, row["id"])


@router.delete("/projects/{reference}/users/{user}")
def remove_member(call: Call, reference: str, user: str) -> Json:
    with call.write() as db:
        row = require(db, call.caller, project_row(db, reference)["mfid"], ADMIN, "project")
        values = (row["id"], user_row(db, user)["id"])
        if not db.execute("DELETE FROM access WHERE resource_id = ? AND user_id = ?", values).rowcount:
            raise refuse(404, f"{user} is not a member of this project")
        return members(db, row["id"])


def _order(columns: Mapping[str, str], sort: str | None, default: str, direction: str | None) -> str:
    """Return the order of a list: by time from the latest, by name from the first."""
    if direction and not sort:
        raise refuse(422, "direction needs sort")
    usual = "DESC" if sort in ("created", "updated") else "ASC"
    return f"{columns[sort or default]} {(direction or usual).upper()}, resource.mfid"


def _project_id(db: sqlite3.Connection, slug: str) -> int | None:
    row = db.execute("SELECT id FROM project WHERE slug = ?", (slug,)).fetchone()
    return row and int(row["id"])


def _add_member(conditions: Conditions, user_id: int, selected_roles: list[str]) -> None:
    """Select projects that the user leads, or is a member of in one of the selected roles."""
    unknown = [role for role in selected_roles if role not in ROLE_VALUES]
    if unknown:
        raise refuse(422, f"Unknown role: {unknown[0][:50]}")
    numbers = ",".join(str(ROLE_VALUES[role]) for role in selected_roles) or "1,2,3,4"
    member = f"resource.id IN (SELECT resource_id FROM access WHERE user_id = ? AND role IN ({numbers}))"
    if not selected_roles or "owner" in selected_roles:
        conditions.add(f"(resource.owner_id = ? OR {member})", user_id, user_id)
    else:
        conditions.add(member, user_id)


def _refuse_taken(db: sqlite3.Connection, kind: str, slug: str) -> None:
    if db.execute(f"SELECT 1 FROM {kind} WHERE slug = ?", (slug,)).fetchone():
        article = "An" if kind == "instrument" else "A"
        raise refuse(409, f"{article} {kind} with {kind}_id {slug} already exists")


def _set_slug(db: sqlite3.Connection, kind: str, current: sqlite3.Row, changes: JsonObject) -> None:
    """Turn a new short name into its column; 409 if another project or instrument has it."""
    slug = changes.pop(f"{kind}_id", None)
    if slug is not None:
        if slug.lower() != current["slug"].lower():
            _refuse_taken(db, kind, slug)
        changes["slug"] = slug


class _InstrumentFields(BaseModel):
    manufacturer: Text | None = None
    model: Text | None = None
    instrument_type: Text | None = None
    description: Text | None = None
    other_id: Text | None = None
    other_id_source: Text | None = None


class NewInstrument(LenientBody, _InstrumentFields):
    instrument_id: Slug
    instrument_name: Name
    location: Text
    owner: str | None = None
    owner_orcid: str | None = None


class InstrumentPatch(Form, _InstrumentFields):
    instrument_id: Slug | None = None
    instrument_name: Name | None = None
    location: Text | None = None


@router.get("/instruments")
def list_instruments(
    call: Call,
    instrument_id: str | None = None,
    instrument_name: str | None = None,
    manufacturer: str | None = None,
    model: str | None = None,
    location: str | None = None,
    description: str | None = None,
    instrument_type: str | None = None,
    owner_id: str | None = None,
    other_id: str | None = None,
    other_id_source: str | None = None,
    status: Status | None = None,
    affiliation: Annotated[list[Literal["owner", "maintainer"]], Query(max_length=10)] = [],  # noqa: B006
    sort: Literal["instrument_id", "name", "created", "updated"] | None = None,
    direction: Direction | None = None,
    include_metadata: bool = False,
    include_owner: bool = False,
    include_members: bool = False,
    include_total: bool = True,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Json:
    exact = {
        "instrument.slug": instrument_id,
        "instrument_name": instrument_name,
        "manufacturer": manufacturer,
        "model": model,
        "location": location,
        "description": description,
        "instrument_type": instrument_type,
        "other_id": other_id,
        "other_id_source": other_id_source,
        "status": status or ("active" if instrument_id is None else None),
    }
    conditions = Conditions("NOT hidden")
    for column, value in exact.items():
        if value is not None:
            conditions.add(f"{column} = ?", value)
    with call.read() as db:
        if owner_id is not None:
            conditions.add("owner_id = ?", user_row(db, owner_id, status=422)["id"])
        add_affiliation(conditions, call.caller, affiliation)
        order = _order(_INSTRUMENT_SORTS, sort, "instrument_id", direction)
        rows, total = conditions.page(db, INSTRUMENTS, order, limit, offset)
        embed = Embed(metadata=include_metadata, owner=include_owner, members=include_members)
        return page(records(db, call.caller, "instrument", rows, embed), limit, total, offset)


@router.post("/instruments", status_code=201)
def create_instrument(call: Call, body: NewInstrument) -> Json:
    if call.caller.is_service_account:
        raise refuse(403, "Service accounts cannot register instruments")
    with call.write() as db:
        owner = choose_owner(db, call.caller, body.owner, body.owner_orcid)
        _refuse_taken(db, "instrument", body.instrument_id)
        values = {
            "slug": body.instrument_id,
            "instrument_name": body.instrument_name,
            "location": body.location,
            **{name: getattr(body, name) for name in _InstrumentFields.model_fields},
        }
        number = insert(db, "instrument", values, owner_id=owner)
        return load(db, call.caller, "instrument", number, Embed(owner=True))


@router.get("/instruments/{reference}")
def get_instrument(
    call: Call,
    reference: str,
    include_metadata: bool = False,
    include_owner: bool = False,
    include_members: bool = False,
) -> Json:
    with call.read() as db:
        row = instrument_row(db, reference)
        embed = Embed(metadata=include_metadata, owner=include_owner, members=include_members)
        return load(db, call.caller, "instrument", row["id"], embed)


@router.patch("/instruments/{reference}")
def change_instrument(call: Call, reference: str, body: InstrumentPatch) -> Json:
    changes: JsonObject = body.model_dump(exclude_unset=True)
    if any(changes.get(name, "") is None for name in ("instrument_id", "instrument_name", "location")):
        raise refuse(422, "instrument_id, instrument_name and location cannot be null")
    with call.write() as db:
        instrument = instrument_row(db, reference)
        row = require(db, call.caller, instrument["mfid"], EDITOR, "instrument")
        _set_slug(db, "instrument", instrument, changes)
        change(db, "instrument", row["id"], changes)
        return load(db, call.caller, "instrument", row["id"], Embed(owner=True))


@router.post("/instruments/{reference}/status")
def set_status(call: Call, reference: str, status: Status) -> Json:
    with call.write() as db:
        row = require(db, call.caller, instrument_row(db, reference)["mfid"], ADMIN, "instrument")
        change(db, "instrument", row["id"], {"status": status})
        return load(db, call.caller, "instrument", row["id"], Embed(owner=True))


@router.get("/instruments/{reference}/service_accounts")
def list_service_accounts(call: Call, reference: str) -> Json:
    with call.read() as db:
        row = require(db, call.caller, instrument_row(db, reference)["mfid"], VIEWER, "instrument")
        return _service_accounts(db, row["id"])


@router.post("/instruments/{reference}/service_accounts/{account}")
def bind_service_account(call: Call, reference: str, account: str) -> Json:
    with call.write() as db:
        row = require(db, call.caller, instrument_row(db, reference)["mfid"], ADMIN, "instrument")
        user = user_row(db, account)
        if not user["is_service_account"]:
            raise refuse(422, f"{account} is not a service account")
        db.execute("INSERT OR IGNORE INTO binding VALUES (?, ?)", (row["id"], user["id"]))
        touch(db, row["id"])
        return _service_accounts(db, row["id"])


@router.delete("/instruments/{reference}/service_accounts/{account}")
def unbind_service_account(call: Call, reference: str, account: str) -> Json:
    with call.write() as db:
        row = require(db, call.caller, instrument_row(db, reference)["mfid"], ADMIN, "instrument")
        values = (row["id"], user_row(db, account)["id"])
        if not db.execute("DELETE FROM binding WHERE instrument_id = ? AND user_id = ?", values).rowcount:
            raise refuse(404, f"{account} is not bound to this instrument")
        touch(db, row["id"])
        return _service_accounts(db, row["id"])


def _service_accounts(db: sqlite3.Connection, instrument_id: int) -> list[Json]:
    rows = db.execute(
        "SELECT user.* FROM binding JOIN user ON user.id = user_id WHERE instrument_id = ? ORDER BY username",
        (instrument_id,),
    )
    return [{**user_record(row), "role": ROLE_NAMES[CONTRIBUTOR]} for row in rows]
