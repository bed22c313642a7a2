"""Access control: roles on resources, as numbers to compare and as SQL to filter by.

A user's role on a resource is the strongest of: ownership, a grant to the user, a grant to a project of the user's,
the user's role in the resource's project, public visibility, and (for a service account) its instrument binding.
A grant on an instrument covers its record, but not the datasets that came from it.
viewer: read. contributor: also add files, keywords, thumbnails, metadata. editor: also change and link.
admin: also share, move, delete. owner: also transfer. platform_admin: everything.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.exceptions import HTTPException

from crucible_lineage.ids import is_mfid
from crucible_lineage.server.database import JsonObject
from crucible_lineage.server.seals import require_rows

# ruff: noqa: S608 - SQL is built from constants of this package only; values are always bound


NONE, VIEWER, CONTRIBUTOR, EDITOR, ADMIN, OWNER, PLATFORM_ADMIN = range(7)
ROLE_NAMES = ("none", "viewer", "contributor", "editor", "admin", "owner", "platform_admin")
ROLE_VALUES = {name: value for value, name in enumerate(ROLE_NAMES)}


PUBLIC_GRANT: JsonObject = {"principal_id": "public", "principal_type": "public", "permission": "viewer"}


@dataclass(frozen=True)
class Caller:
    """The user behind a request."""

    id: int
    unique_id: str
    elevated: bool
    is_admin: bool = False
    is_service_account: bool = False


# The projects of a user: as a member or as the lead.
_MY_PROJECTS = """
    SELECT access.resource_id FROM access JOIN project ON project.id = access.resource_id WHERE access.user_id = :user
    UNION SELECT resource.id FROM resource WHERE resource.owner_id = :user AND resource.type = 'project'
"""

# A condition on `resource`: may the user :user read it? For use inside larger statements.
READABLE = f"""(
    resource.public OR resource.owner_id = :user OR resource.type = 'instrument'
    OR resource.project_id IN ({_MY_PROJECTS})
    OR resource.id IN (SELECT resource_id FROM access WHERE user_id = :user)
    OR resource.id IN (SELECT resource_id FROM access WHERE project_id IN ({_MY_PROJECTS}))
    OR resource.id IN (SELECT dataset.id FROM dataset JOIN binding USING (instrument_id) WHERE binding.user_id = :user)
)"""

# Every source of a role on the resources :ids, one row each.
_ROLES = f"""
    WITH selected AS (SELECT resource.* FROM resource WHERE id IN (SELECT value FROM json_each(:ids)))
    SELECT id, 5 AS role FROM selected WHERE owner_id = :user
    UNION ALL SELECT id, 1 FROM selected WHERE public OR type = 'instrument'
    UNION ALL SELECT id, role FROM selected JOIN access ON resource_id = id WHERE user_id = :user
    UNION ALL SELECT id, role FROM selected JOIN access ON resource_id = selected.project_id WHERE user_id = :user
    UNION ALL SELECT selected.id, 4 FROM selected JOIN resource AS home ON home.id = selected.project_id
        WHERE home.owner_id = :user
    UNION ALL SELECT id, role FROM selected JOIN access ON resource_id = id WHERE access.project_id IN ({_MY_PROJECTS})
    UNION ALL SELECT id, 2 FROM selected JOIN dataset USING (id) JOIN binding USING (instrument_id)
        WHERE user_id = :user
"""


def roles(db: sqlite3.Connection, caller: Caller, ids: Iterable[int]) -> dict[int, int]:
    """Return the caller's role on each of these resources."""
    selected = list(ids)
    if caller.elevated:
        return dict.fromkeys(selected, PLATFORM_ADMIN)
    return user_roles(db, caller.id, selected)


def user_roles(db: sqlite3.Connection, user_id: int, ids: Iterable[int]) -> dict[int, int]:
    """Return a user's own role on each of these resources, without administrator's privileges."""
    strongest = dict.fromkeys(ids, NONE)
    for number, role in db.execute(_ROLES, {"user": user_id, "ids": json.dumps(list(strongest))}):
        strongest[number] = max(strongest[number], role)
    return strongest


