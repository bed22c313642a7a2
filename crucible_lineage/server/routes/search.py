"""Search: resources by name, tolerating typing errors, and by the words in their metadata."""

from __future__ import annotations

import json
import re
from typing import Annotated, Literal

from fastapi import Query

from crucible_lineage.server.call import AuthenticatedCall, Call
from crucible_lineage.server.catalogue.filters import Conditions, add_affiliation
from crucible_lineage.server.catalogue.records import SELECTS, Embed, names, records, within_bounds
from crucible_lineage.server.catalogue.resources import project_row, similarity
from crucible_lineage.server.http import Json, SearchLimit
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.seals import DamagedError, intact

# ruff: noqa: S608 - SQL is built from constants of this package only; values are always bound


router = new_router()

Words = Annotated[str, Query(min_length=3, max_length=200)]
CANDIDATES = 200  # chosen: names with the most trigrams in common, which are then scored
ALIKE = 0.3  # the share of common trigrams from which PostgreSQL's trigram search calls texts similar


@router.get("/datasets/search")
def search_datasets(call: Call, q: Words, limit: SearchLimit = 20, project_id: str | None = None) -> Json:
    return _by_name(call, "dataset", q, limit, project_id)


@router.get("/samples/search")
def search_samples(call: Call, q: Words, limit: SearchLimit = 20, project_id: str | None = None) -> Json:
    return _by_name(call, "sample", q, limit, project_id)


@router.get("/projects/search")
def search_projects(call: Call, q: Words, limit: SearchLimit = 20) -> Json:
    result = _by_name(call, "project", q, limit, None)
    for item in result["items"]:
        item.update(lead=None, project_lead_orcid=None, scientific_metadata=None, members=None)
    return result


@router.get("/instruments/search")
def search_instruments(
    call: Call,
    q: Words,
    limit: SearchLimit = 20,
    include_owner: bool = False,
    status: Literal["active", "maintenance", "decommissioned"] | None = None,
    affiliation: Annotated[list[Literal["owner", "maintainer"]], Query(max_length=10)] = [],  # noqa: B006
) -> Json:
    conditions = Conditions()
    if status is not None:
        conditions.add("instrument.status = ?", status)
    add_affiliation(conditions, call.caller, affiliation)
    return _by_name(call, "instrument", q, limit, None, conditions, Embed(owner=include_owner))


@router.get("/resources/metadata/search")
def search_metadata(call: Call, q: Annotated[str, Query(max_length=200)], limit: SearchLimit = 20) -> Json:
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


def _by_name(
    call: AuthenticatedCall,
    kind: str,
    q: str,
    limit: int,
    project: str | None,
    conditions: Conditions | None = None,
    embed: Embed = Embed(),  # noqa: B008
) -> Json:
    """Return the records whose names contain the query or share enough trigrams with it, best first."""
    conditions = conditions or Conditions()
    q = q.replace("\0", " ")  # it would end the query early
    trigrams = {q[start : start + 3] for start in range(len(q) - 2)}
    conditions.add("name_parts MATCH ?", " OR ".join('"' + part.replace('"', '""') + '"' for part in sorted(trigrams)))
    conditions.add("resource.type = ?", kind)
    conditions.add("NOT resource.hidden")
    if kind in ("dataset", "sample"):
        conditions.limit_to(call.caller)
    with call.read() as db:
        if project is not None:
            conditions.add("resource.project_id = ?", project_row(db, project, status=422)["id"])
        join = "" if kind != "instrument" else "JOIN instrument ON instrument.id = resource.id"
        candidates = db.execute(
            f"""SELECT resource.id, name FROM name_parts JOIN resource ON resource.id = name_parts.rowid {join}
                WHERE {conditions} ORDER BY name_parts.rank LIMIT {CANDIDATES}""",
            conditions.values,
        ).fetchall()
        scored = sorted(((_score(q, row["name"]), row["id"]) for row in candidates), reverse=True)
        best = [number for score, number in scored if score >= ALIKE][:limit]
        marks = ",".join(map(str, best))
        rows = {row["id"]: row for row in db.execute(f"{SELECTS[kind]} WHERE resource.id IN ({marks})").fetchall()}
        return {"items": records(db, call.caller, kind, [rows[number] for number in best], embed)}


def _score(query: str, name: str) -> float:
    """Return 1 to 2 for a name that contains the query, higher for shorter names; below 1 for a similar one."""
    if query.casefold() in name.casefold():
        return 1 + len(query) / (len(name) + 1)
    return similarity(query, name)
