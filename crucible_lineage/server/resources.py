"""Resources: who may do what with them, finding, creating and changing their rows, and their scientific metadata.

A user's role on a resource is the strongest of: ownership, the user's role in its project, and public visibility.
viewer: read. contributor: also add files, keywords, thumbnails, metadata. editor: also change and link.
admin: also publish and move. platform_admin: everything, also delete.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crucible_lineage.ids import is_mfid, new_mfid
from crucible_lineage.server.database import JsonObject, Transaction, now
from crucible_lineage.server.http import Refusal, invalid

# ruff: noqa: S608 - SQL is built from constants of this package only; values are always bound

NONE, VIEWER, CONTRIBUTOR, EDITOR, ADMIN, _, PLATFORM_ADMIN = range(7)
Kind = str | tuple[str, ...] | None  # of resources; None stands for all
NAMED = ("project", "instrument")  # by a slug, beside their MFID
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


def roles(db: Transaction, caller: Caller, ids: Iterable[int]) -> dict[int, int]:
    """Return the caller's role on each of these resources."""
    if caller.elevated:
        return dict.fromkeys(ids, PLATFORM_ADMIN)
    strongest = dict.fromkeys(ids, NONE)
    for number, role in db.execute(_ROLES, {"user": caller.id, "ids": json.dumps(list(strongest))}):
        strongest[number] = max(strongest[number], role)
    return strongest


def role_on(db: Transaction, caller: Caller, resource_id: int) -> int:
    """Return the caller's role on one resource."""
    return roles(db, caller, [resource_id])[resource_id]


def find(db: Transaction, reference: str, kind: Kind = None) -> sqlite3.Row | None:
    """Return the resource of this kind with an MFID, or with a slug if it is a project or instrument."""
    column = "slug" if kind in NAMED and not is_mfid(reference) else "mfid"
    rows = db.execute(f"SELECT * FROM resource WHERE {column} = ?", (reference,))
    kinds = (kind,) if isinstance(kind, str) else kind
    return next((row for row in rows if kinds is None or row["type"] in kinds), None)


def require(db: Transaction, caller: Caller, reference: str, role: int, kind: Kind = None) -> sqlite3.Row:
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
    own = {name: row[name] for name in ("id", "email", "platform_role")}
    return {**(public_user(row) or {}), **own, "is_service_account": bool(row["is_service_account"])}


def members(db: Transaction, project_id: int) -> list[JsonObject]:
    """Return the members of a project without its lead."""
    rows = db.execute(
        "SELECT user.*, role FROM member JOIN user ON user.id = user_id WHERE project_id = ?"
        " ORDER BY last_name, unique_id",
        (project_id,),
    )
    return [{**user_record(row), "role": ROLE_NAMES[row["role"]]} for row in rows]


def insert(db: Transaction, kind: str, mfid: str | None, owner_id: int, values: JsonObject) -> int:
    """Create a resource with these columns and return its id; 409 if the MFID is taken."""
    if mfid is not None and not is_mfid(mfid):
        raise invalid("body", "unique_id", "is not an MFID: 26 symbols of 0-9 a-z without i, l, o, u")
    moment = now()
    own = {"mfid": mfid or new_mfid(), "type": kind, "owner_id": owner_id, "created": moment, "modified": moment}
    try:
        return db.add("resource", **(own | values))
    except sqlite3.IntegrityError:
        raise Refusal(409, f"A resource with unique_id {mfid} already exists") from None


def change(db: Transaction, resource_id: int, values: Mapping[str, object] | None = None) -> None:
    """Set these columns, and that the resource was modified; their names are from the code, never from a request."""
    row = {**(values or {}), "modified": now()}
    assignments = ", ".join(f"{name} = ?" for name in row)
    db.execute(f"UPDATE resource SET {assignments} WHERE id = ?", (*row.values(), resource_id))


def choose_owner(db: Transaction, caller: Caller, *references: str | None) -> int:
    """Return the user id of the owner named, by default the caller; only administrators may name others."""
    named = [reference for reference in references if reference is not None]
    if len(named) > 1:
        raise Refusal(422, "Name the owner once: owner or owner_orcid, not both")
    if not named:
        return caller.id
    owner = int(user_row(db, named[0], status=422)["id"])
    if owner != caller.id and not caller.elevated:
        raise Refusal(403, "Only platform administrators create records for others")
    return owner


def home_project(db: Transaction, caller: Caller, slug: str | None, mfid: str | None) -> sqlite3.Row | None:
    """Return the project for a new record, in which the caller must be allowed to create."""
    project = select(db, "project", slug, mfid)
    if project is not None and role_on(db, caller, project["id"]) < CONTRIBUTOR:
        raise Refusal(403, f"Creating records in project {project['slug']} needs the role contributor in it")
    return project


def user_row(db: Transaction, reference: str, *, status: int = 404) -> sqlite3.Row:
    """Return the user with this ORCID, MFID, username or email; an error of `status` if there is none."""
    if (row := find_user(db, reference)) is None:
        raise Refusal(status, f"User not found: {reference[:100]}")
    return row


