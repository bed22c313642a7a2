"""Search: resources by a part of their name, and by the words in their metadata."""

from __future__ import annotations

import json
import re
from typing import Annotated

from fastapi import APIRouter, Query

from crucible_lineage.server.call import Call
from crucible_lineage.server.catalogue.filters import Conditions
from crucible_lineage.server.catalogue.records import SELECTS, Embed, names, records, within_bounds
from crucible_lineage.server.catalogue.resources import named_row
from crucible_lineage.server.http import Json
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.seals import DamagedError, intact

# ruff: noqa: S608 - SQL is built from constants of this package only; values are always bound

router = new_router()

Words = Annotated[str, Query(min_length=3, max_length=200)]
Limit = Annotated[int, Query(ge=1, le=50)]
_NAMES = {
    "dataset": "dataset_name",
    "sample": "sample_name",
    "project": "COALESCE(title, '') || ' ' || project.slug",
    "instrument": "instrument_name || ' ' || COALESCE(instrument_type, '') || ' ' || COALESCE(manufacturer, '')",
}


def _add_search(router: APIRouter, kind: str) -> None:
    """Add the search by name for one kind of resource."""

    @router.get(f"/{kind}s/search", name=f"search_{kind}s")
    def search(
        call: Call, q: Words, limit: Limit = 20, project_id: str | None = None, include_owner: bool = False
    ) -> Json:
        conditions = Conditions("NOT resource.hidden", f"instr(lower({_NAMES[kind]}), lower(:q))", q=q)
        if kind in ("dataset", "sample"):
            conditions.limit_to(call.caller)
        with call.read() as db:
            if project_id is not None:
                conditions.add("resource.project_id = ?", named_row(db, "project", project_id, 422)["id"])
            rows = db.execute(
                f"{SELECTS[kind]} WHERE {conditions} ORDER BY length({_NAMES[kind]}), resource.mfid LIMIT {limit}",
                conditions.values,
            ).fetchall()
            return {"items": records(db, call.caller, kind, rows, Embed(owner=include_owner))}


for _kind in _NAMES:
    _add_search(router, _kind)


@router.get("/resources/metadata/search")
def search_metadata(call: Call, q: Annotated[str, Query(max_length=200)], limit: Limit = 20) -> Json:
    """Return the resources whose metadata have all of the words, in names or values."""
    words = re.findall(r"\w+", q.replace("_", " "))
    if not words:
        return {"items": []}
    quoted = " ".join(f'"{word}"' for word in words)
    conditions = Conditions("metadata_words MATCH :words", "NOT resource.hidden", words=quoted)
    conditions.limit_to(call.caller)
    with call.read() as db:
        rows = db.execute(
            f"""SELECT resource.*, user.unique_id AS owner, document, {intact("metadata")} AS is_intact
                FROM metadata_words JOIN resource ON resource.id = metadata_words.rowid
                JOIN metadata ON metadata.id = resource.id LEFT JOIN user ON user.id = resource.owner_id
                WHERE {conditions} ORDER BY metadata_words.rank, resource.id DESC LIMIT {limit}""",
            conditions.values,
        ).fetchall()
        rows = rows[: within_bounds(db, [row["id"] for row in rows])]
        named = names(db, [row["id"] for row in rows])
    if damaged := next((row for row in rows if not row["is_intact"]), None):
        raise DamagedError("metadata", damaged["id"])
    return {
        "items": [
            {
                "unique_id": row["mfid"],
                "resource_type": row["type"],
                "name": named[row["id"]]["name"],
                "owner_orcid": row["owner"],
                "creation_time": row["created"],
                "modification_time": row["modified"],
                "rank": 1 / (1 + position),  # the index's own score reveals how many documents of others contain a word
                "scientific_metadata": json.loads(row["document"]),
            }
            for position, row in enumerate(rows)
        ]
    }
