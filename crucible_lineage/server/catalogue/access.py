"""Who may do what: roles on resources, as numbers to compare and as SQL to filter by.

A role on a resource comes from the strongest of: ownership, a grant to the user, a grant to a project of the user's,
the user's role in the resource's own project, publicity, and (for a service account) the instrument it is bound to.
A grant on an instrument is one on its record, and none on the datasets that came from it.
viewer: read. contributor: also add files, keywords, thumbnails, metadata. editor: also change and link.
admin: also share, move, delete. owner: also give away. platform_admin: everything.
"""

# ruff: noqa: S608 - SQL is put together from words of this package only; values are always bound
from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException

from crucible_lineage.ids import is_mfid
from crucible_lineage.server.seals import require_rows

__all__ = [
    "ADMIN",
    "CONTRIBUTOR",
    "EDITOR",
    "NONE",
    "OWNER",
    "PLATFORM_ADMIN",
    "READABLE",
    "ROLE_NAMES",
    "ROLE_VALUES",
    "VIEWER",
    "Caller",
    "capabilities",
    "find",
    "require",
    "roles",
]  # fmt: skip

NONE, VIEWER, CONTRIBUTOR, EDITOR, ADMIN, OWNER, PLATFORM_ADMIN = range(7)
ROLE_NAMES = ("none", "viewer", "contributor", "editor", "admin", "owner", "platform_admin")
ROLE_VALUES = {name: value for value, name in enumerate(ROLE_NAMES)}


@dataclass(frozen=True)
class Caller:
    """The user behind a request."""

    id: int
    unique_id: str
    elevated: bool
    is_admin: bool = False
    is_service_account: bool = False


# The projects a user has a part in: as a member, or as their lead.
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
    WITH wanted AS (SELECT resource.* FROM resource WHERE id IN (SELECT value FROM json_each(:ids)))
    SELECT id, 5 AS role FROM wanted WHERE owner_id = :user
    UNION ALL SELECT id, 1 FROM wanted WHERE public OR type = 'instrument'
    UNION ALL SELECT id, role FROM wanted JOIN access ON resource_id = id WHERE user_id = :user
    UNION ALL SELECT id, role FROM wanted JOIN access ON resource_id = wanted.project_id WHERE user_id = :user
    UNION ALL SELECT wanted.id, 4 FROM wanted JOIN resource AS home ON home.id = wanted.project_id
        WHERE home.owner_id = :user
    UNION ALL SELECT id, role FROM wanted JOIN access ON resource_id = id WHERE access.project_id IN ({_MY_PROJECTS})
    UNION ALL SELECT id, 2 FROM wanted JOIN dataset USING (id) JOIN binding USING (instrument_id)
        WHERE user_id = :user
"""


def roles(db: sqlite3.Connection, caller: Caller, ids: Iterable[int]) -> dict[int, int]:
    """The caller's role on each of these resources."""
    wanted = list(ids)
    if caller.elevated:
        return dict.fromkeys(wanted, PLATFORM_ADMIN)
    return user_roles(db, caller.id, wanted)


def user_roles(db: sqlite3.Connection, user_id: int, ids: Iterable[int]) -> dict[int, int]:
    """A user's own role on each of these resources, without administrator's privileges."""
    found = dict.fromkeys(ids, NONE)
    for number, role in db.execute(_ROLES, {"user": user_id, "ids": json.dumps(list(found))}):
        found[number] = max(found[number], role)
    return found


def find(db: sqlite3.Connection, mfid: str, kind: str | tuple[str, ...] | None = None) -> sqlite3.Row:
    """The `resource` row of an MFID, without looking at access; 404 where there is none of that kind."""
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
    """The `resource` row of an MFID on which the caller has at least `role`.

    404 for what the caller may not even read, so that nobody learns of it; 403 for what the caller may only read.
    """
    row = find(db, mfid, kind)
    held = roles(db, caller, [row["id"]])[row["id"]]
    if held < VIEWER and row["type"] != "project":
        raise _not_found_as(kind)
    if held < role:
        raise HTTPException(
            403, f"This needs the role {ROLE_NAMES[role]} on this {row['type']}, not {ROLE_NAMES[held]}"
        )
    return row


def _not_found_as(kind: str | tuple[str, ...] | None) -> HTTPException:
    """The same words for what is not there and for what the caller may not see."""
    return not_found(kind if isinstance(kind, str) else "resource")


def not_found(kind: str) -> HTTPException:
    return HTTPException(404, f"{kind.capitalize()} not found")


def capabilities(role: int, kind: str) -> dict[str, Any]:
    """Return what a role allows, in the form of the records."""
    may_administer = role >= ADMIN
    return {
        "can_edit": role >= EDITOR,
        "can_manage_access": may_administer,
        "can_change_status": may_administer,
        "can_transfer": role >= OWNER,
        "max_grant_role": "admin" if may_administer else None,
    } | ({"can_create_dataset": role >= CONTRIBUTOR} if kind == "project" else {})
