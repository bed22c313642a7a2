"""Graphs: what is linked with what, as networkx writes it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator

from crucible_lineage.server.call import AuthenticatedCall, Call
from crucible_lineage.server.catalogue.access import VIEWER, require, roles
from crucible_lineage.server.catalogue.records import names
from crucible_lineage.server.catalogue.references import project_row
from crucible_lineage.server.http import Json
from crucible_lineage.server.http import router as new_router
from crucible_lineage.server.seals import DamagedError, whole

router = new_router()

_NEIGHBOURS = """
    SELECT child_id FROM link WHERE parent_id = :start UNION SELECT parent_id FROM link WHERE child_id = :start
    UNION SELECT sample_id FROM association WHERE dataset_id = :start
    UNION SELECT dataset_id FROM association WHERE sample_id = :start UNION SELECT :start
"""
_COMPONENT = """
    WITH RECURSIVE reached(id) AS (
        SELECT :start
        UNION SELECT child_id FROM reached JOIN link ON parent_id = reached.id
        UNION SELECT parent_id FROM reached JOIN link ON child_id = reached.id
        UNION SELECT sample_id FROM reached JOIN association ON dataset_id = reached.id
        UNION SELECT dataset_id FROM reached JOIN association ON sample_id = reached.id)
    SELECT id FROM reached
"""


@router.get("/entity_graph_cte/{mfid}")
def entity_graph(call: Call, mfid: str, recursive: bool = False) -> Json:
    """The resource with its neighbours, or with all that it is connected to."""
    with call.read() as db:
        row = require(db, call.caller, mfid, VIEWER, ("dataset", "sample"))
        ids = [number for (number,) in db.execute(_COMPONENT if recursive else _NEIGHBOURS, {"start": row["id"]})]
        return _graph(db, call, ids)


@router.get("/project_graph/{project}")
def project_graph(call: Call, project: str) -> Json:
    with call.read() as db:
        home = project_row(db, project)["id"]
        ids = [
            number
            for (number,) in db.execute(
                "SELECT id FROM resource WHERE project_id = ? AND type IN ('dataset', 'sample')", (home,)
            )
        ]
        return _graph(db, call, ids)


def _graph(db: sqlite3.Connection, call: AuthenticatedCall, ids: Iterable[int]) -> Json:
    """The node-link form of what the caller may read among these resources; edges run parent to child."""
    readable = {number for number, role in roles(db, call.caller, ids).items() if role >= VIEWER}
    named = names(db, readable)
    edges = [
        {"source": named[parent]["mfid"], "target": named[child]["mfid"], "relationship_type": relationship}
        for parent, child, relationship in _edges(db, readable)
        if parent in readable and child in readable
    ]
    nodes = [
        {
            "id": row["mfid"],
            "entity_type": row["type"],
            "name": row["name"],
            f"{row['type']}_name": row["name"],
            "project_id": row["slug"],
        }
        for _, row in sorted(named.items())
    ]
    return {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, "edges": edges, "links": edges}


def _edges(db: sqlite3.Connection, ids: set[int]) -> Iterator[tuple[int, int, str | None]]:
    found = db.execute(
        f"""SELECT parent_id, child_id, relationship_type, {whole("link")} FROM link
            WHERE parent_id IN (SELECT value FROM json_each(:ids))
            UNION ALL SELECT sample_id, dataset_id, NULL, {whole("association")} FROM association
            WHERE dataset_id IN (SELECT value FROM json_each(:ids))""",  # noqa: S608 (words of this package)
        {"ids": json.dumps(list(ids))},
    )
    for parent, child, relationship, is_whole in found:
        if not is_whole:
            raise DamagedError("link", parent)
        yield parent, child, relationship