def find_user(db: Transaction, reference: str) -> sqlite3.Row | None:
    """Return the user with this ORCID, MFID, username or email, if there is one."""
    if "@" in reference:
        column = "email"
    elif is_mfid(reference) or re.match(r"^\d{4}-\d{4}-\d{4}-\d{3}[0-9X]$", reference):
        column = "unique_id"
    else:
        column = "username"
    return db.first(f"SELECT * FROM user WHERE {column} = ?", reference)


def select(db: Transaction, kind: str, slug: str | None, mfid: str | None, *, status: int = 422) -> sqlite3.Row | None:
    """Return the project or instrument that one or both selectors name, None without any; 422 if they disagree."""
    rows = {reference: find(db, reference, kind) for reference in (slug, mfid) if reference is not None}
    for reference, row in rows.items():
        if row is None:
            raise Refusal(status, f"{kind.capitalize()} not found: {reference[:100]}")
    if len({row["id"] for row in rows.values() if row}) > 1:
        raise Refusal(422, f"{kind}_id and {kind}_mfid name different {kind}s")
    return next(iter(rows.values()), None)


def instrument_columns(
    db: Transaction, name: str | None, slug: str | None = None, mfid: str | None = None
) -> JsonObject:
    """Return the columns of a dataset for the instrument that the selectors name; a bare name counts if one has it."""
    instrument = select(db, "instrument", slug, mfid)
    if instrument is not None and name not in (None, instrument["instrument_name"]):
        raise Refusal(422, "instrument_name is not the name of the instrument that was selected")
    if instrument is None and name is not None:
        named = "SELECT * FROM resource WHERE type = 'instrument' AND instrument_name = ? LIMIT 2"
        matches = db.execute(named, (name,)).fetchall()
        instrument = matches[0] if len(matches) == 1 else None
    if instrument is None:
        return {"instrument_id": None, "instrument_label": name}
    return {"instrument_id": instrument["id"], "instrument_label": None}


MAX_DOCUMENT_BYTES = 4 << 20  # chosen: a hundred thousand numbers; larger data belong in a file


def merged(old: dict[str, object], new: dict[str, object]) -> dict[str, object]:
    """Merge `new` into `old`: objects key by key, anything else is replaced; null is a value."""
    result = dict(old)
    for key, value in new.items():
        previous = result.get(key)
        result[key] = merged(previous, value) if isinstance(previous, dict) and isinstance(value, dict) else value
    return result


def rows_of(db: Transaction, table: str, ids: Iterable[int | None], column: str = "id") -> list[sqlite3.Row]:
    """Return the rows of a table with these ids."""
    wanted = json.dumps([number for number in set(ids) if number is not None])
    return db.execute(f"SELECT * FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))", (wanted,)).fetchall()


_PARSED = "parsed JOIN file ON file.id = file_id"
# The text of all documents of a `resource`.
DOCUMENTS = (
    "(SELECT group_concat(document, ' ') FROM (SELECT document FROM metadata WHERE metadata.id = resource.id"
    f" UNION ALL SELECT document FROM {_PARSED} WHERE dataset_id = resource.id))"
)


def metadata_of(db: Transaction, ids: Iterable[int]) -> dict[int, JsonObject]:
    """Return the metadata of those resources that have any: what people wrote, over what ingestion found in the files,
    the earlier ones first; of several files, also what was found in each."""
    ids, found = set(ids), defaultdict[int, list[tuple[str, JsonObject]]](list)
    for row in sorted(rows_of(db, _PARSED, ids, "dataset_id"), key=lambda row: int(row["file_id"])):
        if document := json.loads(row["document"]):
            found[row["dataset_id"]].append((row["filename"], document))
    written = {row["id"]: json.loads(row["document"]) for row in rows_of(db, "metadata", ids)}
    result: dict[int, JsonObject] = {}
    for number in found.keys() | written.keys():
        together: JsonObject = {}
        for _, document in found[number]:
            together = merged(document, together)
        own = {"files": dict(found[number])} if len(found[number]) > 1 else {}
        result[number] = merged(together | own, written.get(number, {}))
    return result


def written_metadata(db: Transaction, resource_id: int) -> JsonObject:
    """Return the metadata that people wrote, without what ingestion found in the files."""
    row = db.first("SELECT * FROM metadata WHERE id = ?", resource_id)
    return {} if row is None else dict(json.loads(row["document"]))


def write_metadata(db: Transaction, resource_id: int, document: JsonObject) -> None:
    """Store the metadata that people wrote."""
    if len((text := to_json(document)).encode()) > MAX_DOCUMENT_BYTES:
        raise Refusal(413, f"Metadata is larger than {MAX_DOCUMENT_BYTES} bytes")
    db.execute("INSERT OR REPLACE INTO metadata (id, document) VALUES (?, ?)", (resource_id, text))


def to_json(document: Mapping[str, object]) -> str:
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise Refusal(422, "Metadata may not hold NaN or infinite numbers; JSON has none") from None
