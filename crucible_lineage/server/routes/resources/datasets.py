"""Datasets: create, read, list, change, keywords, instrument."""

from __future__ import annotations

import sqlite3
from typing import Annotated, Any

from fastapi import Query

from crucible_lineage.server.call import Call
from crucible_lineage.server.catalogue.access import CONTRIBUTOR, EDITOR, OWNER, READABLE, VIEWER, Caller, require
from crucible_lineage.server.catalogue.bodies import DatasetBody, DatasetPatch
from crucible_lineage.server.catalogue.facets import facet_page
from crucible_lineage.server.catalogue.filters import Where, cursor_page
from crucible_lineage.server.catalogue.metadata import write_metadata
from crucible_lineage.server.catalogue.queries import DatasetFacetQuery, DatasetQuery
from crucible_lineage.server.catalogue.records import Embed, load
from crucible_lineage.server.catalogue.references import instrument_row, match_instrument, select_project
from crucible_lineage.server.catalogue.resources import change, choose_owner, hand_over, home_project, insert, touch
from crucible_lineage.server.database import now
from crucible_lineage.server.http import Form, Json, invalid, refuse
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.seals import require_rows

router = new_router()

COLUMNS = ("dataset_name", "measurement", "data_type", "data_format", "session_name", "size")
MAX_KEYWORD_CHARACTERS = 500
MAX_KEYWORDS = 1000  # chosen: of one dataset
MAX_COUNTED = 1000  # chosen: to look whether the caller may see each takes 2 us, at every keyword that is added


class InstrumentChoice(Form):
    instrument_id: str | None = None
    instrument_mfid: str | None = None


@router.post("/datasets", status_code=201)
def create_dataset(call: Call, body: DatasetBody) -> Json:
    with call.write() as db:
        owner = choose_owner(db, call.caller, body.owner, body.owner_orcid)
        project = home_project(db, call.caller, body.project_id, body.project_mfid)
        instrument = match_instrument(
            db, body.instrument_id, body.instrument_mfid, body.instrument_name, owner_id=owner, project_id=project
        )
        values: dict[str, Any] = {name: getattr(body, name) for name in COLUMNS}
        values |= {"timestamp": body.timestamp or now(), "timed": int(body.timestamp is not None)}
        values["instrument_id"] = instrument["id"] if instrument else None
        values["instrument_label"] = None if instrument else body.instrument_name
        number = insert(
            db, "dataset", values, mfid=body.unique_id, owner_id=owner, project_id=project, public=body.public
        )
        if body.scientific_metadata:
            write_metadata(db, number, body.scientific_metadata)
        call.tell_revision(db, project)
        return load(db, call.caller, "dataset", number)


@router.get("/datasets")
def list_datasets(call: Call, query: Annotated[DatasetQuery, Query()]) -> Json:
    with call.read() as db:
        project = select_project(db, query.project_id, query.project_mfid)
        call.tell_revision(db, project["id"] if project else None)
        if query.keyword:  # asked for by who follows what a pipeline has made
            call.tell_statements(db)
        return cursor_page(db, call.caller, "dataset", query)


@router.get("/datasets/facets")
def dataset_facets(call: Call, query: Annotated[DatasetFacetQuery, Query()]) -> Json:
    with call.read() as db:
        return facet_page(db, call.caller, "dataset", query)


@router.get("/datasets/{mfid}")
def get_dataset(
    call: Call, mfid: str, include_metadata: bool = False, include_links: bool = False, include_owner: bool = False
) -> Json:
    with call.read() as db:
        row = require(db, call.caller, mfid, VIEWER, "dataset")
        embed = Embed(metadata=include_metadata, links=include_links, owner=include_owner)
        return load(db, call.caller, "dataset", row["id"], embed)


@router.patch("/datasets/{mfid}")
def change_dataset(call: Call, mfid: str, body: DatasetPatch) -> Json:
    given = body.model_dump(exclude_unset=True)
    with call.write() as db:
        row = require(db, call.caller, mfid, EDITOR, "dataset")
        current = load(db, call.caller, "dataset", row["id"])
        for name in ("instrument_id", "instrument_mfid"):
            if name in given and given.pop(name) != current[name]:
                raise invalid("body", name, f"is changed with PUT /datasets/{mfid}/instrument")
        if "instrument_name" in given and (label := given.pop("instrument_name")) != current["instrument_name"]:
            known = match_instrument(db, None, None, label, owner_id=row["owner_id"], project_id=row["project_id"])
            given |= {"instrument_id": known["id"] if known else None, "instrument_label": None if known else label}
        if "owner_orcid" in given:
            hand_over(db, require(db, call.caller, mfid, OWNER, "dataset"), given.pop("owner_orcid") or "", status=422)
        if given.get("timestamp", "") is None:
            raise invalid("body", "timestamp", "cannot be null")
        if "timestamp" in given:
            given["timed"] = 1
        change(db, "dataset", row["id"], given)
        return load(db, call.caller, "dataset", row["id"])


