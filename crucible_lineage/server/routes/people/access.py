"""Who may use a resource: grants, publicity, ownership, the project it lives in."""

# ruff: noqa: S608 - SQL is put together from words of this package only; values are always bound
from __future__ import annotations

import sqlite3
from typing import Literal

from fastapi import Query

from crucible_lineage.server.call import Call
from crucible_lineage.server.catalogue.access import ADMIN, OWNER, ROLE_VALUES, VIEWER, require
from crucible_lineage.server.catalogue.people import PUBLIC_GRANT, grants, project_grant, user_grant, user_record
from crucible_lineage.server.catalogue.references import project_row, select_project, user_row
from crucible_lineage.server.catalogue.resources import hand_over, home_project, touch
from crucible_lineage.server.http import Form, Json, refuse
from crucible_lineage.server.http import router as new_router

router = new_router()

SHARED = ("dataset", "sample", "instrument")


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
    with call.write() as db:
        row = require(db, call.caller, mfid, ADMIN, SHARED)
        db.execute("UPDATE resource SET public = 1 WHERE id = ?", (row["id"],))
        touch(db, row["id"])
        return PUBLIC_GRANT


@router.delete("/resources/{mfid}/access/public")
def make_private(call: Call, mfid: str) -> Json:
    with call.write() as db:
        row = require(db, call.caller, mfid, ADMIN, SHARED)
        db.execute("UPDATE resource SET public = 0 WHERE id = ?", (row["id"],))
        touch(db, row["id"])
        return {"detail": f"Resource {mfid} is private"}


@router.put("/resources/{mfid}/access/{kind}/{principal}")
def grant_access(call: Call, mfid: str, kind: Literal["users", "projects"], principal: str, body: Permission) -> Json:
    role = ROLE_VALUES[body.permission]
    with call.write() as db:
        row = require(db, call.caller, mfid, ADMIN)
        column, found = _principal(db, kind, principal)
        if kind == "users" and found["id"] == row["owner_id"]:
            raise refuse(422, "The owner has every right already")
        db.execute(
            f"INSERT INTO access (resource_id, {column}, role) VALUES (?, ?, ?)"
            f" ON CONFLICT (resource_id, {column}) DO UPDATE SET role = excluded.role",
            (row["id"], found["id"], role),
        )
        touch(db, row["id"])
        return user_grant(found, body.permission) if kind == "users" else project_grant(found, body.permission)


@router.delete("/resources/{mfid}/access/{kind}/{principal}")
def revoke_access(call: Call, mfid: str, kind: Literal["users", "projects"], principal: str) -> Json:
    with call.write() as db:
        row = require(db, call.caller, mfid, ADMIN)
        column, found = _principal(db, kind, principal)
        revoked = db.execute(
            f"DELETE FROM access WHERE resource_id = ? AND {column} = ?",
            (row["id"], found["id"]),
        ).rowcount
        if not revoked:
            raise refuse(404, f"{principal} has no grant on this resource")
        touch(db, row["id"])
        return {"detail": f"Access of {principal} revoked"}


@router.get("/resources/{mfid}/access_groups")
def list_access_groups(call: Call, mfid: str) -> Json:
    with call.read() as db:
        require(db, call.caller, mfid, VIEWER)
    return []  # grants to users and projects are all that there is


@router.post("/resources/{mfid}/transfer_ownership")
def transfer_ownership(call: Call, mfid: str, body: NewOwner, confirm: bool = Query(False)) -> Json:
    with call.write() as db:
        row = require(db, call.caller, mfid, OWNER)
        new = user_row(db, body.new_owner)
        old = db.execute("SELECT * FROM user WHERE id = ?", (row["owner_id"],)).fetchone()
        if confirm:
            hand_over(db, row, body.new_owner)
        return {
            "resource_id": mfid,
            "previous_owner": user_record(old) if old else None,
            "new_owner": user_record(new),
        }


@router.post("/resources/{mfid}/project")
def reassign_project(call: Call, mfid: str, body: ProjectForm, confirm: bool = Query(False)) -> Json:
    if (body.project_id is None) == (body.project_mfid is None):
        raise refuse(422, "Name exactly one of project_id and project_mfid")
    with call.write() as db:
        row = require(db, call.caller, mfid, ADMIN, ("dataset", "sample"))
        new = select_project(db, body.project_id, body.project_mfid, status=404)
        assert new is not None
        home_project(db, call.caller, body.project_id, body.project_mfid)
        old = db.execute(
            "SELECT mfid, slug FROM resource JOIN project USING (id) WHERE id = ?", (row["project_id"],)
        ).fetchone()
        if confirm:
            db.execute("UPDATE resource SET project_id = ? WHERE id = ?", (new["id"], row["id"]))
            touch(db, row["id"])
        return {
            "resource_id": mfid,
            "resource_mfid": mfid,
            "previous_project_id": old["slug"] if old else None,
            "previous_project_mfid": old["mfid"] if old else None,
            "new_project_id": new["slug"],
            "new_project_mfid": new["mfid"],
        }


def _principal(db: sqlite3.Connection, kind: str, reference: str) -> tuple[str, sqlite3.Row]:
    if kind == "users":
        return "user_id", user_row(db, reference)
    return "project_id", project_row(db, reference)
