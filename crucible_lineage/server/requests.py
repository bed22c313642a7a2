"""Requests for results: what somebody wants made of a dataset, for a worker elsewhere to answer."""

from __future__ import annotations

import json
from sqlite3 import Row
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic import Json as JsonText

from crucible_lineage.server.call import Call
from crucible_lineage.server.database import JsonObject, Transaction, now
from crucible_lineage.server.http import Form, Json, Number, Page, Refusal, Text, get, patch, post
from crucible_lineage.server.records import Conditions
from crucible_lineage.server.resources import CONTRIBUTOR, VIEWER, role_on

KINDS = ("mosaic_stitch", "rga_analysis", "insitu_spec_aggregation", "carrier_segmentation")  # of the official client
_REQUESTS = """SELECT request.*, resource.mfid AS dataset_mfid, user.unique_id AS requester
    FROM request JOIN resource ON resource.id = request.dataset_id JOIN user ON user.id = requester_id"""


def _kind(name: str) -> str:
    if name not in KINDS:
        raise Refusal(404, f"{name!r} is not part of the embedded Crucible; requests are {', '.join(KINDS)}")
    return name


class Answer(Form):
    status: Literal["complete", "failed"]
    results: tuple[Annotated[str, Field(max_length=64)], ...] = ()
    reason: Text | None = None


@post("/datasets/{mfid}/{kind}", of="dataset")
def request_result(
    call: Call, db: Transaction, row: Row, kind: Annotated[str, AfterValidator(_kind)],
    parameters: JsonText[JsonObject] = {},  # noqa: B006 - pydantic copies it
) -> Json:  # fmt: skip
    """Keep a request. Each call is one: what was made already is found again by its id."""
    asked = {"kind": kind, "dataset_id": row["id"], "requester_id": call.caller.id, "status": "requested"}
    number = db.add("request", **asked, parameters=json.dumps(parameters), time_created=now())
    return _record(_request(call, db, number))


@get("/requests")
def list_requests(
    call: Call, db: Transaction, query: Page, status: str | None = None, dataset_mfid: str | None = None
) -> Json:
    conditions = Conditions(_REQUESTS, "NOT resource.hidden")
    conditions.limit_to(call.caller)
    conditions.equal({"request.status": status, "resource.mfid": dataset_mfid})
    return conditions.page(db, "request.id", query, lambda rows: list(map(_record, rows)))


@get("/requests/{number}")
def get_request(call: Call, db: Transaction, number: Number) -> Json:
    return _record(_request(call, db, number))


@patch("/requests/{number}")
def answer_request(call: Call, db: Transaction, number: Number, body: Answer) -> Json:
    """Say how a request ended. A failed one may be completed later; a complete one stays as it is."""
    row = _request(call, db, number)
    if role_on(db, call.caller, row["dataset_id"]) < CONTRIBUTOR:
        raise Refusal(403, "Only those who may write to the project of the dataset answer its requests")
    if row["status"] != "complete":
        db.execute(
            "UPDATE request SET status = ?, results = ?, reason = ?, time_completed = ? WHERE id = ?",
            (body.status, json.dumps(body.results), body.reason, now(), number),
        )
    return _record(_request(call, db, number))


def _request(call: Call, db: Transaction, number: int) -> Row:
    """Return a request whose dataset the caller may read."""
    row = db.first(f"{_REQUESTS} WHERE request.id = ?", number)
    if row is None or role_on(db, call.caller, row["dataset_id"]) < VIEWER:
        raise Refusal(404, "Request not found")
    return row


def _record(row: Row) -> Json:
    names = ("id", "kind", "dataset_mfid", "requester", "status", "reason", "time_created", "time_completed")
    return {name: row[name] for name in names} | {name: json.loads(row[name]) for name in ("parameters", "results")}
