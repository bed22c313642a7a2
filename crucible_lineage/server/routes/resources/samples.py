"""Samples: create, read, list, change."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query

from crucible_lineage.server.call import Call
from crucible_lineage.server.catalogue.access import EDITOR, VIEWER, require
from crucible_lineage.server.catalogue.bodies import NewSample, SamplePatch
from crucible_lineage.server.catalogue.facets import facet_page
from crucible_lineage.server.catalogue.filters import cursor_page
from crucible_lineage.server.catalogue.metadata import write_metadata
from crucible_lineage.server.catalogue.queries import SampleFacetQuery, SampleQuery
from crucible_lineage.server.catalogue.records import Embed, load
from crucible_lineage.server.catalogue.references import select_project
from crucible_lineage.server.catalogue.resources import change, choose_owner, home_project, insert
from crucible_lineage.server.database import now
from crucible_lineage.server.http import Json, invalid
from crucible_lineage.server.http import router as new_router

router = new_router()

COLUMNS = ("sample_name", "sample_type", "description")


@router.post("/samples", status_code=201)
def create_sample(call: Call, body: NewSample) -> Json:
    with call.write() as db:
        owner = choose_owner(db, call.caller, body.owner, body.owner_orcid)
        project = home_project(db, call.caller, body.project_id, body.project_mfid)
        values: dict[str, Any] = {name: getattr(body, name) for name in COLUMNS}
        values["timestamp"] = body.timestamp or now()
        number = insert(
            db, "sample", values, mfid=body.unique_id, owner_id=owner, project_id=project, public=body.public
        )
        if body.scientific_metadata:
            write_metadata(db, number, body.scientific_metadata)
        call.tell_revision(db, project)
        return load(db, call.caller, "sample", number)


@router.get("/samples")
def list_samples(call: Call, query: Annotated[SampleQuery, Query()]) -> Json:
    with call.read() as db:
        project = select_project(db, query.project_id, query.project_mfid)
        call.tell_revision(db, project["id"] if project else None)
        return cursor_page(db, call.caller, "sample", query)


@router.get("/samples/facets")
def sample_facets(call: Call, query: Annotated[SampleFacetQuery, Query()]) -> Json:
    with call.read() as db:
        return facet_page(db, call.caller, "sample", query)


@router.get("/samples/{mfid}")
def get_sample(
    call: Call,
    mfid: str,
    include_metadata: bool = False,
    include_links: bool = False,
    include_owner: bool = False,
    include_datasets: bool = True,
) -> Json:
    with call.read() as db:
        row = require(db, call.caller, mfid, VIEWER, "sample")
        embed = Embed(include_metadata, include_links, include_owner, include_datasets)
        return load(db, call.caller, "sample", row["id"], embed)


@router.patch("/samples/{mfid}")
def change_sample(call: Call, mfid: str, body: SamplePatch) -> Json:
    given = body.model_dump(exclude_unset=True)
    if given.get("timestamp", "") is None:
        raise invalid("body", "timestamp", "cannot be null")
    with call.write() as db:
        row = require(db, call.caller, mfid, EDITOR, "sample")
        change(db, "sample", row["id"], given)
        return load(db, call.caller, "sample", row["id"])
