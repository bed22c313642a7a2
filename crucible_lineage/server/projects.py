"""Projects with their members, and instruments."""

from __future__ import annotations

import sqlite3
from typing import Annotated, Literal

from pydantic import Field

from crucible_lineage.server.access import ADMIN, ROLE_NAMES, VIEWER, members, require
from crucible_lineage.server.call import Call
from crucible_lineage.server.filters import Conditions
from crucible_lineage.server.http import Json, LenientBody, Limit, Name, Offset, Text, page, refuse
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.records import INSTRUMENTS, PROJECTS, Embed, load, records
from crucible_lineage.server.resources import choose_owner, insert, named_row, touch, user_row

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