@router.get("/datasets/{mfid}/keywords")
def list_keywords(call: Call, mfid: str) -> Json:
    with call.read() as db:
        row = require(db, call.caller, mfid, VIEWER, "dataset")
        found = db.execute(
            "SELECT attached_keyword.* FROM attached_keyword JOIN keyword ON keyword.id = keyword_id"
            " WHERE dataset_id = ? ORDER BY folded",
            (row["id"],),
        ).fetchall()
        require_rows("attached_keyword", found)
        return [_keyword_record(db, call.caller, keyword) for keyword in found]


@router.post("/datasets/{mfid}/keywords", status_code=201)
def add_keyword(call: Call, mfid: str, keyword: str) -> Json:
    text = keyword.strip()
    if not text or len(text) > MAX_KEYWORD_CHARACTERS:
        raise invalid("query", "keyword", f"must have 1 to {MAX_KEYWORD_CHARACTERS} characters")
    with call.write() as db:
        row = require(db, call.caller, mfid, CONTRIBUTOR, "dataset")
        return _keyword_record(db, call.caller, attach_keyword(db, row["id"], text))


@router.put("/datasets/{mfid}/instrument")
def assign_instrument(call: Call, mfid: str, body: InstrumentChoice) -> Json:
    references = [reference for reference in (body.instrument_mfid, body.instrument_id) if reference]
    if not references:
        raise refuse(422, "Name an instrument: instrument_id or instrument_mfid")
    with call.write() as db:
        row = require(db, call.caller, mfid, EDITOR, "dataset")
        rows = [instrument_row(db, reference) for reference in references]
        if len({found["id"] for found in rows}) > 1:
            raise refuse(422, "instrument_id and instrument_mfid name different instruments")
        before = load(db, call.caller, "dataset", row["id"])
        change(db, "dataset", row["id"], {"instrument_id": rows[0]["id"], "instrument_label": None})
        return {
            "dataset_mfid": mfid,
            "previous_instrument": before["instrument"],
            "previous_instrument_name": before["instrument_name"],
            "instrument": load(db, call.caller, "dataset", row["id"])["instrument"],
        }


def attach_keyword(db: sqlite3.Connection, dataset_id: int, keyword: str) -> sqlite3.Row:
    """The row that says so, with the dataset carrying the keyword; its first spelling there is kept."""
    folded = keyword.casefold()
    db.execute("INSERT OR IGNORE INTO keyword (folded) VALUES (?)", (folded,))
    (number,) = db.execute("SELECT id FROM keyword WHERE folded = ?", (folded,)).fetchone()
    known: sqlite3.Row | None = db.execute(
        "SELECT * FROM attached_keyword WHERE dataset_id = ? AND keyword_id = ?", (dataset_id, number)
    ).fetchone()
    if known is not None:
        return known
    (carried,) = db.execute("SELECT COUNT(*) FROM attached_keyword WHERE dataset_id = ?", (dataset_id,)).fetchone()
    if carried >= MAX_KEYWORDS:
        raise refuse(422, f"The dataset has {MAX_KEYWORDS} keywords; more are not kept")
    touch(db, dataset_id)
    row: sqlite3.Row = db.execute(
        "INSERT INTO attached_keyword (dataset_id, keyword_id, spelling) VALUES (?, ?, ?) RETURNING *",
        (dataset_id, number, keyword),
    ).fetchone()
    return row


def _keyword_record(db: sqlite3.Connection, caller: Caller, row: sqlite3.Row) -> Json:
    """With the number of datasets that carry the keyword, as far as the caller may know of them and up to a bound."""
    found = Where("keyword_id = :keyword", keyword=row["keyword_id"], user=caller.id)
    source = "attached_keyword"
    if not caller.elevated:
        source += " JOIN resource ON resource.id = dataset_id"
        found.add(READABLE)
    some = f"SELECT 1 FROM {source} WHERE {found} LIMIT {MAX_COUNTED}"  # noqa: S608
    (carriers,) = db.execute(f"SELECT COUNT(*) FROM ({some})", found.values).fetchone()  # noqa: S608
    return {"id": row["id"], "keyword": row["spelling"], "num_datasets": carriers}
