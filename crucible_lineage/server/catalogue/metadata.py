"""Scientific metadata: merging, bounds, and the words by which it is found."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

from starlette.exceptions import HTTPException

from crucible_lineage.server.database import now
from crucible_lineage.server.seals import require_rows

MAX_DOCUMENT_BYTES = 4 << 20  # chosen: a hundred thousand numbers; what is larger belongs into a file
MAX_DEPTH = 100  # chosen: far beyond any instrument's header, far below Python's recursion limit
MAX_INDEXED_CHARACTERS = 200_000  # chosen: search is for words, not for arrays printed as text

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`old` with `new` merged in: objects merge key by key, anything else is replaced; null is a value."""
    result = dict(old)
    for key, value in new.items():
        before = result.get(key)
        result[key] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return result


def read_metadata(db: sqlite3.Connection, resource_id: int) -> dict[str, Any] | None:
    """A resource's metadata, None where none was ever written."""
    row = db.execute("SELECT * FROM metadata WHERE id = ?", (resource_id,)).fetchone()
    if row is None:
        return None
    require_rows("metadata", [row])
    return dict(json.loads(row["document"]))


def given_metadata(db: sqlite3.Connection, resource_id: int) -> dict[str, Any]:
    """Return what people wrote of a resource's metadata, without what ingestion found in its files."""
    row = db.execute("SELECT * FROM metadata WHERE id = ?", (resource_id,)).fetchone()
    if row is None:
        return {}
    require_rows("metadata", [row])
    return dict(json.loads(row["document"] if row["given"] is None else row["given"]))


def write_metadata(db: sqlite3.Connection, resource_id: int, given: dict[str, Any]) -> dict[str, Any]:
    """The resource's metadata, now that people wrote this and ingestion found what it found.

    They are found by their words, and count as a modification of the resource.
    """
    _check_depth(given)
    parsed = _parsed(db, resource_id)
    document = _together(given, parsed)
    text = _as_json(document)
    words = " ".join(_words(document))[:MAX_INDEXED_CHARACTERS]
    if len(text.encode()) > MAX_DOCUMENT_BYTES:
        raise HTTPException(413, f"Metadata is larger than {MAX_DOCUMENT_BYTES} bytes")
    row = {"id": resource_id, "text": text, "given": _as_json(given) if parsed else None, "words": words}
    is_new = not db.execute("UPDATE metadata SET document = :text, given = :given WHERE id = :id", row).rowcount
    if is_new:
        db.execute("INSERT INTO metadata (id, document, given) VALUES (:id, :text, :given)", row)
        db.execute("INSERT INTO metadata_words (rowid, words) VALUES (:id, :words)", row)
    else:
        db.execute("UPDATE metadata_words SET words = :words WHERE rowid = :id", row)
    db.execute("UPDATE resource SET modified = ? WHERE id = ?", (now(), resource_id))
    return document


def renew_metadata(db: sqlite3.Connection, dataset_id: int) -> None:
    """The dataset's metadata say what its files say now; they are gone if neither files nor people say anything."""
    before = read_metadata(db, dataset_id)
    given = given_metadata(db, dataset_id)
    if given or _parsed(db, dataset_id):
        if before != _together(given, _parsed(db, dataset_id)):
            write_metadata(db, dataset_id, given)
    elif before is not None:
        db.execute("DELETE FROM metadata WHERE id = ?", (dataset_id,))
        db.execute("DELETE FROM metadata_words WHERE rowid = ?", (dataset_id,))


def _parsed(db: sqlite3.Connection, dataset_id: int) -> list[tuple[str, dict[str, Any]]]:
    """Return what ingestion found in each of the dataset's files, by name, in the order in which the files came."""
    found = db.execute(
        "SELECT filename, parsed.* FROM parsed JOIN file ON file.id = file_id"
        " WHERE dataset_id = ? AND document <> '{}' ORDER BY file.id",
        (dataset_id,),
    ).fetchall()
    require_rows("parsed", found)
    return [(row["filename"], json.loads(row["document"])) for row in found]


def _together(given: dict[str, Any], parsed: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Merge what people wrote over what the files say, the earlier one first; of several files, also what each says."""
    found: dict[str, Any] = {}
    for _, document in parsed:
        found = merged(document, found)
    if len(parsed) > 1:
        found["files"] = dict(parsed)
    return merged(found, given)


def _as_json(document: dict[str, Any]) -> str:
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise HTTPException(422, "Metadata may not hold NaN or infinite numbers; JSON has none") from None


def _check_depth(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner.extend(value.values())
            elif isinstance(value, list):
                inner.extend(value)
        if not inner:
            return
        level = inner
    raise HTTPException(422, f"Metadata is nested more than {MAX_DEPTH} levels deep")


def _words(value: object) -> Iterator[str]:
    """Key names and texts; a name like `laserPower_mW` also as its parts."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if (parts := _CAMEL.sub(" ", key)) != key:
                yield parts
            yield from _words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner)
    elif isinstance(value, str):
        yield value