def find(db: sqlite3.Connection, mfid: str, kind: str | tuple[str, ...] | None = None) -> sqlite3.Row:
    """Return the `resource` row of an MFID without checking access; 404 if there is none of that kind."""
    row: sqlite3.Row | None = None
    if is_mfid(mfid):
        row = db.execute("SELECT * FROM resource WHERE mfid = ?", (mfid,)).fetchone()
    kinds = (kind,) if isinstance(kind, str) else kind
    if row is None or (kinds and row["type"] not in kinds):
        raise _not_found_as(kind)
    require_rows("resource", [row])
    return row


def require(
    db: sqlite3.Connection, caller: Caller, mfid: str, role: int, kind: str | tuple[str, ...] | None = None
) -> sqlite3.Row:
    """Return the `resource` row of an MFID on which the caller has at least `role`.

    404 if the caller may not even read it, so that its existence stays private; 403 if the caller may only read it.
    """
    row = find(db, mfid, kind)
    held_role = roles(db, caller, [row["id"]])[row["id"]]
    if held_role < VIEWER and row["type"] != "project":
        raise _not_found_as(kind)
    if held_role < role:
        raise HTTPException(
            403, f"This needs the role {ROLE_NAMES[role]} on this {row['type']}, not {ROLE_NAMES[held_role]}"
        )
    return row


def _not_found_as(kind: str | tuple[str, ...] | None) -> HTTPException:
    """Return the same error for a resource that does not exist and one that the caller may not see."""
    return not_found(kind if isinstance(kind, str) else "resource")


def not_found(kind: str) -> HTTPException:
    return HTTPException(404, f"{kind.capitalize()} not found")


def capabilities(role: int, kind: str) -> JsonObject:
    """Return what a role allows, in the form of the records."""
    may_administer = role >= ADMIN
    return {
        "can_edit": role >= EDITOR,
        "can_manage_access": may_administer,
        "can_change_status": may_administer,
        "can_transfer": role >= OWNER,
        "max_grant_role": "admin" if may_administer else None,
    } | ({"can_create_dataset": role >= CONTRIBUTOR} if kind == "project" else {})


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


def members(db: sqlite3.Connection, resource_id: int) -> list[JsonObject]:
    """Return the members of a project or the users bound to an instrument, without the lead or owner."""
    rows = db.execute(
        "SELECT user.*, access.role AS role FROM access JOIN user ON user.id = access.user_id WHERE resource_id = ?"
        " ORDER BY user.last_name, user.unique_id",
        (resource_id,),
    )
    return [{**user_record(row), "role": ROLE_NAMES[row["role"]]} for row in rows]


def grants(db: sqlite3.Connection, resource_id: int) -> list[JsonObject]:
    """Return all grants on a resource, the owner first."""
    owner = db.execute(
        "SELECT user.* FROM resource JOIN user ON user.id = owner_id WHERE resource.id = ?", (resource_id,)
    ).fetchone()
    result = [user_grant(owner, "owner")] if owner else []
    for row in db.execute(
        "SELECT user.*, role FROM access JOIN user ON user.id = user_id WHERE resource_id = ? ORDER BY user.unique_id",
        (resource_id,),
    ):
        result.append(user_grant(row, ROLE_NAMES[row["role"]]))
    for row in db.execute(
        "SELECT mfid, slug, title, role FROM access JOIN project ON project.id = access.project_id"
        " JOIN resource ON resource.id = project.id WHERE access.resource_id = ? ORDER BY mfid",
        (resource_id,),
    ):
        result.append(project_grant(row, ROLE_NAMES[row["role"]]))
    public = db.execute("SELECT public FROM resource WHERE id = ?", (resource_id,)).fetchone()["public"]
    return [*result, PUBLIC_GRANT] if public else result


def user_grant(row: sqlite3.Row, permission: str) -> JsonObject:
    return {
        "principal_id": row["unique_id"],
        "principal_type": "service_account" if row["is_service_account"] else "user",
        "permission": permission,
        "slug": row["username"],
        "display_name": f"{row['first_name']} {row['last_name']}".strip(),
    }


def project_grant(row: sqlite3.Row, permission: str) -> JsonObject:
    return {
        "principal_id": row["mfid"],
        "principal_type": "project",
        "permission": permission,
        "slug": row["slug"],
        "display_name": row["title"] or row["slug"],
    }
