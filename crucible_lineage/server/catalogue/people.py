"""Users as others see them, and their part in resources: members of a project, holders of grants."""

from __future__ import annotations

import sqlite3
from typing import Any

from crucible_lineage.server.catalogue.access import ROLE_NAMES

__all__ = ["PUBLIC_GRANT", "grants", "members", "project_grant", "public_user", "user_grant", "user_record"]

Record = dict[str, Any]
PUBLIC_GRANT: Record = {"principal_id": "public", "principal_type": "public", "permission": "viewer"}


def public_user(row: sqlite3.Row | None) -> Record | None:
    if row is None:
        return None
    return {name: row[name] for name in ("unique_id", "username", "first_name", "last_name")}


def user_record(row: sqlite3.Row) -> Record:
    return {
        **(public_user(row) or {}),
        "id": row["id"],
        "email": row["email"],
        "is_service_account": bool(row["is_service_account"]),
        "platform_role": row["platform_role"],
    }


def members(db: sqlite3.Connection, resource_id: int) -> list[Record]:
    """The members of a project or the users bound to an instrument, without the lead or owner."""
    rows = db.execute(
        "SELECT user.*, access.role AS role FROM access JOIN user ON user.id = access.user_id WHERE resource_id = ?"
        " ORDER BY user.last_name, user.unique_id",
        (resource_id,),
    )
    return [{**user_record(row), "role": ROLE_NAMES[row["role"]]} for row in rows]


def grants(db: sqlite3.Connection, resource_id: int) -> list[Record]:
    """All that have a part in a resource, the owner first."""
    owner = db.execute(
        "SELECT user.* FROM resource JOIN user ON user.id = owner_id WHERE resource.id = ?", (resource_id,)
    ).fetchone()
    found = [user_grant(owner, "owner")] if owner else []
    for row in db.execute(
        "SELECT user.*, role FROM access JOIN user ON user.id = user_id WHERE resource_id = ? ORDER BY user.unique_id",
        (resource_id,),
    ):
        found.append(user_grant(row, ROLE_NAMES[row["role"]]))
    for row in db.execute(
        "SELECT mfid, slug, title, role FROM access JOIN project ON project.id = access.project_id"
        " JOIN resource ON resource.id = project.id WHERE access.resource_id = ? ORDER BY mfid",
        (resource_id,),
    ):
        found.append(project_grant(row, ROLE_NAMES[row["role"]]))
    public = db.execute("SELECT public FROM resource WHERE id = ?", (resource_id,)).fetchone()["public"]
    return [*found, PUBLIC_GRANT] if public else found


def user_grant(row: sqlite3.Row, permission: str) -> Record:
    return {
        "principal_id": row["unique_id"],
        "principal_type": "service_account" if row["is_service_account"] else "user",
        "permission": permission,
        "slug": row["username"],
        "display_name": f"{row['first_name']} {row['last_name']}".strip(),
    }


def project_grant(row: sqlite3.Row, permission: str) -> Record:
    return {
        "principal_id": row["mfid"],
        "principal_type": "project",
        "permission": permission,
        "slug": row["slug"],
        "display_name": row["title"] or row["slug"],
    }
