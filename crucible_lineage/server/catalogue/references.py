"""From the words by which people name users, projects and instruments to the rows that are meant."""

from __future__ import annotations

import re
import sqlite3

from starlette.exceptions import HTTPException

from crucible_lineage.ids import is_mfid

__all__ = ["SLUG", "instrument_row", "match_instrument", "project_row", "select_project", "user_row"]

SLUG = r"^[A-Za-z0-9][A-Za-z0-9_-]{2,24}$"
ORCID = r"^\d{4}-\d{4}-\d{4}-\d{3}[0-9X]$"
USERNAME = r"^[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*$"

_PROJECT = "SELECT resource.*, slug, title FROM resource JOIN project USING (id)"
_INSTRUMENT = "SELECT resource.*, slug, instrument_name FROM resource JOIN instrument USING (id)"


def user_row(db: sqlite3.Connection, reference: str, *, status: int = 404) -> sqlite3.Row:
    """The user with this ORCID, MFID, username or email; an error of `status` where there is none."""
    if "@" in reference:
        column = "email"
    elif is_mfid(reference) or re.match(ORCID, reference):
        column = "unique_id"
    else:
        column = "username"
    row: sqlite3.Row | None = db.execute(f"SELECT * FROM user WHERE {column} = ?", (reference,)).fetchone()  # noqa: S608
    if row is None:
        raise HTTPException(status, f"User not found: {reference[:100]}")
    return row


def project_row(db: sqlite3.Connection, reference: str, *, status: int = 404) -> sqlite3.Row:
    """The project with this MFID or slug."""
    column = "mfid" if is_mfid(reference) else "slug"
    row: sqlite3.Row | None = db.execute(f"{_PROJECT} WHERE {column} = ?", (reference,)).fetchone()
    if row is None:
        raise HTTPException(status, f"Project not found: {reference[:100]}")
    return row


def instrument_row(db: sqlite3.Connection, reference: str, *, status: int = 404) -> sqlite3.Row:
    """The instrument with this MFID or slug."""
    column = "mfid" if is_mfid(reference) else "slug"
    row: sqlite3.Row | None = db.execute(f"{_INSTRUMENT} WHERE {column} = ?", (reference,)).fetchone()
    if row is None:
        raise HTTPException(status, f"Instrument not found: {reference[:100]}")
    return row


def select_project(
    db: sqlite3.Connection, slug: str | None, mfid: str | None, *, status: int = 422
) -> sqlite3.Row | None:
    """The project that one or both selectors name, None where there is none of them; 422 where they disagree."""
    rows = [project_row(db, reference, status=status) for reference in (slug, mfid) if reference is not None]
    if len({row["id"] for row in rows}) > 1:
        raise HTTPException(422, "project_id and project_mfid name different projects")
    return rows[0] if rows else None


def match_instrument(
    db: sqlite3.Connection,
    slug: str | None,
    mfid: str | None,
    name: str | None,
    *,
    owner_id: int,
    project_id: int | None,
) -> sqlite3.Row | None:
    """The instrument that the selectors name, for a new dataset of this owner in this project.

    A bare name counts if exactly one instrument is called so within reach: registered by the dataset's owner, by
    somebody with a part in the project, or by an administrator of the platform. It would otherwise give whoever
    registers an instrument under a name that others use a part in their datasets.
    """
    rows = [instrument_row(db, reference, status=422) for reference in (slug, mfid) if reference is not None]
    if len({row["id"] for row in rows}) > 1:
        raise HTTPException(422, "instrument_id and instrument_mfid name different instruments")
    if rows:
        if name is not None and name != rows[0]["instrument_name"]:
            raise HTTPException(422, "instrument_name is not the name of the instrument that was selected")
        return rows[0]
    if name is None:
        return None
    within_reach = """(owner_id = :owner OR owner_id IN (SELECT id FROM user WHERE platform_role = 'admin')
        OR owner_id IN (SELECT user_id FROM access WHERE resource_id = :project AND role >= 2)
        OR owner_id = (SELECT owner_id FROM resource WHERE id = :project))"""
    values = {"name": name, "owner": owner_id, "project": project_id}
    named = db.execute(f"{_INSTRUMENT} WHERE instrument_name = :name AND {within_reach} LIMIT 2", values).fetchall()
    return named[0] if len(named) == 1 else None
