"""Creating, changing and deleting the rows of resources, and resolving the names that people use for them."""

from __future__ import annotations

import re
import sqlite3

from starlette.exceptions import HTTPException

from crucible_lineage.ids import is_mfid, new_mfid
from crucible_lineage.server.catalogue.access import CONTRIBUTOR, Caller, role_on
from crucible_lineage.server.database import JsonObject, now
from crucible_lineage.server.http import invalid, refuse

# ruff: noqa: S608 - SQL is built from constants of this package only; values are always bound


ORCID = r"^\d{4}-\d{4}-\d{4}-\d{3}[0-9X]$"

_NAMED = {
    "project": "SELECT resource.*, slug, title FROM resource JOIN project USING (id)",
    "instrument": "SELECT resource.*, slug, instrument_name FROM resource JOIN instrument USING (id)",
}


def insert(
    db: sqlite3.Connection,
    kind: str,
    values: JsonObject,
    *,
    mfid: str | None = None,
    owner_id: int,
    project_id: int | None = None,
    public: bool = False,
) -> int:
    """Create a resource with these columns and return its id; 409 if the MFID is taken."""
    if mfid is not None and not is_mfid(mfid):
        raise invalid("body", "unique_id", "is not an MFID: 26 symbols of 0-9 a-z without i, l, o, u", mfid)
    moment = now()
    try:
        resource_id = db.execute(
            "INSERT INTO resource (mfid, type, owner_id, project_id, public, created, modified) VALUES (?,?,?,?,?,?,?)",
            (mfid or new_mfid(), kind, owner_id, project_id, int(public), moment, moment),
        ).lastrowid
    except sqlite3.IntegrityError:
        raise refuse(409, f"A resource with unique_id {mfid} already exists") from None
    assert resource_id is not None
    names = ", ".join(["id", *values])
    marks = ", ".join("?" * (len(values) + 1))
    db.execute(f"INSERT INTO {kind} ({names}) VALUES ({marks})", (resource_id, *values.values()))
    return resource_id


def change(db: sqlite3.Connection, kind: str, resource_id: int, values: JsonObject) -> None:
    """Set these columns; their names are from the code, never from a request."""
    if values:
        assignments = ", ".join(f"{name} = ?" for name in values)
        db.execute(f"UPDATE {kind} SET {assignments} WHERE id = ?", (*values.values(), resource_id))
    touch(db, resource_id)


def touch(db: sqlite3.Connection, resource_id: int) -> None:
    db.execute("UPDATE resource SET modified = ? WHERE id = ?", (now(), resource_id))


def note_loss(db: sqlite3.Connection, resource_id: int) -> None:
    """Change the revision of the resource's project, as after any loss."""
    db.execute(
        "UPDATE revision SET token = lower(hex(randomblob(8)))"
        " WHERE project_id = (SELECT project_id FROM resource WHERE id = ?)",
        (resource_id,),
    )


def remove(db: sqlite3.Connection, resource_id: int) -> None:
    """Delete the resource and all that belongs to it; contents that nothing else needs may be swept at once."""
    db.execute(
        "INSERT OR IGNORE INTO released_content SELECT sha256, '' FROM file"
        " WHERE dataset_id = ? AND sha256 IS NOT NULL",
        (resource_id,),
    )
    db.execute("DELETE FROM metadata_words WHERE rowid = ?", (resource_id,))
    db.execute("DELETE FROM resource WHERE id = ?", (resource_id,))


def choose_owner(db: sqlite3.Connection, caller: Caller, *references: str | None) -> int:
    """Return the user id of the owner named, by default the caller; only administrators may name others."""
    named = [reference for reference in references if reference is not None]
    if len(named) > 1:
        raise refuse(422, "Name the owner once: owner or owner_orcid, not both")
    if not named:
        return caller.id
    owner = int(user_row(db, named[0], status=422)["id"])
    if owner != caller.id and not caller.elevated:
        raise refuse(403, "Only platform administrators create records for others")
    return owner


def home_project(db: sqlite3.Connection, caller: Caller, slug: str | None, mfid: str | None) -> int | None:
    """Return the id of the project for a new record, in which the caller must be allowed to create."""
    project = select(db, "project", slug, mfid)
    if project is None:
        return None
    if role_on(db, caller, project["id"]) < CONTRIBUTOR:
        raise refuse(403, f"Creating records in project {project['slug']} needs the role contributor in it")
    return int(project["id"])


def user_row(db: sqlite3.Connection, reference: str, *, status: int = 404) -> sqlite3.Row:
    """Return the user with this ORCID, MFID, username or email; an error of `status` if there is none."""
    if (row := find_user(db, reference)) is None:
        raise HTTPException(status, f"User not found: {reference[:100]}")
    return row


def find_user(db: sqlite3.Connection, reference: str) -> sqlite3.Row | None:
    """Return the user with this ORCID, MFID, username or email, if there is one."""
    if "@" in reference:
        column = "email"
    elif is_mfid(reference) or re.match(ORCID, reference):
        column = "unique_id"
    else:
        column = "username"
    row: sqlite3.Row | None = db.execute(f"SELECT * FROM user WHERE {column} = ?", (reference,)).fetchone()
    return row


def named_row(db: sqlite3.Connection, kind: str, reference: str, status: int = 404) -> sqlite3.Row:
    """Return the project or instrument with this MFID or slug; an error of `status` if there is none."""
    column = "mfid" if is_mfid(reference) else "slug"
    row: sqlite3.Row | None = db.execute(f"{_NAMED[kind]} WHERE {column} = ?", (reference,)).fetchone()
    if row is None:
        raise HTTPException(status, f"{kind.capitalize()} not found: {reference[:100]}")
    return row


def select(
    db: sqlite3.Connection, kind: str, slug: str | None, mfid: str | None, *, status: int = 422
) -> sqlite3.Row | None:
    """Return the project or instrument that one or both selectors name, None without any; 422 if they disagree."""
    rows = [named_row(db, kind, reference, status) for reference in (slug, mfid) if reference is not None]
    if len({row["id"] for row in rows}) > 1:
        raise HTTPException(422, f"{kind}_id and {kind}_mfid name different {kind}s")
    return rows[0] if rows else None


def instrument_columns(
    db: sqlite3.Connection,
    name: str | None,
    *,
    owner_id: int,
    project_id: int | None,
    slug: str | None = None,
    mfid: str | None = None,
) -> JsonObject:
    """Return the columns of a dataset, of this owner in this project, for the instrument that the selectors name.

    A bare name counts if exactly one instrument within reach has it: registered by the dataset's owner, by a member of
    the project, or by a platform administrator. Otherwise, registering an instrument under a name that others use would
    give access to their datasets.
    """
    instrument = select(db, "instrument", slug, mfid)
    if instrument is not None and name not in (None, instrument["instrument_name"]):
        raise HTTPException(422, "instrument_name is not the name of the instrument that was selected")
    if instrument is None and name is not None:
        within_reach = """(owner_id = :owner OR owner_id IN (SELECT id FROM user WHERE platform_role = 'admin')
            OR owner_id IN (SELECT user_id FROM member WHERE project_id = :project AND role >= 2)
            OR owner_id = (SELECT owner_id FROM resource WHERE id = :project))"""
        query = f"{_NAMED['instrument']} WHERE instrument_name = :name AND {within_reach} LIMIT 2"
        matches = db.execute(query, {"name": name, "owner": owner_id, "project": project_id}).fetchall()
        instrument = matches[0] if len(matches) == 1 else None
    if instrument is None:
        return {"instrument_id": None, "instrument_label": name}
    return {"instrument_id": instrument["id"], "instrument_label": None}
