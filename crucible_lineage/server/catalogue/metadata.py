"""Scientific metadata: merging, limits, and the words it is searched by."""

from __future__ import annotations

import json
import sqlite3

from starlette.exceptions import HTTPException

from crucible_lineage.server.catalogue.resources import touch
from crucible_lineage.server.seals import require_rows

MAX_DOCUMENT_BYTES = 4 << 20  # chosen: a hundred thousand numbers; larger data belong in a file
MAX_DEPTH = 100  # chosen: far beyond any instrument's header, far below Python's recursion limit
MAX_INDEXED_CHARACTERS = 200_000  # chosen: search is for words, not for arrays printed as text


def merged(old: dict[str, object], new: dict[str, object]) -> dict[str, object]:
    """Merge `new` into `old`: objects key by key, anything else is replaced; null is a value."""
    result = dict(old)
    for key, value in new.items():
        previous = result.get(key)
        result[key] = merged(previous, value) if isinstance(previous, dict) and isinstance(value, dict) else value
    return result


def read_metadata(db: sqlite3.Connection, resource_id: int) -> dict[str, object] | None:
    """Return a resource's metadata, None if none was ever written."""
    row = _row(db, resource_id)
    return None if row is None else dict(json.loads(row["document"]))


def written_metadata(db: sqlite3.Connection, resource_id: int) -> dict[str, object]:
    """Return the metadata that people wrote, without what ingestion found in the files."""
    row = _row(db, resource_id)
    return {} if row is None else dict(json.loads(row["document"] if row["given"] is None else row["given"]))


def write_metadata(db: sqlite3.Connection, resource_id: int, written: dict[str, object]) -> dict[str, object]:
    """Store the metadata that people wrote, merge them with what ingestion found, and return the result.

    The words are indexed for search, and the resource counts as modified.
    """
    _check_depth(written)
    parsed = _parsed(db, resource_id)
    document = _merge_sources(written, parsed)
    text = _to_json(document)
    if len(text.encode()) > MAX_DOCUMENT_BYTES:
        raise HTTPException(413, f"Metadata is larger than {MAX_DOCUMENT_BYTES} bytes")
    row = {
        "id": resource_id,
        "text": text,
        "given": _to_json(written) if parsed else None,
        "words": text[:MAX_INDEXED_CHARACTERS],
    }
    is_new = not db.execute("UPDATE metadata SET document = :text, given = :given WHERE id = :id", row).rowcount
    if is_new:
        db.execute("INSERT INTO metadata (id, document, given) VALUES (:id, :text, :given)", row)
        db.execute("INSERT INTO metadata_words (rowid, words) VALUES (:id, :words)", row)
    else:
        db.execute("UPDATE metadata_words SET words = :words WHERE rowid = :id", row)
    touch(db, resource_id)
    return document


def renew_metadata(db: sqlite3.Connection, dataset_id: int) -> None:
    """Merge the dataset's metadata again from its present files; delete them if nothing is left."""
    previous, written, parsed = read_metadata(db, dataset_id), written_metadata(db, dataset_id), _parsed(db, dataset_id)
    if written or parsed:
        if previous != _merge_sources(written, parsed):
            write_metadata(db, dataset_id, written)
    elif previous is not None:
        db.execute("DELETE FROM metadata WHERE id = ?", (dataset_id,))
        db.execute("DELETE FROM metadata_words WHERE rowid = ?", (dataset_id,))


def _row(db: sqlite3.Connection, resource_id: int) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute("SELECT * FROM metadata WHERE id = ?", (resource_id,)).fetchone()
    require_rows("metadata", [row] if row else [])
    return row


def _parsed(db: sqlite3.Connection, dataset_id: int) -> list[tuple[str, dict[str, object]]]:
    """Return what ingestion found in the dataset's files, by file name, in the order in which the files were added."""
    rows = db.execute(
        "SELECT filename, parsed.* FROM parsed JOIN file ON file.id = file_id"
        " WHERE dataset_id = ? AND document <> '{}' ORDER BY file.id",
        (dataset_id,),
    ).fetchall()
    require_rows("parsed", rows)
    return [(row["filename"], json.loads(row["document"])) for row in rows]


def _merge_sources(written: dict[str, object], parsed: list[tuple[str, dict[str, object]]]) -> dict[str, object]:
    """Merge written metadata over those of files, earlier files first; with several files, add each one's own."""
    result: dict[str, object] = {}
    for _, document in parsed:
        result = merged(document, result)
    if len(parsed) > 1:
        result["files"] = dict(parsed)
    return merged(result, written)


def _to_json(document: dict[str, object]) -> str:
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise HTTPException(422, "Metadata may not hold NaN or infinite numbers; JSON has none") from None


def _check_depth(document: dict[str, object]) -> None:
    level: list[object] = [document]
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner.extend(value.values())
            elif isinstance(value, list):
                inner.extend(value)
        if not inner:
            return
        level = inner
    raise HTTPException(422, f"Metadata is nested more than {MAX_DEPTH} levels deep")
