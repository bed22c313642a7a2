"""Ingestion requests: made here, worked off by the worker."""

# ruff: noqa: ARG001 - a route declares each parameter that clients may send, used or not
# ruff: noqa: S608 - SQL is put together from words of this package only; values are always bound
from __future__ import annotations

import sqlite3
from typing import Annotated, Literal

from pydantic import Field

from crucible_lineage.server.call import Call
from crucible_lineage.server.catalogue.access import (
    CONTRIBUTOR,
    EDITOR,
    READABLE,
    VIEWER,
    Caller,
    not_found,
    require,
    roles,
)
from crucible_lineage.server.catalogue.bodies import Moment, Text
from crucible_lineage.server.catalogue.filters import Where
from crucible_lineage.server.database import now
from crucible_lineage.server.files.contents import file_of
from crucible_lineage.server.http import MAX_ROW_ID, Form, Json, Limit, Offset, page
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.ingest.ingestors import INGESTOR_NAMES

router = new_router()

_REQUESTS = """SELECT ingestion_request.*, file.mfid AS file_mfid, file.dataset_id, resource.mfid AS dataset_mfid
    FROM ingestion_request JOIN file ON file.id = file_id JOIN resource ON resource.id = file.dataset_id"""


class RequestPatch(Form):
    id: int | None = None
    status: Annotated[str, Field(min_length=1, max_length=50)]
    ingestion_class: Text | None = None
    ingestion_githash: Text | None = None
    time_completed: Moment | None = None
    error_message: Text | None = None


@router.post("/files/{mfid}/ingest", status_code=201)
def request_ingestion(
    call: Call,
    mfid: str,
    status: Literal["requested", "not_requested"] = "requested",
    ingestion_class: Annotated[str | None, Field(max_length=200)] = None,
) -> Json:
    with call.write() as db:
        file = file_of(db, call.caller, mfid, CONTRIBUTOR)
        number = db.execute(
            "INSERT INTO ingestion_request (file_id, status, ingestion_class, time_created) VALUES (?, ?, ?, ?)",
            (file["id"], status, ingestion_class, now()),
        ).lastrowid
        record = _record(db.execute(f"{_REQUESTS} WHERE ingestion_request.id = ?", (number,)).fetchone())
    if status == "requested":
        call.service.wake_worker()
    return record


@router.get("/ingestion_requests")
def list_requests(
    call: Call,
    dataset_mfid: str | None = None,
    file_mfid: str | None = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Json:
    found = Where("1", user=call.caller.id)
    if not call.caller.elevated:
        found.add(READABLE)
    if dataset_mfid is not None:
        found.add("resource.mfid = ?", dataset_mfid)
    if file_mfid is not None:
        found.add("file.mfid = ?", file_mfid)
    with call.read() as db:
        total = db.execute(
            f"SELECT COUNT(*) FROM ({_REQUESTS} WHERE {found})",
            found.values,
        ).fetchone()[0]
        rows = db.execute(
            f"{_REQUESTS} WHERE {found} ORDER BY ingestion_request.id DESC LIMIT {limit} OFFSET {offset}", found.values
        ).fetchall()
    return page([_record(row) for row in rows], limit, total, offset)


@router.get("/ingestion_requests/{number}")
def get_request(call: Call, number: int) -> Json:
    with call.read() as db:
        return _record(_find(db, call.caller, number))


@router.patch("/ingestion_requests/{number}")
def change_request(call: Call, number: int, body: RequestPatch) -> Json:
    """For workers outside this server."""
    given = body.model_dump(exclude_unset=True)
    given.pop("id", None)
    with call.write() as db:
        row = _find(db, call.caller, number)
        require(db, call.caller, row["dataset_mfid"], EDITOR, "dataset")
        for name, value in given.items():
            db.execute(f"UPDATE ingestion_request SET {name} = ? WHERE id = ?", (value, number))
        record = _record(_find(db, call.caller, number))
    if body.status == "requested":
        call.service.wake_worker()
    return record


@router.get("/ingestors")
def list_ingestors(call: Call) -> Json:
    return list(INGESTOR_NAMES)


def _find(db: sqlite3.Connection, caller: Caller, number: int) -> sqlite3.Row:
    row: sqlite3.Row | None = None
    if 0 < number <= MAX_ROW_ID:
        row = db.execute(f"{_REQUESTS} WHERE ingestion_request.id = ?", (number,)).fetchone()
    if row is None or roles(db, caller, [row["dataset_id"]])[row["dataset_id"]] < VIEWER:
        raise not_found("ingestion request")
    return row


def _record(row: sqlite3.Row) -> Json:
    names = ("id", "status", "file_mfid", "dataset_mfid", "ingestion_class", "ingestion_githash", "time_created")
    return {name: row[name] for name in (*names, "time_completed", "error_message")}
