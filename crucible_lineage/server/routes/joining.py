"""Requests to join a project: made by anyone, reviewed by those who administer it."""

from __future__ import annotations

from typing import Literal

from crucible_lineage.server.catalogue.access import (
    ADMIN,
    CONTRIBUTOR,
    require,
)
from crucible_lineage.server.catalogue.bodies import Text
from crucible_lineage.server.catalogue.filters import Where
from crucible_lineage.server.catalogue.references import project_row, user_row
from crucible_lineage.server.database import now
from crucible_lineage.server.http import (
    MAX_ROW_ID,
    Call,
    Form,
    Json,
    Limit,
    Offset,
    page,
    refuse,
)
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.joining import JOIN_REQUESTS, join_record
from crucible_lineage.server.routes.people.users import require_elevated

router = new_router()


class JoinReason(Form):
    reason: Text | None = None


class JoinReview(Form):
    status: Literal["approved", "rejected"]
    reviewer_notes: Text | None = None


@router.post("/access_groups/{group}/join", status_code=201)
def request_join(call: Call, group: str, body: JoinReason) -> Json:
    with call.write() as db:
        project = project_row(db, group)
        me = (project["id"], call.caller.id)
        if (
            project["owner_id"] == call.caller.id
            or db.execute("SELECT 1 FROM access WHERE resource_id = ? AND user_id = ?", me).fetchone()
        ):
            raise refuse(409, "You are a member of this project already")
        if db.execute(
            "SELECT 1 FROM join_request WHERE project_id = ? AND requester_id = ? AND status = 'pending'", me
        ).fetchone():
            raise refuse(409, "Your request to join this project is pending already")
        number = db.execute(
            "INSERT INTO join_request (project_id, requester_id, reason, request_time) VALUES (?, ?, ?, ?)",
            (*me, body.reason, now()),
        ).lastrowid
        return join_record(db.execute(f"{JOIN_REQUESTS} WHERE join_request.id = ?", (number,)).fetchone())


@router.get("/join_requests")
def list_join_requests(
    call: Call,
    group_name: str | None = None,
    status: Literal["pending", "approved", "rejected"] | None = None,
    requester_id: str | None = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Json:
    found = Where("1")
    if status is not None:
        found.add("join_request.status = ?", status)
    with call.read() as db:
        if group_name is not None:
            project = project_row(db, group_name)
            require(db, call.caller, project["mfid"], ADMIN, "project")
            found.add("join_request.project_id = ?", project["id"])
        else:
            require_elevated(call)
        if requester_id is not None:
            found.add("requester_id = ?", user_row(db, requester_id, status=422)["id"])
        rows = db.execute(f"{JOIN_REQUESTS} WHERE {found} ORDER BY join_request.id DESC", found.values).fetchall()
    return page([join_record(row) for row in rows[offset : offset + limit]], limit, len(rows), offset)


@router.patch("/join_requests/{number}")
def review_join_request(call: Call, number: int, body: JoinReview) -> Json:
    with call.write() as db:
        row = None
        if 0 < number <= MAX_ROW_ID:
            row = db.execute(f"{JOIN_REQUESTS} WHERE join_request.id = ?", (number,)).fetchone()
        if row is None:
            raise refuse(404, "Join request not found")
        require(db, call.caller, project_row(db, row["group_name"])["mfid"], ADMIN, "project")
        if row["status"] != "pending":
            raise refuse(409, f"The request was {row['status']} before")
        db.execute(
            "UPDATE join_request SET status = ?, review_time = ?, reviewer_id = ?, reviewer_notes = ? WHERE id = ?",
            (body.status, now(), call.caller.id, body.reviewer_notes, number),
        )
        if body.status == "approved":
            values = (row["project_id"], row["requester_id"], CONTRIBUTOR)
            db.execute("INSERT OR IGNORE INTO access (resource_id, user_id, role) VALUES (?, ?, ?)", values)
        return join_record(db.execute(f"{JOIN_REQUESTS} WHERE join_request.id = ?", (number,)).fetchone())
