"""Resources of any type: the record, its links, its scientific metadata."""

from __future__ import annotations

from typing import Any

from crucible_lineage.server.call import Call
from crucible_lineage.server.catalogue.access import CONTRIBUTOR, EDITOR, VIEWER, require
from crucible_lineage.server.catalogue.metadata import given_metadata, merged, read_metadata, write_metadata
from crucible_lineage.server.catalogue.records import Embed, link_records, load
from crucible_lineage.server.catalogue.resources import note_loss
from crucible_lineage.server.http import Json, refuse
from crucible_lineage.server.http import router as new_router

router = new_router()


@router.get("/resources/{mfid}")
def get_resource(
    call: Call,
    mfid: str,
    include_metadata: bool = False,
    include_links: bool = False,
    include_owner: bool = False,
    include_datasets: bool = True,
) -> Json:
    with call.read() as db:
        row = require(db, call.caller, mfid, VIEWER)
        embed = Embed(include_metadata, include_links, include_owner, include_datasets)
        return load(db, call.caller, row["type"], row["id"], embed)


@router.get("/resources/{mfid}/links")
def list_links(call: Call, mfid: str) -> Json:
    with call.read() as db:
        row = require(db, call.caller, mfid, VIEWER)
        return link_records(db, call.caller, [row["id"]])[row["id"]]


@router.get("/resources/{mfid}/metadata")
def get_metadata(call: Call, mfid: str) -> Json:
    with call.read() as db:
        row = require(db, call.caller, mfid, VIEWER)
        document = read_metadata(db, row["id"])
        return None if document is None else _wrapped(mfid, document)


@router.patch("/resources/{mfid}/metadata")
def merge_metadata(call: Call, mfid: str, body: dict[str, Any]) -> Json:
    with call.write() as db:
        row = require(db, call.caller, mfid, CONTRIBUTOR)
        return _wrapped(mfid, write_metadata(db, row["id"], merged(given_metadata(db, row["id"]), body)))


@router.post("/resources/{mfid}/metadata", status_code=201)
def replace_metadata(call: Call, mfid: str, body: dict[str, Any], overwrite: bool = False) -> Json:
    with call.write() as db:
        row = require(db, call.caller, mfid, EDITOR if overwrite else CONTRIBUTOR)
        is_new = read_metadata(db, row["id"]) is None
        if not is_new and not overwrite:
            raise refuse(409, "Scientific metadata already exists; use PATCH to merge or overwrite=true to replace it")
        if not is_new:
            note_loss(db, row["id"])
            db.execute(
                "UPDATE parsed SET document = '{}' WHERE file_id IN (SELECT id FROM file WHERE dataset_id = ?)",
                (row["id"],),
            )
        return _wrapped(mfid, write_metadata(db, row["id"], body))


def _wrapped(mfid: str, document: dict[str, Any]) -> Json:
    return {"unique_id": mfid, "scientific_metadata": document}
