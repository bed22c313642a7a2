"""Access control: roles on resources, as numbers to compare and as SQL to filter by.

A user's role on a resource is the strongest of: ownership, the user's role in its project, and public visibility.
viewer: read. contributor: also add files, keywords, thumbnails, metadata. editor: also change and link.
admin: also publish and move. platform_admin: everything, also delete.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from crucible_lineage.ids import is_mfid
from crucible_lineage.server.database import JsonObject
from crucible_lineage.server.http import Refusal

NONE, VIEWER, CONTRIBUTOR, EDITOR, ADMIN, OWNER, PLATFORM_ADMIN = range(7)
Kind = str | tuple[str, ...] | None  # of resources; None stands for all
ROLE_NAMES = ("none", "viewer", "contributor", "editor", "admin", "owner", "platform_admin")


@dataclass(frozen=True)
class Caller:
    """The user behind a request."""

    id: int
    unique_id: str
    elevated: bool
    is_admin: bool = False


# A condition on `resource`: may the user :user read it? For use inside larger statements.
READABLE = """(
    resource.public OR resource.owner_id = :user OR resource.type = 'instrument'
    OR resource.project_id IN (SELECT project_id FROM member WHERE user_id = :user)
    OR resource.project_id IN (SELECT id FROM resource WHERE owner_id = :user AND type = 'project')
)"""

# Every source of a role on the resources :ids, one row each. The owner of a project leads it.
_ROLES = """
    WITH selected AS (SELECT resource.* FROM resource WHERE id IN (SELECT value FROM json_each(:ids)))
    SELECT id, 5 AS role FROM selected WHERE owner_id = :user
    UNION ALL SELECT id, 1 FROM selected WHERE public OR type = 'instrument'
    UNION ALL SELECT id, role FROM selected JOIN member ON member.project_id IN (selected.id, selected.project_id)
        WHERE user_id = :user
    UNION ALL SELECT selected.id, 4 FROM selected JOIN resource AS home ON home.id = selected.project_id
        WHERE home.owner_id = :user
"""


def roles(db: sqlite3.Connection, caller: Caller, ids: Iterable[int]) -> dict[int, int]:
    """Return the caller's role on each of these resources."""
    if caller.elevated:
        return dict.fromkeys(ids, PLATFORM_ADMIN)
    strongest = dict.fromkeys(ids, NONE)
    for number, role in db.execute(_ROLES, {"user": caller.id, "ids": json.dumps(list(strongest))}):
        strongest[number] = max(strongest[number], role)
    return strongest


def role_on(db: sqlite3.Connection, caller: Caller, resource_id: int) -> int:
    """Return the caller's role on one resource."""
    return roles(db, caller, [resource_id])[resource_id]


def find(db: sqlite3.Connection, reference: str, kind: Kind = None) -> sqlite3.Row | None:
    """Return the resource of this kind with an MFID, or with a slug if it is a project or instrument."""
    column = "slug" if kind in ("project", "instrument") and not is_mfid(reference) else "mfid"
    rows = db.execute(f"SELECT * FROM resource WHERE {column} = ?", (reference,))  # noqa: S608 - one of two names
    kinds = (kind,) if isinstance(kind, str) else kind
    return next((row for row in rows if kinds is None or row["type"] in kinds), None)


def require(db: sqlite3.Connection, caller: Caller, reference: str, role: int, kind: Kind = None) -> sqlite3.Row:
    """Return the row of a resource on which the caller has at least `role`.

    404 if the caller may not even read it, so that its existence stays private; 403 if the caller may only read it.
    """
    row = find(db, reference, kind)
    held_role = NONE if row is None else role_on(db, caller, row["id"])
    if row is None or (held_role < VIEWER and row["type"] != "project"):
        raise not_found(kind)
    if held_role < role:
        raise Refusal(403, f"This needs the role {ROLE_NAMES[role]} on this {row['type']}, not {ROLE_NAMES[held_role]}")
    return row


def not_found(kind: Kind) -> Refusal:
    """Return the same error for what does not exist and what the caller may not see."""
    return Refusal(404, f"{kind.capitalize() if isinstance(kind, str) else 'Resource'} not found")


def require_elevated(caller: Caller) -> None:
    if not caller.elevated:
        raise Refusal(403, "Only platform administrators may do this")


def public_user(row: sqlite3.Row | None) -> JsonObject | None:
    if row is None:
        return None
    return {name: row[name] for name in ("unique_id", "username", "first_name", "last_name")}


def user_record(row: sqlite3.Row) -> JsonObject:
    return {
        **(public_user(row) or {}),
        "id": row["id"],
        "email": row["email"],
        "is_service_account": bool(row["is_service_account"]),
        "platform_role": row["platform_role"],
    }


def members(db: sqlite3.Connection, project_id: int) -> list[JsonObject]:
    """Return the members of a project without its lead."""
    rows = db.execute(
        "SELECT user.*, role FROM member JOIN user ON user.id = user_id WHERE project_id = ?"
        " ORDER BY last_name, unique_id",
        (project_id,),
    )
    return [{**user_record(row), "role": ROLE_NAMES[row["role"]]} for row in rows]
