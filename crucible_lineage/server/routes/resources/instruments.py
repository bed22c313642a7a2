"""Instruments and the service accounts bound to them."""

# ruff: noqa: ARG001 - a route declares each parameter that clients may send, used or not
from __future__ import annotations

import sqlite3
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field

from crucible_lineage.server.call import Call
from crucible_lineage.server.catalogue.access import ADMIN, CONTRIBUTOR, EDITOR, ROLE_NAMES, VIEWER, require
from crucible_lineage.server.catalogue.bodies import Text
from crucible_lineage.server.catalogue.filters import Where
from crucible_lineage.server.catalogue.people import user_record
from crucible_lineage.server.catalogue.records import INSTRUMENTS, Embed, load, records
from crucible_lineage.server.catalogue.references import SLUG, instrument_row, user_row
from crucible_lineage.server.catalogue.resources import change, choose_owner, insert, touch
from crucible_lineage.server.http import Direction, Form, Json, Limit, Loose, Offset, page, refuse
from crucible_lineage.server.http import router as new_router

router = new_router()

Slug = Annotated[str, Field(pattern=SLUG)]
Name = Annotated[str, Field(min_length=1, max_length=500)]
Status = Literal["active", "maintenance", "decommissioned"]
_SORTS = {"instrument_id": "slug", "name": "instrument_name", "created": "created", "updated": "modified"}
_OPTIONAL = ("manufacturer", "model", "instrument_type", "description", "other_id", "other_id_source")


class NewInstrument(Loose):
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


class InstrumentPatch(Form):
    instrument_id: Slug | None = None
    instrument_name: Name | None = None
    location: Text | None = None
    manufacturer: Text | None = None
    model: Text | None = None
    instrument_type: Text | None = None
    description: Text | None = None
    other_id: Text | None = None
    other_id_source: Text | None = None


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
    if direction and not sort:
        raise refuse(422, "direction needs sort")
    found = Where("NOT hidden")
    for column, value in exact.items():
        if value is not None:
            found.add(f"{column} = ?", value)
    with call.read() as db:
        if owner_id is not None:
            found.add("owner_id = ?", user_row(db, owner_id, status=422)["id"])
        if affiliation:
            member = "resource.id IN (SELECT resource_id FROM access WHERE user_id = ?)"
            clauses = [{"owner": "owner_id = ?", "maintainer": member}[name] for name in set(affiliation)]
            found.add(f"({' OR '.join(clauses)})", *[call.caller.id] * len(clauses))
        total = db.execute(
            f"SELECT COUNT(*) FROM resource JOIN instrument USING (id) WHERE {found}",  # noqa: S608
            found.values,
        ).fetchone()[0]
        default = "DESC" if sort in ("created", "updated") else "ASC"
        order = f"{_SORTS[sort or 'instrument_id']} {(direction or default).upper()}, mfid"
        rows = db.execute(
            f"{INSTRUMENTS} WHERE {found} ORDER BY {order} LIMIT {limit} OFFSET {offset}", found.values
        ).fetchall()
        embed = Embed(metadata=include_metadata, owner=include_owner, members=include_members)
        return page(records(db, call.caller, "instrument", rows, embed), limit, total, offset)


@router.post("/instruments", status_code=201)
def create_instrument(call: Call, body: NewInstrument) -> Json:
    if call.caller.is_service_account:
        raise refuse(403, "Service accounts cannot register instruments")
    with call.write() as db:
        owner = choose_owner(db, call.caller, body.owner, body.owner_orcid)
        _refuse_taken_slug(db, body.instrument_id)
        values = {
            "slug": body.instrument_id,
            "instrument_name": body.instrument_name,
            "location": body.location,
            **{name: getattr(body, name) for name in _OPTIONAL},
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
    given: dict[str, Any] = body.model_dump(exclude_unset=True)
    if any(given.get(name, "") is None for name in ("instrument_id", "instrument_name", "location")):
        raise refuse(422, "instrument_id, instrument_name and location cannot be null")
    with call.write() as db:
        found = instrument_row(db, reference)
        row = require(db, call.caller, found["mfid"], EDITOR, "instrument")
        slug = given.pop("instrument_id", None)
        if slug is not None:
            if slug.lower() != found["slug"].lower():
                _refuse_taken_slug(db, slug)
            given["slug"] = slug
        change(db, "instrument", row["id"], given)
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


def _refuse_taken_slug(db: sqlite3.Connection, slug: str) -> None:
    if db.execute("SELECT 1 FROM instrument WHERE slug = ?", (slug,)).fetchone():
        raise refuse(409, f"An instrument with instrument_id {slug} already exists")
