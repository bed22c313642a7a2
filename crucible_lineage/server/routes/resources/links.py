"""Links: parent and child among datasets or among samples, and datasets associated with samples."""

from __future__ import annotations

import sqlite3
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from crucible_lineage.server.call import AuthenticatedCall, Call
from crucible_lineage.server.catalogue.access import EDITOR, VIEWER, require
from crucible_lineage.server.catalogue.filters import list_page, where
from crucible_lineage.server.catalogue.queries import ChildDatasetQuery, ChildSampleQuery
from crucible_lineage.server.catalogue.resources import touch
from crucible_lineage.server.http import Json, refuse
from crucible_lineage.server.http import router as new_router

router = new_router()

Relationship = Literal["is_derived_from", "is_part_of"]


@router.post("/datasets/{dataset}/samples/{sample}", status_code=201)
def associate(call: Call, dataset: str, sample: str) -> Json:
    with call.write() as db:
        dataset_id = require(db, call.caller, dataset, EDITOR, "dataset")["id"]
        sample_id = require(db, call.caller, sample, VIEWER, "sample")["id"]
        new = db.execute(
            "INSERT OR IGNORE INTO association (dataset_id, sample_id) VALUES (?, ?)", (dataset_id, sample_id)
        ).rowcount
        if new:
            touch(db, dataset_id)
        return {"dataset_id": dataset, "sample_id": sample}


@router.delete("/datasets/{dataset}/samples/{sample}")
def dissociate(call: Call, dataset: str, sample: str) -> Json:
    with call.write() as db:
        dataset_id = require(db, call.caller, dataset, EDITOR, "dataset")["id"]
        sample_id = require(db, call.caller, sample, VIEWER, "sample")["id"]
        unlinked = db.execute(
            "DELETE FROM association WHERE dataset_id = ? AND sample_id = ?", (dataset_id, sample_id)
        ).rowcount
        if not unlinked:
            raise refuse(404, "The dataset and the sample are not linked")
        touch(db, dataset_id)
        return {"detail": f"Sample {sample} unlinked from dataset {dataset}"}


def _add_family_routes(router: APIRouter, kind: Literal["dataset", "sample"]) -> None:
    """The same four routes for datasets and for samples."""

    @router.post(f"/{kind}s/{{parent}}/children/{{child}}", status_code=201, name=f"link_{kind}s")
    def link(call: Call, parent: str, child: str, relationship_type: Relationship | None = None) -> Json:
        with call.write() as db:
            parent_id, child_id = _ends(db, call, kind, parent, child)
            _refuse_cycle(db, parent_id, child_id, parent, child)
            stored = db.execute(
                "INSERT INTO link (parent_id, child_id, relationship_type) VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
                " SET relationship_type = COALESCE(excluded.relationship_type, relationship_type)"
                " RETURNING relationship_type",
                (parent_id, child_id, relationship_type),
            ).fetchone()[0]
            touch(db, child_id)
            return {"parent_id": parent, "child_id": child, "relationship_type": stored}

    @router.delete(f"/{kind}s/{{parent}}/children/{{child}}", name=f"unlink_{kind}s")
    def unlink(call: Call, parent: str, child: str) -> Json:
        with call.write() as db:
            ends = _ends(db, call, kind, parent, child)
            if not db.execute("DELETE FROM link WHERE parent_id = ? AND child_id = ?", ends).rowcount:
                raise refuse(404, f"{child} is not a child of {parent}")
            touch(db, ends[1])
            return {"detail": f"{kind.capitalize()} {child} is no longer a child of {parent}"}


def _ends(db: sqlite3.Connection, call: AuthenticatedCall, kind: str, parent: str, child: str) -> tuple[int, int]:
    """The ids of both: a link says where the child comes from, so it needs the right to edit the child."""
    parent_row = require(db, call.caller, parent, VIEWER, kind)
    child_row = require(db, call.caller, child, EDITOR, kind)
    return parent_row["id"], child_row["id"]


def _refuse_cycle(db: sqlite3.Connection, parent_id: int, child_id: int, parent: str, child: str) -> None:
    if parent_id == child_id:
        raise refuse(422, f"{parent} cannot be its own parent")
    closes = db.execute(
        """WITH RECURSIVE below(id) AS (
               SELECT child_id FROM link WHERE parent_id = :child
               UNION SELECT child_id FROM link JOIN below ON parent_id = below.id)
           SELECT 1 FROM below WHERE id = :parent""",
        {"child": child_id, "parent": parent_id},
    ).fetchone()
    if closes:
        raise refuse(
            422, f"Linking {parent} (parent) to {child} (child) would close a cycle: {child} is above {parent}"
        )


for _kind in ("dataset", "sample"):
    _add_family_routes(router, _kind)


@router.get("/datasets/{mfid}/children")
def dataset_children(call: Call, mfid: str, query: Annotated[ChildDatasetQuery, Query()]) -> Json:
    return _family(call, "dataset", mfid, query, "parent_id", "child_id")


@router.get("/datasets/{mfid}/parents")
def dataset_parents(call: Call, mfid: str, query: Annotated[ChildDatasetQuery, Query()]) -> Json:
    return _family(call, "dataset", mfid, query, "child_id", "parent_id")


@router.get("/samples/{mfid}/children")
def sample_children(call: Call, mfid: str, query: Annotated[ChildSampleQuery, Query()]) -> Json:
    return _family(call, "sample", mfid, query, "parent_id", "child_id")


@router.get("/samples/{mfid}/parents")
def sample_parents(call: Call, mfid: str, query: Annotated[ChildSampleQuery, Query()]) -> Json:
    return _family(call, "sample", mfid, query, "child_id", "parent_id")


def _family(
    call: AuthenticatedCall,
    kind: str,
    mfid: str,
    query: ChildDatasetQuery | ChildSampleQuery,
    here: str,
    there: str,
) -> Json:
    """A page of the records at the other ends of this one's links."""
    with call.read() as db:
        row = require(db, call.caller, mfid, VIEWER, kind)
        found = where(db, call.caller, kind, query)
        linked = f"resource.id IN (SELECT {there} FROM link WHERE {here} = ?"  # noqa: S608
        if query.relationship_type:
            found.add(f"{linked} AND relationship_type = ?)", row["id"], query.relationship_type)
        else:
            found.add(f"{linked})", row["id"])
        return list_page(db, call.caller, kind, query, found)
